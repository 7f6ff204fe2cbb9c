"""When a row is finished before its last step. Axis: L = positions of one span of one row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from dimoo.diffusion.progress import Progress


class Stopping(Protocol):
    """Decides after a step whether the rest is not worth computing."""

    def __call__(self, ids: Tensor, progress: Progress) -> bool:
        """Whether to stop, given the span's ids int64 [L] and its progress after the step's commits."""


@dataclass(frozen=True, kw_only=True)
class NoStop:
    """Never before the end."""

    def __call__(self, ids: Tensor, progress: Progress) -> bool:
        """False."""
        del ids, progress
        return False


@dataclass(frozen=True, kw_only=True)
class StopAtToken:
    """Once `token` was committed and nothing before it is still masked.

    Given tokens do not count: the prompt may contain the token, and a text canvas ends with a given one.
    """

    token: int

    def __call__(self, ids: Tensor, progress: Progress) -> bool:
        """Whether the token stands at the end of a finished beginning."""
        no_mask_up_to_here = progress.masked.cumsum(dim=-1) == 0
        return bool(((ids == self.token) & progress.initial & no_mask_up_to_here).any())


@dataclass(frozen=True, kw_only=True)
class AnyStop:
    """As soon as one of `rules` says so; without rules, never."""

    rules: tuple[Stopping, ...]

    def __call__(self, ids: Tensor, progress: Progress) -> bool:
        """Whether any rule stops."""
        return any(rule(ids, progress) for rule in self.rules)
