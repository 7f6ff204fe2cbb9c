"""Ending early: an answer that no longer changes is committed as a whole. Axes: m = candidates, n = steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dimoo.core.errors import ConfigError
from dimoo.diffusion.confidence import Confidence
from dimoo.diffusion.orders import Blockwise, Order, Particular, Recalling
from dimoo.diffusion.parallel import check_settled
from dimoo.diffusion.progress import Progress, flagged
from dimoo.diffusion.spread import GridOrder


@dataclass(frozen=True, kw_only=True)
class SettledOrder:
    """Commits all candidates at once when all have settled; until then it does as its inner order.

    Settled: KL(p_t || p_t-1) < `max_drift` nats in each of the last `steps` steps, and the confidence, on whatever
    scale the plan's is, at least `least_confidence`, if that is given. In blocks the candidates are a block, so that
    each ends for itself. The inner order is asked at every step, and so draws, if it does, also where all is committed.

    Raises:
        ConfigError: a value is out of range, or the inner order predicts no position twice.
    """

    order: Order
    max_drift: float = 0.01
    steps: int = 2
    least_confidence: float | None = None

    def __post_init__(self) -> None:
        check_settled(self.max_drift, self.steps)
        if isinstance(self.order, GridOrder):
            raise ConfigError(
                f"{type(self.order).__name__} predicts each cell once, so none is seen to settle: use it without an"
                " early stop"
            )

    @property
    def history(self) -> int:
        """Enough for this and for the inner order."""
        return max(self.steps, self.order.history if isinstance(self.order, Recalling) else 0)

    def validate(self, length: int, steps: int) -> None:
        """What the inner order asks for."""
        self.order.validate(length, steps)

    def suits(self, confidence: Confidence) -> None:
        """What the inner order asks for."""
        if isinstance(self.order, Particular):
            self.order.suits(confidence)

    def block_at(self, progress: Progress) -> tuple[int, int] | None:
        """That of the inner order, if it has one."""
        return self.order.block_at(progress) if isinstance(self.order, Blockwise) else None

    def candidates(self, progress: Progress) -> Tensor:
        """Those of the inner order."""
        return self.order.candidates(progress)

    def commit(self, progress: Progress, candidates: Tensor, confidence: Tensor, generator: torch.Generator) -> Tensor:
        """Flags of all, or of what the inner order says, which is asked either way."""
        settled = (progress.drift[: self.steps, candidates] < self.max_drift).all()
        if self.least_confidence is not None:
            settled &= (confidence >= self.least_confidence).all()
        inner = self.order.commit(progress, candidates, confidence, generator)
        flags, _ = flagged(inner, candidates, progress.masked.numel())
        return flags | settled
