"""Runs a recipe at toy size, to be launched in several processes: processes.py NAME FOLDER TOKENIZER [k=v ...]

[--resume] [--stop-after STEPS]. With --fail STEP:RANKS:KIND the command itself is called, and these ranks
fail, or are asked to end."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from tiny_recipes import COMMON, DIFFUSION, before_step, cut

from dimoo.core.errors import DataError
from recipes.learning.diffusion import DiffusionModule
from recipes.run import main, run

if __name__ == "__main__":
    name, folder, tokenizer, *changes = sys.argv[1:]
    torch.set_num_threads(1)
    resume = "--resume" in changes
    if "--fail" in changes:
        place = changes.index("--fail")
        step, ranks, kind = changes[place + 1].split(":")
        del changes[place : place + 2]

        def fail(module: DiffusionModule) -> None:
            if str(torch.distributed.get_rank()) in ranks:
                if kind == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                if kind == "asked":
                    signal.raise_signal(signal.SIGTERM)
                    return
                raise {"data": DataError, "bug": ZeroDivisionError}[kind](f"row 7 is bad, for {kind}")

        before_step(pytest.MonkeyPatch(), DiffusionModule, int(step), fail)
        settings = (*COMMON, *DIFFUSION, f"image_tokenizer={tokenizer}", f"run.folder={folder}", *changes)
        sys.exit(main([name, *(part for setting in settings for part in ("--set", setting))]))
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
