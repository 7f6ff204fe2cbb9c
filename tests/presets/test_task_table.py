"""Entries of the table of tasks: what they may say, and that a file keeps them."""

from __future__ import annotations

import json

import pytest

from dimoo.core.config import parse
from dimoo.core.errors import ConfigError
from dimoo.presets import families
from dimoo.presets.tasks import STANDARD, TaskText


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "family"),
        ({"family": "a", "images": [3, 1]}, "at least 3 is above at most 1"),
        ({"family": "a", "images": [-1, 1]}, "images"),
        ({"family": "a", "size": "picture"}, "needs a task that always brings one"),
        ({"family": "a", "images": [0, 2], "size": "picture"}, "needs a task that always brings one"),
        ({"family": "a", "text": "{picture}"}, r"may hold \{words\} and \{option\} only"),
        ({"family": "a", "text": "{0} of {}"}, r"may hold \{words\} and \{option\} only"),
        ({"family": "a", "text": "half a { brace"}, r"may hold \{words\} and \{option\} only"),
        ({"family": "a", "answer": "sound"}, "answer"),
        ({"family": "a", "steps": 3}, "steps"),
    ],
)
def test_what_an_entry_cannot_say(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(TaskText, values)


@pytest.mark.parametrize("name", STANDARD)
def test_an_entry_survives_json(name: str) -> None:
    entry = STANDARD[name]
    assert parse(TaskText, json.loads(entry.model_dump_json())) == entry


def test_an_entry_with_everything_survives_json() -> None:
    entry = TaskText(
        family="a",
        text="{option}: {words} {{as it is}}",
        options={"x": "y"},
        images=(1, 3),
        answer="both",
        size="picture",
    )
    assert parse(TaskText, json.loads(entry.model_dump_json())) == entry
    assert {name for name, field in TaskText.model_fields.items() if getattr(entry, name) == field.default} == set()


def test_the_standard_tasks_are_of_families_that_there_are() -> None:
    assert {entry.family for entry in STANDARD.values()} == set(families.FAMILIES)
    assert STANDARD["edit"].size == STANDARD["control"].size == STANDARD["predict"].size == "picture"
    assert [name for name, entry in STANDARD.items() if entry.answer != "image"] == ["ask", "chat", "illustrate"]
