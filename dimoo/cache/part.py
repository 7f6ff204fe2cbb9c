"""What is known of a segment between steps, and its share of one of them.

Axes: n = tokens of a segment (context, then canvas, of one branch of one row), k = those of them computed now,
m = wanted positions.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dimoo.cache.segments import Name
from dimoo.core.device import Count
from dimoo.diffusion.sampler import Query
from dimoo.diffusion.turn import Region

NOWHERE = -(2**62)


@dataclass(kw_only=True, eq=False)
class Segment:
    """What is known of one branch of one row."""

    seen: Tensor
    """int64 [n]: the tokens as they were computed."""
    peaks: Tensor
    """float [n]"""
    window: tuple[int, int]
    """What `Part.within` was when all of it was computed last ..."""
    step: int
    """At which it was asked for last."""
    since: int = 0
    """... how many steps ago."""
    looked: set[Region] = field(default_factory=set)
    """Where somebody has looked at all that was masked since all of it was computed."""
    ahead: tuple[Count, ...] = ()
    """What the policy is told at the next step, as the device has it or, once that was read, as numbers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """A segment's share of a step."""

    name: Name
    start: int
    """Of the segment in the stored stream."""
    length: int
    """n"""
    context: int
    """How many of them are context."""
    wanted: Tensor
    """int64 [m], ascending: positions whose logits are asked for."""
    asking: tuple[Query, ...]
    """What wants them, at least one."""
    shift: int
    """From canvas positions to those of the segment."""
    anew: Tensor | None
    """int64 [k]: positions that are computed, None: all."""
    at: int
    """Where they begin among those of all segments."""

    @property
    def computed(self) -> int:
        """k"""
        return self.length if self.anew is None else self.anew.numel()

    @property
    def positions(self) -> Tensor:
        """int64 [k]: what is computed."""
        return torch.arange(self.length, device=self.wanted.device) if self.anew is None else self.anew

    @property
    def step(self) -> int:
        """Of the row."""
        return self.asking[0].step

    @property
    def steps(self) -> int:
        """Of the row, at most."""
        return self.asking[0].steps

    @property
    def written(self) -> int:
        """In the row since the step before, at most."""
        return self.asking[0].written

    @property
    def within(self) -> tuple[int, int]:
        """Between which positions the wanted lie, as the host knows."""
        regions = [query.region for query in self.asking]
        return min(one.first for one in regions) + self.shift, max(one.last for one in regions) + self.shift

    def unseen(self, looked: Set[Region]) -> int:
        """How many of the wanted lie outside of regions where somebody has looked at all that was masked."""
        return sum(query.positions.numel() for query in self.asking if query.region not in looked)

    def rows(self, positions: Tensor) -> Tensor:
        """Where positions int64 [j] that are computed lie among those of all segments, int64 [j]."""
        if self.anew is None:
            return positions + self.at
        # A place out of range, so that a policy that leaves out what it must not fails, and not silently.
        places = torch.full((self.length,), NOWHERE, dtype=torch.int64, device=positions.device)
        places[self.anew] = torch.arange(self.computed, device=positions.device)
        return places[positions] + self.at
