"""Which process of a run this is, before anything is imported that takes time. Free of torch."""

from __future__ import annotations

import os

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""Environment variables that torchrun, Lightning and SLURM say it in."""


def first_process() -> bool:
    """Whether it is the one that writes what a run leaves."""
    ranks = [os.environ[name] for name in RANKS if name in os.environ]
    return not ranks or int(ranks[0]) == 0
