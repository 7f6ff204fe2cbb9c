"""What is wrong with a config: a line for each setting, as `run.steps: 0: should be greater than 0`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

TAG = "kind"
"""The field that says which one of several configs a part is."""
SHOWN = 60
"""Characters of a value that are shown."""
Place = tuple[str, ...]
"""A setting by the keys that lead to it."""


def explain(kind: type[BaseModel], values: Any, error: ValidationError) -> str:
    """A line for each setting that is wrong: where, what was given, what is wanted.

    Where a setting may be several things, one that was meant is one whose own settings are looked at.

    Args:
        kind: the config.
        values: that were to become one.
        error: what came of it.
    """
    wanted: dict[Place, list[str]] = {}
    given: dict[Place, str] = {}
    for problem in error.errors(include_url=False):
        place = _place(values, problem)
        wanted.setdefault(place, []).append(_wanted(kind, values, place, problem))
        given.setdefault(place, _given(problem))
    meant = [place for place in wanted if not any(other[: len(place)] == place != other for other in wanted)]
    return "\n".join(
        ": ".join(
            part for part in (_name(kind, place, given[place]), given[place], ", or ".join(wanted[place])) if part
        )
        for place in meant
    )


def _name(kind: type[BaseModel], place: Place, given: str) -> str:
    return ".".join(place) or (kind.__name__ if given else "")


def _place(values: Any, problem: ErrorDetails) -> Place:
    """Without the names that pydantic gives to what a part may be."""
    place, node = list[str](), values
    for number, key in enumerate(problem["loc"], 1):
        if (isinstance(node, Mapping) and key in node) or (
            isinstance(node, list | tuple) and isinstance(key, int) and key < len(node)
        ):
            node = node[key]  # type: ignore[index]
            place.append(str(key))
        elif number == len(problem["loc"]) and problem["type"] == "missing":
            place.append(str(key))
    return (*place, TAG) if problem["type"].startswith("union_tag") else tuple(place)


def _given(problem: ErrorDetails) -> str:
    value = problem["input"]
    if problem["type"] == "union_tag_invalid":
        value = problem["ctx"]["tag"]
    if problem["type"] in ("missing", "union_tag_not_found"):
        return ""
    if problem["type"] in ("value_error", "assertion_error") and isinstance(value, BaseModel | Mapping | list | tuple):
        return ""  # a validator says by itself which of its settings do not go together
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _wanted(kind: type[BaseModel], values: Any, place: Place, problem: ErrorDetails) -> str:
    match problem["type"]:
        case "missing" | "union_tag_not_found":
            return "is missing; give it"
        case "extra_forbidden":
            return f"there is no such setting; known: {', '.join(_known(kind, values, place[:-1]))}"
        case "model_attributes_type":
            return "should be one of its configs"
        case "union_tag_invalid":
            return f"there is no such kind; choose from {problem['ctx']['expected_tags']}"
    said = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return said.removeprefix("Input ").removeprefix("String ")


def _known(kind: type[BaseModel], values: Any, place: Place) -> list[str]:
    """The settings of the config at a place."""
    configs, node = [kind], values
    for key in place:
        node = node[int(key) if isinstance(node, list | tuple) else key]
        found = [config.model_fields[key].annotation for config in configs if key in config.model_fields]
        if found:  # no number of a list, and no key of a dictionary
            configs = [config for annotation in found for config in _configs(annotation)]
    tag = node.get(TAG) if isinstance(node, Mapping) else None
    own = [config for config in configs if TAG in config.model_fields and config.model_fields[TAG].default == tag]
    return list(dict.fromkeys(name for config in own or configs for name in config.model_fields))


def _configs(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every config that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _configs(inner)
