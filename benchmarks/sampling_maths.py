"""Guidance, draw and confidence alone, against each formula written plainly on all positions at once:
python -m benchmarks.sampling_maths [--json FILE] [--quick].

Logits are N(0, 3^2), float32. Seconds are processor time on one thread, the best of several, both versions in turn;
bytes are the most that tensors made within the call hold at one time (what a kernel holds within itself is not seen).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.spine import machine
from dimoo.core.peak import peak_bytes
from dimoo.core.rng import generator
from dimoo.diffusion.confidence import GumbelConfidence, Margin, NegativeEntropy, Probability
from dimoo.diffusion.draw import Categorical, gumbel, keep_top_k, keep_top_p
from dimoo.diffusion.guidance import ClassifierFree, MultiCondition, Renormalised

SHAPES = ((1024, 8192), (64, 28192), (64, 126_464), (16, 1024))
"""Positions and columns: a picture of 32x32 codes at its first step; a block of text in a small and in a large
vocabulary; a small picture near its end, where calls cost more than numbers."""
QUICK_SHAPES = ((8, 300),)
TOP_K, TOP_P = 128, 0.9


@dataclass(frozen=True, kw_only=True)
class Part:
    """A formula of the library, and the same one written plainly."""

    plain: Callable[[], Tensor]
    ours: Callable[[], Tensor]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A part at a shape."""

    part: str
    positions: int
    columns: int
    plain_seconds: float
    seconds: float
    plain_bytes: int
    bytes: int

    @property
    def ratio(self) -> float:
        """How many times faster than written plainly."""
        return self.plain_seconds / self.seconds


def measure(shapes: Sequence[tuple[int, int]], *, repeats: int) -> list[Row]:
    """Every part at every shape."""
    return [_row(name, part, shape, repeats=repeats) for shape in shapes for name, part in parts(*shape).items()]


def parts(positions: int, columns: int) -> Mapping[str, Part]:
    """All parts on random logits."""
    rng = generator(0, "sampling_maths", positions, columns)
    branches = 3 * torch.randn(3, positions, columns, generator=rng)
    condition, one, two = branches
    ids = torch.randint(columns, (positions,), generator=rng)

    def at(values: Tensor) -> Tensor:
        return values.gather(-1, ids[:, None])[:, 0]

    def noise(*shape: int) -> Tensor:
        return gumbel(torch.Size(shape), dtype=torch.float32, generator=rng, device=torch.device("cpu"))

    def draw(logits: Tensor) -> Tensor:
        return (logits + noise(positions, columns)).argmax(dim=-1)

    def lead() -> Tensor:
        best: Tensor = condition.softmax(dim=-1).topk(2, dim=-1).values
        return best[:, 0] - best[:, 1]

    def renormalised() -> Tensor:
        guided: Tensor = 5.0 * condition - 4.0 * one
        ratio = condition.std(dim=-1, keepdim=True, correction=0) / guided.std(dim=-1, keepdim=True, correction=0)
        return guided.mul(0.5 + 0.5 * ratio)

    free, both = ClassifierFree(scale=4.0), MultiCondition(scales=(("one", 2.5), ("two", 4.0)))
    half, fine = Renormalised(guidance=free, strength=0.5), Probability(dtype=torch.float64)
    best, likely = Categorical(top_k=TOP_K), Categorical(top_p=TOP_P)
    calls: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
        "classifier-free": (lambda: (1.0 + 4.0) * condition - 4.0 * one, lambda: free(branches[:2])),
        "two conditions": (
            lambda: condition + 2.5 * (condition - one) + 4.0 * (condition - two),
            lambda: both(branches),
        ),
        "renormalised": (renormalised, lambda: half(branches[:2])),
        "draw": (lambda: draw(condition), lambda: Categorical()(condition, rng)),
        f"draw, top {TOP_K}": (lambda: draw(keep_top_k(condition, TOP_K)), lambda: best(condition, rng)),
        f"draw, top p {TOP_P}": (lambda: draw(keep_top_p(condition, TOP_P)), lambda: likely(condition, rng)),
        "probability": (lambda: at(condition.softmax(dim=-1)), lambda: Probability()(condition, ids, rng)),
        "probability, float64": (
            lambda: at(condition.double().softmax(dim=-1)),
            lambda: fine(condition, ids, rng),
        ),
        "Gumbel confidence": (
            lambda: at(condition.log_softmax(dim=-1)) + noise(positions),
            lambda: GumbelConfidence()(condition, ids, rng),
        ),
        "margin": (lead, lambda: Margin()(condition, ids, rng)),
        "negative entropy": (
            lambda: torch.special.entr(condition.softmax(dim=-1)).sum(dim=-1).neg(),
            lambda: NegativeEntropy()(condition, ids, rng),
        ),
    }
    return {name: Part(plain=plain, ours=ours) for name, (plain, ours) in calls.items()}


def _row(name: str, part: Part, shape: tuple[int, int], *, repeats: int) -> Row:
    calls = (part.plain, part.ours)
    held = [peak_bytes(call) for call in calls]  # also the round that does not count
    best = [math.inf, math.inf]
    for _ in range(repeats):
        for index, call in enumerate(calls):
            since = time.process_time()
            call()
            best[index] = min(best[index], time.process_time() - since)
    return Row(
        part=name,
        positions=shape[0],
        columns=shape[1],
        plain_seconds=best[0],
        seconds=best[1],
        plain_bytes=held[0],
        bytes=held[1],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = _parser().parse_args(arguments)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # processor time of several would add up
    try:
        shapes = QUICK_SHAPES if options.quick else SHAPES
        rows = measure(shapes, repeats=1 if options.quick else 7)
        report = {"machine": machine(), "rows": [{**asdict(row), "ratio": row.ratio} for row in rows]}
    finally:
        torch.set_num_threads(threads)
    Console().print(table(report))
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def table(report: dict[str, Any]) -> Table:
    """One line per part and shape."""
    made = Table(title="{device}, {threads} threads, torch {torch}".format(**report["machine"]))
    made.add_column("")
    for name in ("rows", "columns", "plain, ms", "ours, ms", "times faster", "plain, MB", "ours, MB"):
        made.add_column(name, justify="right")
    rows = report["rows"]
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        times = (f"{1e3 * row[key]:.2f}" for key in ("plain_seconds", "seconds"))
        held = (f"{row[key] / 1e6:.1f}" for key in ("plain_bytes", "bytes"))
        ends = following is not None and following["part"] == rows[0]["part"]
        size = (f"{row[key]:,}" for key in ("positions", "columns"))
        made.add_row(row["part"], *size, *times, f"{row['ratio']:.2f}", *held, end_section=ends)
    return made


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling_maths", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    parser.add_argument("--quick", action="store_true", help="small and once: to see that it runs")
    return parser


if __name__ == "__main__":
    main()
