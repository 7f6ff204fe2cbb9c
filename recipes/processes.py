"""Which process of a run this is, before anything is imported that takes time. Free of torch."""

from __future__ import annotations

import os

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""Environment variables that torchrun, Lightning and SLURM say it in."""


def first_process() -> bool:
    """Whether it is the one that writes what a run leaves."""
    rank = next((os.environ[name] for name in RANKS if name in os.environ), "0")
    # A rank on its machine alone, as Lightning's launcher says it, counts from 0 on each.
    machine = "0" if "RANK" in os.environ else os.environ.get("NODE_RANK", "0")
    return int(rank) == int(machine) == 0
