"""What a cache policy is asked, and what it may look at.

A policy answers one question, a branch of a request at a time: which positions are computed anew at this step? The
others attend with the keys and values that were stored when they were computed last.

Axes: n = tokens of the segment (one branch of one request: its context, then its canvas), m = wanted positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from dimoo.core.device import Count, read


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
    window: Tensor
    """int64 [2]: the first and the last of the wanted positions when all of it was computed last: of a text its
    block's."""
    changed: Tensor
    """bool [n]: the token is another one than when it was computed: what was committed since."""
    written: int
    """How many of `changed` hold at most, as the host knows; so many exactly if no token was masked again."""
    peaks: Tensor
    """float [n]: the largest logit of each position when it was computed last, -inf where nobody looked."""
    surveyed: bool
    """Whether the host knows that somebody looked at all that are wanted."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Asking:
    """What is computed anew depends on numbers that the device alone knows."""

    counts: tuple[Count, ...]
    then: Callable[[Sequence[int]], Tensor | None]
    """From these numbers to what `Policy.anew` gives."""


Answer: TypeAlias = Tensor | Asking | None


class Policy(Protocol):
    """Which positions of a segment are computed anew. A segment that is new is computed whole, without asking."""

    @property
    def keeps_logits(self) -> bool:
        """Whether wanted positions may be left out, so that their logits must be stored."""

    def surveys(self, step: int, steps: int) -> bool:
        """Whether after this step the peaks of all positions are needed, and not of the wanted ones alone."""

    def anew(self, look: Look) -> Answer:
        """Distinct positions int64 [k], k > 0, to compute; None: all.

        All that are wanted must be among them; where logits are kept, those whose peak is -inf, as none are stored.
        Where that takes numbers from the device, `Asking` for them lets those of all segments be read at once.
        """


def answered(answers: Sequence[Answer]) -> list[Tensor | None]:
    """What policies say once the numbers that they ask for are known, all of which are read at once."""
    told = read([answer.counts if isinstance(answer, Asking) else () for answer in answers])
    return [
        answer.then(numbers) if isinstance(answer, Asking) else answer
        for answer, numbers in zip(answers, told, strict=True)
    ]


def edges(wanted: Tensor) -> Tensor:
    """The first and the last of positions int64 [m]: int64 [2], without reading them."""
    return torch.stack([wanted[0], wanted[-1]])
