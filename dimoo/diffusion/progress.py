"""How far one span of one row has come. Axes: L = the span's positions, at offsets 0..L-1, n = steps of history.

What steps through a fixed number of tokens never has to wait for the device: how many are masked is counted along on
the host, and from a count and the flags the offsets follow. Where only the device knows a count, flags say it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from typing_extensions import Self

from dimoo.core.device import Count


@dataclass(frozen=True, kw_only=True, eq=False)
class Standing:
    """Where a span stands, in flags: what a stopping rule looks at, when nobody has counted them yet."""

    step: int
    """0-based step."""

    steps: int
    """How many steps the span is given."""

    initial: Tensor
    """bool [L]: masked at the start; the others are given and never change."""

    masked: Tensor
    """bool [L]: masked now."""

    starts: tuple[int, ...]
    """The offsets of `initial`, ascending, on the host."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Progress(Standing):
    """The state that orders and remasking look at before a step; `of` counts what the sampler counts along."""

    left: int
    """How many are masked now, on the host."""

    remasked: int = 0
    """How many committed tokens are masked again at the end of this step; an order of fixed counts commits as many
    more."""

    drift: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    """float [n, L]: how much each position's prediction changed, KL(p_t || p_t-1) in nats, this step's first; see
    `dimoo.diffusion.history`. Only for `commit`, and only of as many steps as the order's `history` asks for."""

    @classmethod
    def of(
        cls,
        *,
        step: int,
        steps: int,
        initial: Tensor,
        masked: Tensor,
        remasked: int = 0,
        drift: Tensor | None = None,
    ) -> Self:
        """With the counts that the flags say, which are read from the device."""
        return cls(
            step=step,
            steps=steps,
            initial=initial,
            masked=masked,
            starts=tuple(initial.nonzero()[:, 0].tolist()),
            left=int(masked.sum()),
            remasked=remasked,
            drift=torch.zeros(0, 0) if drift is None else drift,
        )

    @property
    def open(self) -> Tensor:
        """The offsets that are masked now, ascending int64 [left]."""
        return places(self.masked, self.left)


def places(flags: Tensor, count: int) -> Tensor:
    """Where flags bool [L] hold, ascending int64 [count], given that `count` of them do.

    As `nonzero`, but nothing is read from the device to find out how many. With more than hold, others follow.
    """
    return flags.byte().argsort(descending=True, stable=True)[:count]


def flagged(chosen: Tensor, candidates: Tensor, length: int) -> tuple[Tensor, Count]:
    """A choice among candidates int64 [m] of a span of `length`: flags bool [m] of them, and their number.

    It is given as offsets int64 [k] or as such flags; of flags the device alone knows how many hold.
    """
    if chosen.dtype == torch.bool:
        return chosen, chosen.sum()
    flags = torch.zeros(length, dtype=torch.bool, device=chosen.device).index_fill(0, chosen, True)
    return flags[candidates], chosen.numel()
