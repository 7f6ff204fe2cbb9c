"""What is known of a segment between steps, and its share of one of them.

Axes: n = tokens of a segment (context, then canvas, of one branch of one row), k = those of them computed now,
m = wanted positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dimoo.cache.segments import Bounds, Name
from dimoo.core.device import Count
from dimoo.diffusion.sampler import Query

NOWHERE = -(2**62)


@dataclass(kw_only=True, eq=False)
class Segment:
    """What is known of one branch of one row."""

    seen: Tensor
    """int64 [n]: the tokens as they were computed."""
    peaks: Tensor
    """float [n]"""
    window: Bounds
    """What `Part.within` was when all of it was computed last ..."""
    step: int
    """At which it was asked for last."""
    since: int = 0
    """... how many steps ago."""
    looked: frozenset[Bounds] = frozenset()
    """Bounds of queries whose positions have all been looked at since all of it was computed ..."""
    again: int = 0
    """... and how many were masked again that nobody has looked at since, at most."""
    ahead: tuple[Count, ...] = ()
    """What the policy is told at the next step."""

    def look(self, part: Part) -> None:
        """Note that all that a step wants has been looked at."""
        self.looked |= {query.within for query in part.asking if query.complete}
        self.again = 0 if part.wanted.numel() == part.left else self.again + part.again


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
    within: Bounds
    """Between which they lie, as the host knows."""
    asking: tuple[Query, ...]
    """What wants them."""
    step: int
    """Of the row's plan ..."""
    steps: int
    """... or, of the plans of several spans, the most."""
    left: int
    """How many positions of the row are masked, ..."""
    written: int
    """... how many were written or masked again since the step before ..."""
    again: int
    """... and how many of those the latter."""
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

    def unseen(self, segment: Segment) -> int:
        """How many of the wanted nobody looked at since all of the segment was computed, at most."""
        beyond = sum(query.positions.numel() for query in self.asking if query.within not in segment.looked)
        return min(self.wanted.numel(), beyond + segment.again + self.again)

    def rows(self, positions: Tensor) -> Tensor:
        """Where positions int64 [j] that are computed lie among those of all segments, int64 [j]."""
        if self.anew is None:
            return positions + self.at
        # A place out of range, so that a policy that leaves out what it must not fails, and not silently.
        places = torch.full((self.length,), NOWHERE, dtype=torch.int64, device=positions.device)
        places[self.anew] = torch.arange(self.computed, device=positions.device)
        return places[positions] + self.at
