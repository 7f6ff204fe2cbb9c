"""A run that is killed without warning, wherever it is, goes on to what it would have been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from same_runs import assert_same_run, renamed
from tiny_recipes import Tiny

from recipes.run import run

HERE = Path(__file__).parent


def killed(folder: Path, image_tokenizer: Path, *, after: int, wait: float) -> None:
    """Start the run, and kill it some seconds after it has reported a step: it may be in the middle of a checkpoint."""
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    command = [sys.executable, str(HERE / "processes.py"), "world_base", str(folder), str(image_tokenizer)]
    process = subprocess.Popen(
        [*command, "run.name=killed", "run.save_every=1"],
        env={**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(f"step {after}/7"):
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    process.stderr.close()


def check(tiny: Tiny, image_tokenizer: Path, *, after: int, wait: float) -> None:
    whole = run(tiny("world_base", "run.name=whole", "run.save_every=1"))
    killed(whole.parent, image_tokenizer, after=after, wait=wait)
    folder = whole.parent / "killed"
    assert not (folder / "export").exists()
    run(tiny("world_base", "run.name=killed", "run.save_every=1"), resume=True)
    renamed(folder / "export", "killed", "whole")
    assert_same_run(whole, folder)


@pytest.mark.parametrize(("after", "wait"), [(2, 0.0), (4, 0.02)])
def test_a_killed_run_goes_on_exactly(tiny: Tiny, image_tokenizer: Path, after: int, wait: float) -> None:
    check(tiny, image_tokenizer, after=after, wait=wait)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_run_killed_anywhere_goes_on_exactly(tiny: Tiny, image_tokenizer: Path, seed: int) -> None:
    random = Random(seed)
    check(tiny, image_tokenizer, after=random.randint(2, 5), wait=random.uniform(0.0, 0.06))
