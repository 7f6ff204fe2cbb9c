"""What a cache policy is asked, and what it may look at.

A policy answers one question, a branch of a request at a time: which positions are computed anew at this step? The
others attend with the keys and values that were stored when they were computed last.

Axes: n = tokens of the segment (one branch of one request: its context, then its canvas), m = wanted positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from dimoo.core.device import Count


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """A segment before a step. Positions count from 0 at its first context token."""

    step: int
    """0-based, of the plan that is sampled ..."""
    steps: int
    """... in so many steps."""
    since: int
    """Steps since all of it was computed, at least 1."""
    context: int
    """How many tokens are the context: prompt and given pictures. The canvas follows."""
    wanted: Tensor
    """int64 [m]: the positions whose logits this step needs, ascending."""
    within: tuple[int, int]
    """The first and the last position between which those lie, as the host knows: of a text its block's, of a picture
    its own ..."""
    window: tuple[int, int]
    """... and the same when all of it was computed last."""
    changed: Tensor
    """bool [n]: the token is another one than when it was computed: what was committed since."""
    written: int
    """How many positions of the row were written or masked again since the step before, at most: so many of `changed`
    hold, if what had changed before was computed then."""
    peaks: Tensor
    """float [n]: the largest logit of each position when it was computed last, -inf where nobody looked."""
    unseen: int
    """How many of the wanted that have not changed nobody looked at, at most: those of a block that is new."""
    told: tuple[int, ...]
    """What a `Foreseeing` policy asked for ahead; of another one nothing."""


class Policy(Protocol):
    """Which positions of a segment are computed anew. A segment that is new is computed whole, without asking."""

    @property
    def keeps_logits(self) -> bool:
        """Whether wanted positions may be left out, so that their logits must be stored."""

    def surveys(self, step: int, steps: int) -> bool:
        """Whether after this step the peaks of all positions are needed, and not of the wanted ones alone."""

    def anew(self, look: Look) -> Tensor | None:
        """Distinct positions int64 [k], k > 0, to compute; None: all.

        All that are wanted must be among them; where logits are kept, those whose peak is -inf, as none are stored.
        """


@runtime_checkable
class Foreseeing(Protocol):
    """A policy whose numbers the device alone knows: they are read a step ahead, with those of all rows at once."""

    def ahead(self, step: int, steps: int, peaks: Tensor) -> tuple[Count, ...]:
        """After a step, what `Look.told` is to say at the next one; the peaks float [n] are those of then."""
