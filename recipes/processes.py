"""Which process of a run this is, before anything is imported that takes time. Free of torch."""

from __future__ import annotations

import os

from dimoo.core.errors import ConfigError

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""Environment variables that torchrun, Lightning and SLURM say it in."""


def require_all(processes: int) -> None:
    """See that a launcher has started as many processes as a run has.

    Raises:
        ConfigError: torchrun, say, has started another number: each would train alone.
    """
    started = int(os.environ.get("WORLD_SIZE", processes))
    if started != processes:
        raise ConfigError(
            f"the launcher has started {started} processes, but run.devices x run.nodes is {processes}; set"
            " run.devices to those of a machine and run.nodes to the machines"
        )


def first_process() -> bool:
    """Whether it is the one that writes what a run leaves."""
    rank = next((os.environ[name] for name in RANKS if name in os.environ), "0")
    # A rank on its machine alone, as Lightning's launcher says it, counts from 0 on each.
    machine = "0" if "RANK" in os.environ else os.environ.get("NODE_RANK", "0")
    return int(rank) == int(machine) == 0
