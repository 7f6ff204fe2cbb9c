"""train: run a recipe."""

from __future__ import annotations

from typing import Annotated

import typer

from dimoo.core.errors import BackendError

TRAINING_PACKAGES = frozenset({"recipes", "lightning", "torchmetrics", "tensorboard"})


def train(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A recipe, as world_base.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="K=V", help="Override a setting, as run.steps=100.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="CKPT", help="Start from it: a folder, a run, or a hub name."),
    ] = None,
    show: Annotated[bool, typer.Option("--print", help="Print the resolved recipe and stop.")] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Print parameters, memory by part and operations of a step; stop.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build everything and take two steps; write nothing.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    export: Annotated[
        bool, typer.Option("--export", help="Write what the run's last checkpoint holds to its export folder; stop.")
    ] = False,
    requeue: Annotated[
        bool, typer.Option("--requeue", help="Go on from the run's last checkpoint if there is one, else start.")
    ] = False,
    last: Annotated[bool, typer.Option("--last", help="Export the last weights, not their average.")] = False,
) -> None:
    """Run a training recipe.

    The same as `python -m recipes.run`. Recipes come with a checkout of the repository.
    """
    arguments = [name, *(f"--set={change}" for change in changes or [])]
    if start is not None:
        arguments += [f"--from={start}"]
    arguments += (
        ["--estimate"] * estimate
        + ["--print"] * show
        + ["--dry-run"] * dry_run
        + ["--resume"] * resume
        + ["--export"] * export
        + ["--requeue"] * requeue
        + ["--weights=last"] * last
    )
    try:
        from recipes.run import main

        status = main(arguments)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in TRAINING_PACKAGES:
            raise
        raise BackendError(
            f"training needs {error.name!r}, which is not installed;"
            ' clone the repository and run pip install -e ".[train]" in it'
        ) from error
    raise typer.Exit(status)
