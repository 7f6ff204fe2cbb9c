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
        ({"family": "a", "text": "{words.foo}"}, r"may hold \{words\} and \{option\} only"),
        ({"family": "a", "text": "{words.__class__}"}, r"may hold \{words\} and \{option\} only"),
        ({"family": "a", "text": "{option[0]}"}, r"may hold \{words\} and \{option\} only"),
        ({"family": "a", "text": "{words!r}"}, r"may hold \{words\} and \{option\} only"),
        ({"family": "a", "text": "{words:>9}"}, r"may hold \{words\} and \{option\} only"),
        ({"family": "a", "text": "{words:{option}}"}, r"may hold \{words\} and \{option\} only"),
        (
            {"family": "a", "images": [1, 1], "answer": "text", "size": "picture"},
            "the answer is 'text'; leave it out",
        ),
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


@pytest.mark.parametrize(
    ("text", "takes"),
    [
        ("{words}", {"words"}),
        ("{option}: {words}", {"words", "option"}),
        ("{option} {option}", {"option"}),
        ("map", set()),
        ("{{words}}", set()),
        ("{{{words}}} {{option}}", {"words"}),
        ("", set()),
    ],
)
def test_what_a_text_has_a_place_for(text: str, takes: set[str]) -> None:
    entry = TaskText(family="a", text=text)
    assert entry.takes == takes
    said = entry.text.format(words="WORDS", option="OPTION")
    assert {"WORDS" in said, "OPTION" in said} == {"words" in takes, "option" in takes}


def test_the_standard_tasks_are_of_families_that_there_are() -> None:
    assert {entry.family for entry in STANDARD.values()} == set(families.FAMILIES)
    assert STANDARD["edit"].size == STANDARD["control"].size == STANDARD["predict"].size == "picture"
    assert [name for name, entry in STANDARD.items() if entry.answer != "image"] == ["ask", "chat", "illustrate"]
