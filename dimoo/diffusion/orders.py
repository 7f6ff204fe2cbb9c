"""Which tokens to commit at each step.

Axes: L = positions of one span of one row, m = candidates, k = committed now. Offsets count within the span.
Ties of confidence never change a count: the lower offset is committed first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dimoo.core.errors import ConfigError
from dimoo.diffusion.progress import Progress
from dimoo.diffusion.schedules import Schedule, remaining


class Order(Protocol):
    """Decides what to predict and what to commit, a span at a time. No state: all is in the progress."""

    def validate(self, length: int, steps: int) -> None:
        """Check that a span of `length` positions can be sampled in `steps`.

        Raises:
            ConfigError: it cannot; names values that work.
        """

    def candidates(self, progress: Progress) -> Tensor:
        """Offsets whose logits this step wants, ascending int64 [m]; none if it is to commit nothing."""

    def commit(self, progress: Progress, candidates: Tensor, confidence: Tensor, generator: torch.Generator) -> Tensor:
        """Those of the candidates int64 [m], of confidence [m], to commit now: ascending int64 [k]."""


@dataclass(frozen=True, kw_only=True)
class _ScheduledOrder:
    """What the orders share that commit anywhere, as many as a schedule says."""

    schedule: Schedule

    def validate(self, length: int, steps: int) -> None:
        """Any length in at least one step."""
        del length
        _check_steps(steps)

    def candidates(self, progress: Progress) -> Tensor:
        """Every masked offset."""
        return _offsets(progress.masked)


@dataclass(frozen=True, kw_only=True)
class MaskGITOrder(_ScheduledOrder):
    """Commits the most confident anywhere, as many as the schedule says: MaskGIT, Lumina-DiMOO's images.

    With N masked at the start and n now, min(max(1, floor(N m((s + 1) / S))), n - 1) stay masked after step s
    of S and none after the last (arXiv 2202.04200). So each step commits at least one token, and more steps
    than tokens just end early.
    """

    def commit(self, progress: Progress, candidates: Tensor, confidence: Tensor, generator: torch.Generator) -> Tensor:
        """The schedule's share, most confident first."""
        del generator
        return _most(candidates, confidence, _scheduled(self.schedule, progress, len(candidates)))


@dataclass(frozen=True, kw_only=True)
class RandomOrder(_ScheduledOrder):
    """As many as `MaskGITOrder`, but chosen at random: the order that training assumes."""

    def commit(self, progress: Progress, candidates: Tensor, confidence: Tensor, generator: torch.Generator) -> Tensor:
        """The schedule's share, every subset equally likely."""
        del confidence
        count = _scheduled(self.schedule, progress, len(candidates))
        chosen = torch.randperm(len(candidates), generator=generator, device=generator.device)[:count]
        return candidates[chosen.to(candidates.device).sort().values]


@dataclass(frozen=True, kw_only=True)
class BlockOrder:
    """Blocks left to right, equal shares of the most confident within one (LLaDA, arXiv 2502.09992).

    The steps are divided evenly over the blocks of `block` positions (the last may be shorter). A block's
    initially masked positions are divided evenly over its steps, the remainder over the first ones; a step of
    no share wants no logits. Candidates are all masked offsets before the block's end: a position whose
    committed id was itself the mask id is still masked and competes again, also in later blocks. Where that
    never happens, no mask is left at the end.

    Raises:
        ConfigError: the block is empty.
    """

    block: int

    def __post_init__(self) -> None:
        if self.block < 1:
            raise ConfigError(f"block {self.block} must be at least 1 position")

    def validate(self, length: int, steps: int) -> None:
        """Steps must be a multiple of the number of blocks."""
        self._steps_per_block(length, steps)

    def candidates(self, progress: Progress) -> Tensor:
        """The masked offsets before the block's end."""
        end, share = self._window(progress)
        return _offsets(progress.masked[:end] if share else progress.masked[:0])

    def commit(self, progress: Progress, candidates: Tensor, confidence: Tensor, generator: torch.Generator) -> Tensor:
        """The step's share, most confident first; all candidates if there are fewer."""
        del generator
        _, share = self._window(progress)
        return _most(candidates, confidence, min(share, len(candidates)))

    def _window(self, progress: Progress) -> tuple[int, int]:
        """The current block's end and this step's share of its tokens."""
        per_block = self._steps_per_block(len(progress.masked), progress.steps)
        index, step = divmod(progress.step, per_block)
        end = (index + 1) * self.block
        share, rest = divmod(int(progress.initial[index * self.block : end].sum()), per_block)
        return end, share + (step < rest)

    def _steps_per_block(self, length: int, steps: int) -> int:
        _check_steps(steps)
        blocks = max(1, -(-length // self.block))
        each, rest = divmod(steps, blocks)
        if rest:
            good = " or ".join(str(value * blocks) for value in (each, each + 1) if value)
            raise ConfigError(
                f"{steps} steps cannot be divided evenly over {blocks} blocks of {self.block} in {length} "
                f"positions: use {good} steps, or another block"
            )
        return each


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ConfigError(f"steps {steps} must be at least 1")


def _offsets(masked: Tensor) -> Tensor:
    return masked.nonzero()[:, 0]


def _scheduled(schedule: Schedule, progress: Progress, now: int) -> int:
    """How many of `now` masked tokens the schedule commits in this step."""
    if progress.step + 1 >= progress.steps or now == 0:
        return now
    kept = remaining(schedule, int(progress.initial.sum()), progress.step, progress.steps)
    return now - min(max(1, kept), now - 1)


def _most(candidates: Tensor, confidence: Tensor, count: int) -> Tensor:
    best = confidence.argsort(descending=True, stable=True)[:count]
    return candidates[best.sort().values]
