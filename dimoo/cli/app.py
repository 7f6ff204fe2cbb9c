"""The `dimoo` command: its sub-commands, and how errors and log lines come out."""

from __future__ import annotations

import logging
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dimoo.cli import chat, checkpoints, info, judge, pictures, train
from dimoo.core.errors import DimooError
from dimoo.version import __version__


class _Commands(TyperGroup):
    """Ends a command on an error of ours with its message on stderr and exit status 1, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; `ctx` is typer's context."""
        try:
            return super().invoke(ctx)
        except DimooError as error:
            typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_Commands,
    help="Pictures from words, words from pictures: multimodal masked discrete diffusion.",
    epilog="Results go to stdout, messages to stderr. Exit status: 0 done, 1 failed, 2 wrong usage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text: messages stay on one line and can be searched
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more to stderr.")] = False,
) -> None:
    """Options of every command."""
    del version
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        stream=sys.stderr,
        format="%(levelname)s %(name)s: %(message)s",
    )


for command in (
    pictures.generate,
    pictures.inpaint,
    pictures.ask,
    pictures.caption,
    chat.chat,
    judge.demo,
    judge.evaluate,
    info.info,
    checkpoints.convert,
    checkpoints.verify,
):
    app.command()(command)
app.command(name="train")(train.train)


def main() -> None:
    """Run the command line and exit."""
    app(prog_name="dimoo")
