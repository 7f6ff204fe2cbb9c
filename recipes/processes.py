"""Which process of a run this is, before anything is imported that takes time. Free of torch."""

from __future__ import annotations

import os
import sys

from dimoo.core.errors import ConfigError, TrainingError

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""Environment variables that torchrun, Lightning and SLURM say it in."""


MACHINE_RANKS = {"TORCHELASTIC_RUN_ID": "LOCAL_RANK", "SLURM_PROCID": "SLURM_LOCALID"}
"""Where the rank on a machine is said, by what is there if torchrun or SLURM has started all processes at once."""


class FollowsError(TrainingError):
    """A process ends because another one of its run failed, which says why."""


def speaks(error: Exception) -> bool:
    """Whether this process is to show an error, so that each is shown once.

    Before the processes have met, those that were started at once all fail alike: one on each machine shows it.
    Lightning starts its other processes after the first has come through the same, so what they raise is their own.
    """
    torch = sys.modules.get("torch")
    met = torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized()
    ranks = [os.environ.get(name, "0") for launcher, name in MACHINE_RANKS.items() if launcher in os.environ]
    return not isinstance(error, FollowsError) and (met or not ranks or int(ranks[0]) == 0)


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
