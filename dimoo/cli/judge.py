"""demo, evaluate: look at a model, and score it."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from dimoo.cli.files import output_folder
from dimoo.cli.options import (
    PATH_HELP,
    Compiled,
    Device,
    DType,
    InDType,
    ModelOptions,
    OnDevice,
    Quantized,
    Seed,
    SetBoth,
    WithAdapter,
    WithAttention,
    open_model,
    sampling_as,
)


class Suite(str, Enum):
    """What a model is scored on."""

    WORLD = "world"


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the page and its pictures go.")] = Path(
        "demo"
    ),
    *,
    how: ModelOptions,
    seed: Seed = 0,
) -> None:
    """Make a page that shows every task the model knows.

    Prints the path of the page.
    """
    output_folder(out)
    from dimoo.evaluation.demo import make_demo
    from dimoo.evaluation.suites import world_of
    from dimoo.weights.hub import resolve

    typer.echo(make_demo(how.open(), world_of(resolve(how.model)), out, seed))


def evaluate(
    model: Annotated[str, typer.Argument(metavar="PATH", help=PATH_HELP)],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where scores.json and index.html go.")],
    suite: Annotated[Suite, typer.Option(help="What to score it on.")] = Suite.WORLD,
    limit: Annotated[int, typer.Option(min=1, help="Prompts of each main kind, and questions.")] = 500,
    batch: Annotated[int, typer.Option(min=1, help="Requests run together.")] = 32,
    seed: Seed = 0,
    world: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Score it on the scenes of this checkpoint or world.json, not on its own."),
    ] = None,
    device: OnDevice = Device.AUTO,
    dtype: InDType = DType.FLOAT32,
    attention: WithAttention = None,
    quantize: Quantized = None,
    compile: Compiled = False,
    adapter: WithAdapter = None,
    others: SetBoth = None,
) -> None:
    """Score a model on held-out prompts, questions and tasks.

    Prints each score with its 95% interval, its ceiling (true pictures passed through the image tokenizer) and its
    floor (the same pictures judged against other prompts), and the path of the page.
    """
    output_folder(out)
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from dimoo.evaluation.report import HEAD, score_rows, write_report
    from dimoo.weights.hub import resolve

    match suite:
        case Suite.WORLD:
            from dimoo.evaluation.suites import evaluate as evaluate_in
            from dimoo.evaluation.suites import world_at, world_of

            scenes = world_of(resolve(model)) if world is None else world_at(world)
    loaded = open_model(model, device, dtype, attention, quantize, compile=compile, adapter=adapter)
    loaded = sampling_as(loaded, others or ())
    with Progress(console=Console(stderr=True), transient=True) as progress:
        result = evaluate_in(loaded, scenes, limit=limit, seed=seed, batch=batch, progress=progress)
    if result.left_out:
        typer.echo(f"not scored, as the model or its world does not know them: {', '.join(result.left_out)}", err=True)
    table = Table(*HEAD, box=None, pad_edge=False)
    for row in score_rows(result.scores, result.cases):
        table.add_row(*row)
    Console().print(table)
    typer.echo(write_report(result.scores, result.cases, out, result.left_out, settings=others or (), scenes=world))
