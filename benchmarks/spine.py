"""Where the time goes: python -m benchmarks.spine [--json FILE] [--quick] [--random].

A training step of `world_base` in tokens per second, and a picture of `mini` in seconds, at batch 1 and 8, each split
into parts that add up to the whole; and how many logits the head computed of those that it might have.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import sampling, training_parts
from benchmarks.timing import REST

BATCHES = (1, 8)
PARTS = ("attention", "mlp", "head", "draw", "data", "optimizer", "pixels", REST)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = _parser().parse_args(arguments)
    model = sampling.open_model(random=options.random)
    report = {
        "machine": machine(),
        "training": [training_parts.measure(batch, steps=3 if options.quick else 20) for batch in BATCHES],
        "sampling": [
            {**sampling.measure(model, batch, repeats=1 if options.quick else 5), "model": model.config.name}
            for batch in BATCHES
        ],
    }
    Console().print(table(report))
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "device": gpu or platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def table(report: dict[str, Any]) -> Table:
    """One column per measurement; parts in per cent of its whole."""
    entries = [*report["training"], *report["sampling"]]
    made = Table(title="{device}, {threads} threads, torch {torch}".format(**report["machine"]))
    made.add_column("")
    for entry in entries:
        made.add_column(f"{entry['what']}, batch {entry['batch']}", justify="right")
    made.add_row("seconds each", *(f"{entry['seconds']:.4f}" for entry in entries))
    speeds = [entry.get("tokens_per_second") for entry in entries]
    made.add_row("tokens/s", *("" if speed is None else f"{speed:,.0f}" for speed in speeds), end_section=True)
    for part in PARTS:
        shares = [entry["parts"].get(part, 0.0) / sum(entry["parts"].values()) for entry in entries]
        made.add_row(part, *(f"{share:.1%}" if share else "" for share in shares), end_section=part == REST)
    logits = [entry["logits"] for entry in entries]
    made.add_row("rows given to the head", *(f"{entry['rows']:,}" for entry in logits))
    made.add_row("of tokens in the stream", *(f"{entry['stream_tokens']:,}" for entry in logits))
    made.add_row("columns", *("/".join(map(str, entry["columns"])) for entry in logits))
    made.add_row("of ids", *(f"{entry['ids']:,}" for entry in logits))
    made.add_row("logits computed", *(f"{entry['share']:.1%}" for entry in logits))
    return made


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spine", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    parser.add_argument("--quick", action="store_true", help="fewer repeats: to see that it runs")
    parser.add_argument("--random", action="store_true", help="random weights in the shape of world_base")
    return parser


if __name__ == "__main__":
    main()
