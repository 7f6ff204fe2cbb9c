"""How commands take options that they share, and how help is laid out: grouped, in plain text."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints

from typer.core import TyperCommand, TyperGroup

from dimoo.cli.options import MODEL, SAMPLING

Command = Callable[..., None]


def expanded(command: Command) -> Command:
    """The command with an option for each field of its parameters that are dataclasses, after its own options.

    Typer reads the options off a function's signature. So that a command can name a whole set of them in one
    parameter, as `how: Sampling`, it gets a signature in which the fields stand in place of the parameter.
    """
    hints = get_type_hints(command, include_extras=True)
    sets = {name: hints[name] for name in inspect.signature(command).parameters if is_dataclass(hints[name])}
    parameters = [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(command).parameters.items()
        if name not in sets
    ]
    for kind in sets.values():
        types = get_type_hints(kind, include_extras=True)
        for field in fields(kind):
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            parameters.append(
                inspect.Parameter(
                    field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[field.name]
                )
            )

    @wraps(command)
    def run(**values: Any) -> None:
        chosen = {
            name: kind(**{field.name: values.pop(field.name) for field in fields(kind)}) for name, kind in sets.items()
        }
        command(**values, **chosen)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


class GroupedCommand(TyperCommand):
    """A command whose help shows its options under the titles of their `rich_help_panel`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write them; `ctx` and `formatter` are typer's."""
        rows = (
            (getattr(parameter, "rich_help_panel", None) or _TITLES[parameter.param_type_name], record)
            for parameter in self.get_params(ctx)
            if (record := parameter.get_help_record(ctx)) is not None
        )
        _write(rows, formatter, order=(*_TITLES.values(), SAMPLING, MODEL))


class GroupedCommands(TyperGroup):
    """A group whose help shows its commands under the titles of their `rich_help_panel`."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write them; `ctx` and `formatter` are typer's."""
        del ctx
        shown = [(name, command) for name, command in self.commands.items() if not command.hidden]
        room = formatter.width - 6 - max(len(name) for name, _ in shown)
        rows = (
            (getattr(command, "rich_help_panel", None) or "Commands", (name, command.get_short_help_str(room)))
            for name, command in shown
        )
        _write(rows, formatter)


_TITLES = {"argument": "Arguments", "option": "Options"}


def _write(rows: Iterable[tuple[str, tuple[str, str]]], formatter: Any, order: Iterable[str] = ()) -> None:
    """Rows under their titles: those of `order`, then others as they first appear."""
    sections: dict[str, list[tuple[str, str]]] = {title: [] for title in order}
    for title, row in rows:
        sections.setdefault(title, []).append(row)
    for title, section in ((title, section) for title, section in sections.items() if section):
        with formatter.section(title):
            formatter.write_dl(section)
