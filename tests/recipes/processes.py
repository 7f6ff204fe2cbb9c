"""Runs a recipe at toy size, to be launched in several processes: processes.py NAME FOLDER TOKENIZER [k=v ...]

[--resume] [--stop-after STEPS]."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from tiny_recipes import before_step, cut

from recipes.learning.diffusion import DiffusionModule
from recipes.run import run

if __name__ == "__main__":
    name, folder, tokenizer, *changes = sys.argv[1:]
    torch.set_num_threads(1)
    resume = "--resume" in changes
    if "--stop-after" in changes:
        place = changes.index("--stop-after")
        after = int(changes[place + 1])
        del changes[place : place + 2]

        def stop(module: DiffusionModule) -> None:
            torch.distributed.barrier()  # else the launcher ends the other process within its step
            raise ConnectionError("out")

        before_step(pytest.MonkeyPatch(), DiffusionModule, after, stop)
    run(
        cut(name, Path(folder), Path(tokenizer), *(change for change in changes if change != "--resume")), resume=resume
    )
