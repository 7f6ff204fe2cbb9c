"""Runs a recipe at toy size, to be launched in several processes: processes.py NAME FOLDER TOKENIZER [k=v ...]."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tiny_recipes import cut

from recipes.run import run

if __name__ == "__main__":
    name, folder, tokenizer, *changes = sys.argv[1:]
    torch.set_num_threads(1)
    resume = "--resume" in changes
    run(
        cut(name, Path(folder), Path(tokenizer), *(change for change in changes if change != "--resume")), resume=resume
    )
