"""Packed attention by every backend that runs here, and a block as written against compiled:
python -m benchmarks.attention [--json FILE] [--device D] [--dtype D] [--quick].

Attention has 6 heads of width 64. "naive" is a loop over sequences and softmax(q k / 8) v as it is written; "padded" is
torch's SDPA on a rectangle with a mask. The error is the largest difference to "naive" in float64. Backends that cannot
run are listed with their reason. A block is timed without gradients; compilations are counted over eight lengths.
On a CPU seconds are processor time on one thread, elsewhere wall time; the best of several.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.blocks import Streams, best, compare
from benchmarks.spine import machine
from dimoo.backbone.build import build_attention
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.layout import PackedLayout
from dimoo.core.device import PRECISIONS
from dimoo.core.errors import BackendError
from dimoo.core.rng import generator
from dimoo.weights.checkpoint import Checkpoint
from dimoo.weights.hub import resolve

HEADS, WIDTH = 6, 64
NAIVE = "naive"
Pairs = Sequence[tuple[int, int]]
"""(queries, keys) of each sequence."""
RAGGED = tuple(30 + 47 * index % 121 for index in range(64))
PACKS: dict[str, Pairs] = {
    "picture of 32 x 32 codes, 2 branches": [(1064, 1064), (1044, 1044)],
    "8 of them": [(1064, 1064), (1044, 1044)] * 8,
    "64 sequences of 30 to 150": [(length, length) for length in RAGGED],
    "cached step, 100 queries, 2 branches": [(100, 1064)] * 2,
}
QUICK_PACKS: dict[str, Pairs] = {"two": [(5, 5), (3, 3)], "cached": [(2, 5)]}
BASE = BackboneConfig(d_model=384, layers=2, heads=6, kv_heads=6, mlp_hidden=1152, vocab_size=8)
STREAMS: Streams = {"picture of 32 x 32 codes": (1064, 1044), "cached step": (100, 100)}
MINI_STREAMS: Streams = {"mini, picture of 8 x 8 codes": (100, 84), "8 of them": (100, 84) * 8}
QUICK_STREAMS: Streams = {"two": (5, 3)}


@dataclass(frozen=True, kw_only=True)
class Attended:
    """A backend on a pack."""

    pack: str
    backend: str
    seconds: float | None
    error: float | None
    reason: str = ""
    """Why it did not run."""


def attend_all(pack: str, pairs: Pairs, device: torch.device, dtype: torch.dtype, *, repeats: int) -> list[Attended]:
    """Every backend on one pack."""
    queries, keys = zip(*pairs, strict=True)
    rng = generator(0, "benchmark", "attention")
    made = [torch.randn(count, HEADS, WIDTH, generator=rng) for count in (sum(queries), sum(keys), sum(keys))]
    query, key, value = (tensor.to(device, dtype) for tensor in made)
    layout = PackedLayout(
        positions=torch.zeros(sum(queries), dtype=torch.int64, device=device), query_lengths=queries, key_lengths=keys
    )
    truth = naive(*(tensor.cpu().double() for tensor in (query, key, value)), layout)
    backends: dict[str, Callable[..., Tensor]] = {NAIVE: naive, "padded": padded}
    for kind in ("sdpa", "varlen", "flex", "xformers"):
        backends[kind] = build_attention(kind).attend  # type: ignore[arg-type]
    rows = []
    for name, attend in backends.items():
        try:
            out = attend(query, key, value, layout)  # also the round that does not count
        except BackendError as error:
            rows.append(Attended(pack=pack, backend=name, seconds=None, error=None, reason=str(error)))
            continue
        wrong = (out.cpu().double() - truth).abs().max().item()
        seconds = best(lambda attend=attend: attend(query, key, value, layout), device, repeats=repeats)
        rows.append(Attended(pack=pack, backend=name, seconds=seconds, error=wrong))
    return rows


def naive(query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout) -> Tensor:
    """Sequence by sequence, as the formula says."""
    lengths = (layout.query_lengths, layout.key_lengths, layout.key_lengths)
    split = (tensor.split(parts) for tensor, parts in zip((query, key, value), lengths, strict=True))
    rows = zip(*split, strict=True)
    return torch.cat([_softmax(*(part.transpose(0, 1) for part in row)).transpose(0, 1) for row in rows])


def _softmax(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = query @ key.transpose(1, 2) / math.sqrt(query.shape[2])
    return scores.softmax(dim=2) @ value


def padded(query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout) -> Tensor:
    """On a rectangle as long as the longest sequence, with a mask; packing and unpacking count."""
    real = layout.derived("queries", lambda layout: _real(layout.query_bounds))
    seen = layout.derived("keys", lambda layout: _real(layout.key_bounds))
    rectangles = []
    for tensor, mask in ((query, real), (key, seen), (value, seen)):
        rectangle = tensor.new_zeros(*mask.shape, *tensor.shape[1:])
        rectangle[mask] = tensor
        rectangles.append(rectangle.transpose(1, 2))
    out: Tensor = scaled_dot_product_attention(*rectangles, attn_mask=seen[:, None, None])
    return out.transpose(1, 2)[real]


def _real(bounds: Tensor) -> Tensor:
    lengths = bounds.diff().unsqueeze(1)
    return torch.arange(int(lengths.max()), device=lengths.device) < lengths


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = _parser().parse_args(arguments)
    device = torch.device(options.device)
    chosen = options.dtype or ("float32" if device.type == "cpu" else "bfloat16")
    dtype, repeats, threads = PRECISIONS[chosen], 1 if options.quick else 7, torch.get_num_threads()
    torch.set_num_threads(1)  # processor time of several would add up
    try:
        packs = QUICK_PACKS if options.quick else PACKS
        attended = [row for pack in packs.items() for row in attend_all(*pack, device, dtype, repeats=repeats)]
        shapes = [(BASE, QUICK_STREAMS if options.quick else STREAMS)]
        if not options.quick:
            shapes.append((Checkpoint.open(resolve("mini")).backbone_config(), MINI_STREAMS))
        blocks = [row for shape in shapes for row in compare(*shape, device, dtype, repeats=repeats)]
        report = {
            "machine": machine(),
            "dtype": chosen,
            "attention": [asdict(row) for row in attended],
            "blocks": [{**asdict(row), "ratio": row.ratio} for row in blocks],
        }
    finally:
        torch.set_num_threads(threads)
    for shown in (*tables(report), *missing(report)):
        Console().print(shown)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def tables(report: dict[str, Any]) -> tuple[Table, Table]:
    """Attention, one column per pack; blocks, one line per stream."""
    title = "{device}, {threads} thread, torch {torch}".format(**report["machine"])
    rows = report["attention"]
    packs, backends = ([*dict.fromkeys(row[key] for row in rows)] for key in ("pack", "backend"))
    attention = Table("attention", title=f"milliseconds (largest error), {report['dtype']}; {title}")
    for pack in packs:
        attention.add_column(pack, justify="right")
    for backend in backends:
        own = [row for row in rows if row["backend"] == backend]
        attention.add_row(backend, *(_cell(row) for row in own))
    blocks = Table("block", title=title)
    for name in ("tokens", "as written, ms", "compiled, ms", "times faster", "error", "first pass, s", "compilations"):
        blocks.add_column(name, justify="right")
    for row in report["blocks"]:
        times = (f"{1e3 * row[key]:.2f}" for key in ("eager_seconds", "compiled_seconds"))
        rest = (f"{row['ratio']:.2f}", f"{row['error']:.0e}", f"{row['first_seconds']:.1f}", str(row["compilations"]))
        blocks.add_row(row["stream"], f"{row['tokens']:,}", *times, *rest)
    return attention, blocks


def missing(report: dict[str, Any]) -> list[str]:
    """One line per backend that did not run, and why."""
    reasons = {row["backend"]: row["reason"] for row in report["attention"] if row["reason"]}
    return [f"{backend}: {reason}" for backend, reason in reasons.items()]


def _cell(row: dict[str, Any]) -> str:
    if row["seconds"] is None:
        return "not here"
    return f"{1e3 * row['seconds']:.2f} ({row['error']:.0e})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--dtype", choices=PRECISIONS, help="float32 on a CPU, else bfloat16, where it is not said")
    parser.add_argument("--quick", action="store_true", help="small and once: to see that it runs")
    return parser


if __name__ == "__main__":
    main()
