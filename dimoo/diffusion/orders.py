"""Which tokens to commit at each step.

Axes: L = positions of one span of one row, m = candidates, k = committed now. Offsets count within the span.
Ties of confidence never change a count: the lower offset is committed first.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from dimoo.core.device import sent
from dimoo.core.errors import ConfigError
from dimoo.diffusion.confidence import Confidence
from dimoo.diffusion.progress import Progress, places
from dimoo.diffusion.schedules import Schedule, remaining


class Order(Protocol):
    """Decides what to predict and what to commit, a span at a time. No state: all is in the progress.

    An order may have more to say: see `Counted`, `Blockwise`, `Recalling` and `Particular`.
    """

    def validate(self, length: int, steps: int) -> None:
        """Check that a span of `length` positions can be sampled in `steps`.

        Raises:
            ConfigError: it cannot; names values that work.
        """

    def candidates(self, progress: Progress) -> Tensor:
        """Offsets whose logits this step wants, ascending int64 [m]; none if it is to commit nothing."""

    def commit(self, progress: Progress, candidates: Tensor, confidence: Tensor, generator: torch.Generator) -> Tensor:
        """Those of the candidates int64 [m], of confidence [m], to commit now: ascending int64 [k].

        Where the host would have to ask the device how many those are: flags bool [m] of the candidates. The sampler
        then reads the number, once a step for all rows together.
        """


@runtime_checkable
class Counted(Protocol):
    """An order that knows its counts beforehand, and makes up for `progress.remasked`."""

    def left(self, progress: Progress) -> int:
        """How many positions are masked after this step, those that it masks again among them."""


@runtime_checkable
class Blockwise(Protocol):
    """An order that works through the span from left to right, and knows on the host how far it is."""

    def block_at(self, progress: Progress) -> tuple[int, int] | None:
        """Offsets (start, stop) with start < stop: the candidates are all that is masked between them, and what came
        to be masked again before `start`. None: they may be any. Caches rely on it."""


@runtime_checkable
class Recalling(Protocol):
    """An order that looks at `progress.drift`."""

    @property
    def history(self) -> int:
        """Of how many steps."""


@runtime_checkable
class Particular(Protocol):
    """An order that reads a confidence as a number, not only as a ranking."""

    def suits(self, confidence: Confidence) -> None:
        """Check that it can.

        Raises:
            ConfigError: the confidence is known to be on another scale.
        """


@dataclass(frozen=True, kw_only=True)
class ScheduledOrder:
    """What the orders share that commit anywhere, as many as a schedule says.

    With N masked at the start and n now, min(max(1, floor(N m((s + 1) / S))), n - 1) stay masked after step s of S and
    none after the last. So each step commits at least one token, and more steps than tokens just end early.
    """

    schedule: Schedule

    def validate(self, length: int, steps: int) -> None:
        """Any length in at least one step."""
        del length
        check_steps(steps)

    def candidates(self, progress: Progress) -> Tensor:
        """Every masked offset."""
        return progress.open

    def left(self, progress: Progress) -> int:
        """What the schedule leaves masked."""
        return self._kept(progress, progress.left)

    def count(self, progress: Progress, now: int) -> int:
        """How many of `now` masked positions are committed in this step."""
        return now - self._kept(progress, now) + progress.remasked

    def _kept(self, progress: Progress, now: int) -> int:
        if progress.step + 1 >= progress.steps or now == 0:
            return 0
        kept = remaining(self.schedule, len(progress.starts), progress.step, progress.steps)
        return min(max(1, kept), now - 1)


@dataclass(frozen=True, kw_only=True)
class MaskGITOrder(ScheduledOrder):
    """Commits the most confident anywhere: MaskGIT (arXiv 2202.04200), Lumina-DiMOO's images."""

    def commit(self, progress: Progress, candidates: Tensor, confidence: Tensor, generator: torch.Generator) -> Tensor:
        """The schedule's share, most confident first."""
        del generator
        return most(candidates, confidence, self.count(progress, len(candidates)))


@dataclass(frozen=True, kw_only=True)
class RandomOrder(ScheduledOrder):
    """As many as `MaskGITOrder`, but chosen at random: the order that training assumes."""

    def commit(self, progress: Progress, candidates: Tensor, confidence: Tensor, generator: torch.Generator) -> Tensor:
        """The schedule's share, every subset equally likely."""
        del confidence
        count = self.count(progress, len(candidates))
        chosen = torch.randperm(len(candidates), generator=generator, device=generator.device)[:count]
        return candidates[sent(chosen.sort().values, candidates.device)]


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
        _, end = self.block_at(progress)
        committed = len(progress.starts) - progress.left
        # All that was committed lay before the end of an earlier block or of this one.
        count = bisect_left(progress.starts, end) - committed if self._share(progress) else 0
        return places(progress.masked[:end], count)

    def commit(self, progress: Progress, candidates: Tensor, confidence: Tensor, generator: torch.Generator) -> Tensor:
        """The step's share, most confident first; all candidates if there are fewer."""
        del generator
        return most(candidates, confidence, min(self._share(progress), len(candidates)))

    def block_at(self, progress: Progress) -> tuple[int, int]:
        """The current block."""
        per_block = self._steps_per_block(len(progress.masked), progress.steps)
        start = progress.step // per_block * self.block
        return start, start + self.block

    def _share(self, progress: Progress) -> int:
        """How many tokens of the current block this step commits."""
        start, end = self.block_at(progress)
        inside = bisect_left(progress.starts, end) - bisect_left(progress.starts, start)
        per_block = self._steps_per_block(len(progress.masked), progress.steps)
        share, rest = divmod(inside, per_block)
        return share + (progress.step % per_block < rest)

    def _steps_per_block(self, length: int, steps: int) -> int:
        check_steps(steps)
        blocks = max(1, -(-length // self.block))
        each, rest = divmod(steps, blocks)
        if rest:
            good = " or ".join(str(value * blocks) for value in (each, each + 1) if value)
            raise ConfigError(
                f"{steps} steps cannot be divided evenly over {blocks} blocks of {self.block} in {length} "
                f"positions: use {good} steps, or another block"
            )
        return each


def check_steps(steps: int) -> None:
    """Refuse no steps."""
    if steps < 1:
        raise ConfigError(f"steps {steps} must be at least 1")


def most(candidates: Tensor, confidence: Tensor, count: int) -> Tensor:
    """The `count` most confident of the candidates, ascending; the lower offset wins a tie."""
    best = confidence.argsort(descending=True, stable=True)[:count]
    return candidates[best.sort().values]
