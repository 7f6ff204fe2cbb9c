"""A recipe in two processes on the CPU, and whether it left what one process leaves, to rounding."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny_recipes import checkpoint
from torch.testing import assert_close

from recipes.watching.logs import read_rows

HERE = Path(__file__).parent
PLAIN = [sys.executable]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def two(
    launcher: list[str],
    folder: Path,
    image_tokenizer: Path,
    *changes: str,
    steps: int = 7,
    recipe: str = "world_base",
) -> None:
    """Run a recipe in two processes on the CPU, `steps` of 7 steps."""
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    done = subprocess.run(
        [*launcher, str(HERE / "processes.py"), recipe, str(folder), str(image_tokenizer), *changes],
        env={**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode == 0) == (steps == 7), done.stderr[-3000:]
    assert done.stderr.count(f"step {steps}/7") == 1, "only the first process reports"


def rows(run: Path) -> list[dict[str, str]]:
    """Of its steps; what is measured on held-out examples is logged in rows of its own."""
    with (run / "csv/metrics.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["loss"]]


def bounds(run: Path) -> list[dict[str, float]]:
    """What was measured on held-out examples."""
    return [row for row in read_rows(run / "csv/metrics.csv") if "loss" not in row]


def assert_same(one: Path, other: Path) -> None:
    """Their logs and what they export, to rounding."""
    left, right = rows(one), rows(other)
    assert [row["step"] for row in left] == [row["step"] for row in right] == [str(step) for step in range(1, 8)]
    for first, second in zip(left, right, strict=True):
        for name in ("loss", "grad_norm", "tokens", "nll/image", "nll/text"):
            assert bool(first[name]) == bool(second[name])
            if first[name]:
                assert float(first[name]) == pytest.approx(float(second[name]), rel=1e-6)
    measured, again = bounds(one), bounds(other)
    assert [row.keys() for row in measured] == [row.keys() for row in again]
    for here, there in zip(measured, again, strict=True):
        assert here == pytest.approx(there, rel=1e-5)
    weights, others = (load_file(folder / "export/model.safetensors") for folder in (one, other))
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        assert_close(weight, others[name], rtol=2**-7, atol=1e-6)  # they are exported in bfloat16
    state, further = (checkpoint(folder) for folder in (one, other))
    for name, weight in state["state_dict"].items():
        assert_close(weight, further["state_dict"][name], rtol=0, atol=2e-6)
