"""bench: how fast a model samples, and what that costs in quality."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from dimoo.cli.files import output_file, output_paths
from dimoo.cli.options import Device, DType, InDType, OnDevice, Seed, auto_device
from dimoo.core.errors import RequestError


class What(str, Enum):
    """What is measured."""

    SAMPLING = "sampling"


class OnTask(str, Enum):
    """What is asked of the model."""

    IMAGE = "image"
    EDIT = "edit"
    TEXT = "text"


NONE = "none"
WIDTH = 132
"""Columns of the table, at least: a line that the terminal breaks is easier to read than names that are cut."""


def bench(
    what: Annotated[What, typer.Argument(help="What to measure.")],
    model: Annotated[
        str, typer.Option(metavar="PATH", help='Checkpoint that quality is measured on; "none": cost alone.')
    ] = "mini",
    shape: Annotated[
        str, typer.Option(help='Shape of the random weights that cost is measured on; "none": the checkpoint alone.')
    ] = "small",
    task: Annotated[
        list[OnTask] | None, typer.Option(help="Tasks; all by default. May be given several times.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Methods; all by default. May be given several times.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=2, help="Requests that a quality is of.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer methods and requests.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the rows as JSON as well.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw quality over speed; needs dimoo[plot].")
    ] = None,
    seed: Seed = 0,
    device: OnDevice = Device.AUTO,
    dtype: InDType = DType.FLOAT32,
) -> None:
    """Measure how fast a model samples, and how well.

    Prints seconds, tokens, memory and quality of every method. Ratios are taken in the same run against the released
    loop: one answer and one guidance branch at a time, all logits at every step. "random" rows are timed on random
    weights, whose answers mean nothing; their quality is that of the same method on the checkpoint.
    """
    del what
    if json_file is not None:
        output_file(json_file)
    if plot is not None:
        output_paths(plot, 1)
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from dimoo.bench.run import HEAD, Bench, cells, run

    if model == NONE and shape == NONE:
        raise RequestError('there is nothing to measure: both --model and --shape are "none"; leave one of them out')
    wanted = Bench(
        model=None if model == NONE else model,
        shape=None if shape == NONE else shape,
        tasks=tuple(one.value for one in task or OnTask),
        methods=None if method is None else tuple(method),
        count=count,
        quick=quick,
        seed=seed,
        device=auto_device(device),
        dtype=dtype.value,
    )
    with Progress(console=Console(stderr=True), transient=True) as progress:
        report = run(wanted, progress)
    table = Table(*HEAD, box=None, pad_edge=False)
    for row in report.rows:
        table.add_row(*cells(row))
    console = Console()
    Console(width=max(console.width, WIDTH)).print(table)
    if json_file is not None:
        rows = [asdict(row) for row in report.rows]
        json_file.write_text(json.dumps({"settings": report.settings, "rows": rows}, indent=2) + "\n")
        typer.echo(json_file)
    if plot is not None:
        from dimoo.bench.frontier import draw_frontier

        typer.echo(draw_frontier(report.rows, plot))
