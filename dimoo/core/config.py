"""Strict typed configs and validated command-line overrides. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dimoo.core.errors import ConfigError
from dimoo.core.explain import TAG, explain

ConfigT = TypeVar("ConfigT", bound="StrictConfig")


class StrictConfig(BaseModel):
    """Base of every config: unknown keys are errors, values are not coerced, instances are frozen.

    Numbers are finite: JSON has no others, so they would not survive `save` and `load`.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
    )

    def __init__(self, /, **values: Any) -> None:
        """A config of these settings.

        Raises:
            ConfigError: with one line per problem: where, what was given, what is wanted.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(explain(type(self), values, error)) from error

    # As pydantic marks its own: settings that are validated as parts of others, from JSON say, do not pass here.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def save(self, path: Path) -> None:
        """Write the config as indented JSON."""
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls: type[ConfigT], path: Path) -> ConfigT:
        """Read a config that `save` wrote.

        Raises:
            ConfigError: the file is missing, is not JSON, or does not validate.
        """
        try:
            return parse(cls, json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise ConfigError(f"no config at {path}") from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid JSON: {error}") from error


def parse(kind: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """Validate plain JSON values as a config; lists become tuples, unions are resolved by their tag.

    Raises:
        ConfigError: with one line per problem: where, what was given, what is wanted.
    """
    try:
        return kind.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise ConfigError(explain(kind, values, error)) from error


def override(config: ConfigT, assignments: Iterable[str]) -> ConfigT:
    """Apply `a.b.c=value` assignments and validate the whole result again.

    Values are read as JSON where they are JSON (`1e-4`, `true`, `[1,2]`, `{"kind":"cosine"}`), else as text; also as
    text where only text is valid (`run.name=2024`). A number in a path is an index into a list. Where a part has
    several kinds, `cache.kind=block` takes another with its defaults, and `cache.scope=masked` sets one of its fields:
    kinds are taken before fields are set, whatever the order.

    Raises:
        ConfigError: the assignment has no `=`, the path does not exist, or the result does not validate.
    """
    values, texts = json.loads(config.model_dump_json()), dict[str, str]()
    parted = [(assignment, *assignment.partition("=")) for assignment in assignments]
    for assignment, path, equals, text in sorted(parted, key=lambda part: part[1].rpartition(".")[2].strip() != TAG):
        if not equals or not path:
            raise ConfigError(f"override {assignment!r} is not of the form a.b=value")
        _assign(values, path.strip(), _read(text.strip()))
        texts[path.strip()] = text.strip()
    for path in _not_text(type(config), values) & texts.keys():
        _assign(values, path, texts[path])
    return parse(type(config), values)


def _not_text(kind: type[StrictConfig], values: Mapping[str, Any]) -> set[str]:
    """The paths whose values are wrong for nothing but not being text."""
    try:
        kind.model_validate_json(json.dumps(values))
    except ValidationError as error:
        return {".".join(map(str, problem["loc"])) for problem in error.errors() if problem["type"] == "string_type"}
    return set()


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _assign(values: Any, path: str, value: Any) -> None:
    *parents, leaf = path.split(".")
    node = values
    for key in parents:
        node = node[_key(node, key, path)]
    if isinstance(node, _Kind):  # validation knows its fields
        node[leaf] = value
    elif leaf == TAG and isinstance(node, dict) and node.get(TAG, value) != value:
        holder = values
        for key in parents[:-1]:
            holder = holder[_key(holder, key, path)]
        holder[_key(holder, parents[-1], path)] = _Kind({TAG: value})
    else:
        node[_key(node, leaf, path)] = value


class _Kind(dict[str, Any]):
    """A part that an assignment made another kind of: what it does not set has that kind's defaults."""


def _key(node: Any, key: str, path: str) -> str | int:
    if isinstance(node, list) and key.isdigit() and int(key) < len(node):
        return int(key)
    if isinstance(node, dict) and key in node:
        return key
    known = f"0..{len(node) - 1}" if isinstance(node, list) else ", ".join(node) if isinstance(node, dict) else ""
    known = known or "none; set what it is to be part of as a whole, in JSON"
    raise ConfigError(f"override {path!r}: there is no {key!r} here; known: {known}")
