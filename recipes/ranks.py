"""The processes that train one model together, and what they tell each other besides gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

AnyT = TypeVar("AnyT")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """A process among those of a run; by default it is the only one."""

    rank: int = 0
    world: int = 1
    """How many there are."""

    def sums(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Each value summed over the processes, in float64; all must ask for as many at the same time."""
        if self.world == 1:
            return list(values)
        kind = torch.float32 if device.type == "mps" else torch.float64
        gathered = torch.tensor(values, dtype=kind, device=device)
        distributed.all_reduce(gathered)
        found: list[float] = gathered.tolist()
        return found

    def gathered(self, value: AnyT) -> list[AnyT]:
        """What each process says; all must at the same time."""
        if self.world == 1:
            return [value]
        found: list[AnyT | None] = [None] * self.world
        distributed.all_gather_object(found, value)
        return [one for one in found if one is not None]


def whole(value: Tensor) -> float:
    """A number that may be sharded, as the norm of sharded gradients is."""
    full = getattr(value, "full_tensor", None)
    return float(value if full is None else full())
