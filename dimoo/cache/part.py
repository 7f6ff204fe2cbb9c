"""What is known of a segment between steps, and its share of one of them.

Axes: n = tokens of a segment (context, then canvas, of one branch of one row), k = those of them computed now,
m = wanted positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dimoo.cache.segments import Name

NOWHERE = -(2**62)


@dataclass(kw_only=True, eq=False)
class Segment:
    """What is known of one branch of one row."""

    seen: Tensor
    """int64 [n]: the tokens as they were computed."""
    peaks: Tensor
    """float [n]"""
    window: Tensor
    """int64 [2]: the edges of what was wanted when all of it was computed last ..."""
    masked: int | None
    """... how many positions were masked then, None if some of them were not wanted ..."""
    step: int
    """At which it was asked for last."""
    since: int = 0
    """... how many steps ago ..."""
    written: int = 0
    """... and how many positions were written in them."""


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
    step: int
    """Of the row's plan ..."""
    steps: int
    """... or, of the plans of several spans, the most."""
    left: int
    """How many positions of the row are masked ..."""
    written: int
    """... and how many were written since the step before."""
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

    def rows(self, positions: Tensor) -> Tensor:
        """Where positions int64 [j] that are computed lie among those of all segments, int64 [j]."""
        if self.anew is None:
            return positions + self.at
        # A place out of range, so that a policy that leaves out what it must not fails, and not silently.
        places = torch.full((self.length,), NOWHERE, dtype=torch.int64, device=positions.device)
        places[self.anew] = torch.arange(self.computed, device=positions.device)
        return places[positions] + self.at
