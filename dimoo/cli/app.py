"""The `dimoo` command: its sub-commands, and how errors and log lines come out."""

from __future__ import annotations

import logging
import sys
from typing import Annotated, Any

import typer

from dimoo.cli import bench, checkpoints, encode, info, interleave, judge, maps, pictures, regions, rerun, train, words
from dimoo.cli.help import GroupedCommand, GroupedCommands, expanded
from dimoo.core.errors import DimooError
from dimoo.version import __version__


class _Commands(GroupedCommands):
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


COMMANDS = {
    "Make pictures": (
        pictures.generate,
        pictures.edit,
        regions.inpaint,
        regions.retouch,
        regions.outpaint,
        pictures.subject,
        pictures.style,
        pictures.view,
        maps.control,
        pictures.illustrate,
        interleave.interleave,
        rerun.rerun,
    ),
    "Understand": (words.ask, words.caption, words.chat, maps.predict, maps.map),
    "Models": (
        info.info,
        judge.demo,
        judge.evaluate,
        bench.bench,
        checkpoints.convert,
        checkpoints.merge,
        checkpoints.verify,
    ),
    "Train": (encode.encode, train.train),
}
"""Every command, under the title of its group."""

for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(cls=GroupedCommand, rich_help_panel=panel)(expanded(command))


def main() -> None:
    """Run the command line and exit."""
    app(prog_name="dimoo")
