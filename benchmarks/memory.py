"""Memory of the released model by precision, task and picture: python -m benchmarks.memory [--json | --markdown].

Computed by `dimoo.tasks.memory` from the shapes of the preset `lumina_dimoo_8b` and its image tokenizer; nothing is
loaded and no device is needed. Gigabytes are 10^9 bytes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.released import VQ
from dimoo.presets.lumina_dimoo_8b import lumina_dimoo_8b
from dimoo.tasks.memory import PROMPT_TOKENS, Need, estimate
from dimoo.tokenizers.image.build import empty_image_tokenizer

PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = _parser().parse_args(arguments)
    report = measure()
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        # As wide as it gets: markdown must not be wrapped.
        Console(width=200 if options.markdown else None).print(table(report["needs"], markdown=options.markdown))


def measure() -> dict[str, Any]:
    """Every need as plain numbers, sorted by precision, task and tokens."""
    config, image = lumina_dimoo_8b(), empty_image_tokenizer(VQ)
    needs = [
        _plain(name, need) for name, dtype in PRECISIONS.items() for need in estimate(config, dtype=dtype, image=image)
    ]
    order = list(dict.fromkeys((need["dtype"], need["task"]) for need in needs))
    needs.sort(key=lambda need: (order.index((need["dtype"], need["task"])), need["tokens"]))
    return {
        "model": config.name,
        "prompt_tokens": PROMPT_TOKENS,
        "answer_tokens": config.answer_tokens,
        "needs": needs,
    }


def table(needs: Iterable[dict[str, Any]], *, markdown: bool) -> Table:
    """One line per precision, task and picture."""
    made = Table(box=box.MARKDOWN if markdown else box.HEAVY_HEAD)
    for name in ("precision", "task", "height x width", "tokens"):
        made.add_column(name, justify="right" if name == "tokens" else "left")
    for name in ("weights", "sampling", "image tokenizer", "total, GB"):
        made.add_column(name, justify="right")
    for need in needs:
        gigabytes = (f"{need[key] / 1e9:.1f}" for key in ("weights", "activations", "codec", "total"))
        size = f"{need['height']} x {need['width']}"
        made.add_row(need["dtype"], need["task"].replace("_", " "), size, f"{need['tokens']:,}", *gigabytes)
    return made


def _plain(dtype: str, need: Need) -> dict[str, Any]:
    assert need.size is not None  # the released model does not chat
    values = {name: value for name, value in asdict(need).items() if name != "size"}
    return {"dtype": dtype, "height": need.size[0], "width": need.size[1], **values, "total": need.total}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="bytes, as JSON")
    form.add_argument("--markdown", action="store_true", help="the table in markdown")
    return parser


if __name__ == "__main__":
    main()
