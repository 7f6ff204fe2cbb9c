"""Which correct draw is closest to the released one: python -m benchmarks.noise [--json FILE] [--spread S] [--quick].

The released sampler draws its Gumbel noise in bfloat16, which cuts the tail (see `dimoo.diffusion.draw.Categorical`).
Here logits are N(0, spread^2) over 8,192 codes, and the released draw at temperature 1 is held against correct draws
of a grid of temperature x top_k. Nothing is sampled: bfloat16 noise has few values, so what it draws is computed as
exactly as the softmax that correct noise draws from. The distance is total variation, 1/2 sum_i |p_i - q_i|; it, the
entropy -sum_i p_i log p_i and the mass of the 64 likeliest codes are means over logit vectors.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dimoo.core.rng import generator
from dimoo.diffusion.draw import keep_top_k

CODES = 8192
TEMPERATURES = tuple(step / 20 for step in range(12, 23))
TOP_KS: tuple[int | None, ...] = (64, 80, 96, 112, 128, 160, 192, 256, 512, None)
TOP = 64


@dataclass(frozen=True, kw_only=True)
class Row:
    """A draw and its figures."""

    noise: str
    temperature: float
    top_k: int | None
    top_mass: float
    """Probability of the 64 likeliest codes."""
    entropy: float
    """In nats."""
    distance: float
    """Total variation to the released draw."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was measured: the released draw, the correct one with its settings, and the grid, closest first."""

    spread: float
    vectors: int
    released: Row
    same_settings: Row
    grid: tuple[Row, ...]


def measure(*, vectors: int, spread: float, codes: int = CODES) -> Report:
    """Compute all distributions on `vectors` random logit vectors."""
    logits = spread * torch.randn(vectors, codes, generator=generator(0, "noise", "logits"))
    target = torch.stack([released(vector) for vector in logits])
    # In order of the correct probabilities, so that the 64 likeliest are the first.
    order = logits.argsort(dim=-1, descending=True)
    logits, target = logits.gather(-1, order), target.gather(-1, order)

    def row(temperature: float, top_k: int | None) -> Row:
        return _row(correct(logits, temperature, top_k), target, noise="float32", temperature=temperature, top_k=top_k)

    grid = [row(temperature, top_k) for temperature in TEMPERATURES for top_k in TOP_KS]
    return Report(
        spread=spread,
        vectors=vectors,
        released=_row(target, target, noise="bfloat16", temperature=1.0, top_k=None),
        same_settings=row(1.0, None),
        grid=tuple(sorted(grid, key=lambda entry: entry.distance)),
    )


def correct(logits: Tensor, temperature: float, top_k: int | None) -> Tensor:
    """What exact noise draws from: logits [V, C] -> softmax(top_k(logits) / temperature), float64 [V, C]."""
    kept = logits.double() / temperature
    return (kept if top_k is None else keep_top_k(kept, top_k)).softmax(dim=-1)


def noise_values() -> tuple[Tensor, Tensor]:
    """The values that bfloat16 noise takes, ascending, bfloat16 [n], and their probabilities, float64 [n].

    torch rounds u from float32 to bfloat16, and where that gives 1 takes 0 instead. Values of u below 2^-16 are counted
    as 0: they, and 0, are noise of -2.4 and less, with which no code wins against thousands.
    """
    one, least = 127 << 7, (127 - 16) << 7  # as bit patterns, which are in the order of the values
    uniform = torch.arange(least, one + 1, dtype=torch.int16).view(torch.bfloat16)
    edges = (uniform[1:].double() + uniform[:-1].double()) / 2
    share = torch.cat([edges[:1] + 1 - edges[-1:], edges.diff()])
    uniform = torch.cat([uniform.new_zeros(1), uniform[1:-1]])
    tiny = torch.finfo(torch.bfloat16).tiny
    noise, index = (-(-uniform.clamp(min=tiny).log()).clamp(min=tiny).log()).unique(return_inverse=True)
    return noise, share.new_zeros(len(noise)).index_add(0, index, share)


def released(logits: Tensor) -> Tensor:
    """What bfloat16 noise draws from at temperature 1: logits [C] -> probabilities, float64 [C].

    Code i scores s_i = bfloat16(logit_i + noise) and the lowest index wins a tie, so it is drawn with

        p_i = sum_v P(s_i = v) prod_{j < i} P(s_j < v) prod_{j > i} P(s_j <= v)

    over the values v that scores take.
    """
    noise, share = noise_values()
    cumulative = torch.cat([share.new_zeros(1), share.cumsum(dim=0)])
    # Many logits are one in bfloat16; each distinct one needs its scores only once.
    rounded, code = logits.to(torch.bfloat16).unique(return_inverse=True)
    scores = (rounded[:, None] + noise).float()
    # The winner scores no less than the likeliest code at its worst.
    values = scores[scores >= scores[-1, 0]].unique().expand(len(scores), -1).contiguous()
    below = cumulative[torch.searchsorted(scores, values)][code]
    up_to = cumulative[torch.searchsorted(scores, values, right=True)][code]
    zero = below.new_zeros(1, below.shape[1])
    before = torch.cat([zero, below.log().cumsum(dim=0)[:-1]])
    after = torch.cat([up_to.log().flip(0).cumsum(dim=0).flip(0)[1:], zero])
    return ((up_to - below) * (before + after).exp()).sum(dim=1)


def _row(drawn: Tensor, target: Tensor, *, noise: str, temperature: float, top_k: int | None) -> Row:
    return Row(
        noise=noise,
        temperature=temperature,
        top_k=top_k,
        top_mass=drawn[:, :TOP].sum(dim=-1).mean().item(),
        entropy=torch.special.entr(drawn).sum(dim=-1).mean().item(),
        distance=0.5 * (drawn - target).abs().sum(dim=-1).mean().item(),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = _parser().parse_args(arguments)
    report = measure(vectors=2 if options.quick else 32, spread=options.spread)
    Console().print(table(report))
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")


def table(report: Report) -> Table:
    """The released draw, the correct one with its settings, and the ten closest of the grid."""
    made = Table(title=f"{report.vectors} vectors of logits N(0, {report.spread:g}^2)")
    for name in ("noise", "temperature", "top_k", f"top-{TOP} mass", "entropy, nats", "distance"):
        made.add_column(name, justify="right")
    for row in (report.released, report.same_settings):
        made.add_row(*_cells(row), end_section=row is report.same_settings)
    for row in report.grid[:10]:
        made.add_row(*_cells(row))
    return made


def _cells(row: Row) -> list[str]:
    top_k = "all" if row.top_k is None else str(row.top_k)
    figures = (f"{row.top_mass:.3f}", f"{row.entropy:.3f}", f"{row.distance:.4f}")
    return [row.noise, f"{row.temperature:.2f}", top_k, *figures]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.noise", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    parser.add_argument("--spread", type=float, default=3.0, help="standard deviation of the logits")
    parser.add_argument("--quick", action="store_true", help="fewer vectors: to see that it runs")
    return parser


if __name__ == "__main__":
    main()
