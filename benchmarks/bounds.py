"""What bounds a method: python -m benchmarks.bounds [--task T] [--method NAME] [--json FILE] [--quick].

Answers on the random weights of 384 x 12 layers, one at a time, by methods of `dimoo bench sampling`: where the seconds
of each go, and how near it comes to the machine, for which its matrix products (attention's among them) are counted and
set against the rate of a plain one of the same width in the same run. A method is bounded by what it computes where
that share is near 1, and by everything around the products where it is not.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from benchmarks.sampling import timed_plan
from benchmarks.spine import machine
from benchmarks.timing import REST, Clock, watch
from dimoo.bench.methods import ALL, METHODS, Method, Task
from dimoo.bench.shapes import SHAPES, RandomModel, Shape
from dimoo.bench.stands import RandomStand
from dimoo.tasks.engine import Stream
from dimoo.tasks.job import Job

PARTS = ("attention", "mlp", "head", "draw", REST)
SHAPE = "small"
PRODUCT = 2048
"""Rows of the product whose rate is the machine's: as many as a picture's tokens with both branches."""


def _attended(query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> int:
    """Of shapes."""
    del rest, named
    return int(sdpa_flop_count(query, key, value))


ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attended}
"""The kernel that the counter of torch does not know."""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """One method on one task."""

    task: Task
    method: str
    seconds: float
    """Per answer, without clocks."""
    parts: dict[str, float]
    """Shares of the same with clocks: `attention` with its projections, `mlp`, `head`, `draw` (guidance, draw,
    confidence, order), and the rest: embedding, norms, rotation, what is stored and read, the canvas."""
    products: float
    """Floating-point operations of its matrix products."""
    floor: float
    """Seconds that these take at the machine's rate."""

    @property
    def share(self) -> float:
        """The part of the seconds that the products alone would take."""
        return self.floor / self.seconds


def measure(shape: Shape, tasks: Sequence[Task], methods: Sequence[Method], *, repeats: int) -> list[Bound]:
    """A bound for each method of each task, in the precision of float32 on the CPU."""
    stand = RandomStand(model=RandomModel.of(shape, dtype=torch.float32, device=torch.device("cpu"), seed=0), seed=0)
    rate = products_per_second(shape, repeats=repeats)
    return [
        _bound(stand, task, method, rate, repeats=repeats)
        for task in tasks
        for method in methods
        if task in method.tasks and method.static
    ]


def products_per_second(shape: Shape, *, repeats: int) -> float:
    """Floating-point operations per second of the product of an MLP: [PRODUCT, d] by [d, h]."""
    wide, hidden = shape.backbone.d_model, shape.backbone.mlp_hidden
    left, right = torch.ones(PRODUCT, wide), torch.ones(wide, hidden)
    return 2.0 * PRODUCT * wide * hidden / _least(lambda: left @ right, 20 + repeats)


def _bound(stand: RandomStand, task: Task, method: Method, rate: float, *, repeats: int) -> Bound:
    def run(jobs: Sequence[Job[Any]]) -> list[Any]:
        return Stream.sampled(stand.network, stand.vocabulary, jobs).results()

    ((job,),) = stand.jobs(task, method, 1)
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        run([job])  # also the round that does not count
    seconds = _least(lambda: run([job]), repeats)
    clock = Clock(torch.device("cpu"))
    with ExitStack() as stack:
        network = type(stand.network)
        stack.enter_context(patch.object(network, "head", clock.timed("head", network.head)))
        for handle in watch(stand.network, clock):
            stack.callback(handle.remove)
        timed = replace(job, plans={name: timed_plan(plan, clock) for name, plan in job.plans.items()})
        with clock.part(REST):
            run([timed])
    whole = sum(clock.seconds.values())
    products = float(counter.get_total_flops())
    return Bound(
        task=task,
        method=method.name,
        seconds=seconds,
        parts={name: clock.seconds.get(name, 0.0) / whole for name in PARTS},
        products=products,
        floor=products / rate,
    )


def _least(call: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of several calls."""
    taken = []
    for _ in range(repeats):
        since = time.perf_counter()
        call()
        taken.append(time.perf_counter() - since)
    return min(taken)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = _parser()
    options = parser.parse_args(arguments)
    named = {method.name: method for method in METHODS if method.quantize is None}
    methods = [named[name] for name in options.method] if options.method else list(named.values())
    repeats = 1 if options.quick else 3
    bounds = measure(SHAPES[SHAPE], options.task or ALL, methods, repeats=repeats)
    if not bounds:
        parser.error(
            f"{' and '.join(options.method)} makes no {' and '.join(options.task)}: name another task or method"
        )
    report = {"machine": machine(), "rows": [{**asdict(bound), "share": bound.share} for bound in bounds]}
    Console().print(table(report))
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def table(report: dict[str, Any]) -> Table:
    """One line per task and method."""
    made = Table(title="{device}, {threads} threads, torch {torch}".format(**report["machine"]))
    made.add_column("task")
    made.add_column("method")
    for name in ("seconds", *PARTS, "GFLOP", "floor, s", "floor / seconds"):
        made.add_column(name, justify="right")
    for row in report["rows"]:
        parts = (f"{100 * row['parts'][name]:.0f}%" for name in PARTS)
        floor = (f"{row['products'] / 1e9:.0f}", f"{row['floor']:.3f}", f"{row['share']:.2f}")
        made.add_row(row["task"], row["method"], f"{row['seconds']:.3f}", *parts, *floor)
    return made


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bounds", description=__doc__)
    parser.add_argument("--task", action="append", choices=ALL, help="which, again and again (usual: all)")
    names = [method.name for method in METHODS if method.quantize is None and method.static]
    parser.add_argument("--method", action="append", choices=names, help="which, again and again (usual: all)")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    parser.add_argument("--quick", action="store_true", help="once: to see that it runs")
    return parser


if __name__ == "__main__":
    main()
