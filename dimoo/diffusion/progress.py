"""How far one span of one row has come. Axis: L = the span's positions, at offsets 0..L-1."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Progress:
    """The state that orders and stopping rules look at."""

    step: int
    """0-based step."""

    steps: int
    """How many steps the span is given."""

    initial: Tensor
    """bool [L]: masked at the start; the others are given and never change."""

    masked: Tensor
    """bool [L]: masked now."""
