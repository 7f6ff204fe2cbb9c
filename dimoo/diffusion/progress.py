"""How far one span of one row has come. Axes: L = the span's positions, at offsets 0..L-1, n = steps of history."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Progress:
    """The state that orders, remasking and stopping rules look at."""

    step: int
    """0-based step."""

    steps: int
    """How many steps the span is given."""

    initial: Tensor
    """bool [L]: masked at the start; the others are given and never change."""

    masked: Tensor
    """bool [L]: masked now."""

    remasked: int = 0
    """How many committed tokens are masked again at the end of this step; an order of fixed counts commits as many
    more."""

    drift: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    """float [n, L]: how much each position's prediction changed, KL(p_t || p_t-1) in nats, this step's first; see
    `dimoo.diffusion.history`. Only for `commit`, and only of as many steps as the order's `history` asks for."""
