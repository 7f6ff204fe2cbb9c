"""Orders that commit as many as are sure enough: parallel decoding.

Axes: L = positions of the span, m = candidates, n = steps of history.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dimoo.core.errors import ConfigError
from dimoo.diffusion.confidence import Confidence, GumbelConfidence, Margin, NegativeEntropy, Probability
from dimoo.diffusion.orders import check_steps
from dimoo.diffusion.progress import Progress, places

KINDS: Mapping[type, str] = {
    Probability: "probability",
    Margin: "margin",
    NegativeEntropy: "negative_entropy",
}
"""What settings call the confidences that rules read."""


class Rule(Protocol):
    """Which of the candidates are sure enough to be committed together."""

    @property
    def reads(self) -> tuple[type, ...]:
        """The library's confidences that it can read; what it makes of others is not known."""

    @property
    def history(self) -> int:
        """Of how many steps it looks at `progress.drift`."""

    def ready(self, progress: Progress, candidates: Tensor, confidence: Tensor) -> Tensor:
        """Candidates int64 [m] of confidence [m] -> bool [m]; none may be ready."""


@dataclass(frozen=True, kw_only=True)
class AdaptiveOrder:
    """Commits what its rule says is ready, in the first block that has a mask left.

    The plan's steps are an upper bound. With M masked in S steps left, m of them in the block and B blocks with masks
    behind it, a step commits at least max(ceil(M / S), ceil(m / (S - B))) of the block, or all of it: so no mask is
    left after the last step. What is missing to that is taken by confidence.

    Raises:
        ConfigError: the block is empty.
    """

    rule: Rule
    block: int | None = None
    """Positions per block, left to right; None: the whole span is one."""

    def __post_init__(self) -> None:
        if self.block is not None and self.block < 1:
            raise ConfigError(f"block {self.block} must be at least 1 position, or None for one block")

    @property
    def history(self) -> int:
        """That of the rule."""
        return self.rule.history

    def validate(self, length: int, steps: int) -> None:
        """There must be a step for each block."""
        check_steps(steps)
        blocks = 1 if self.block is None else -(-length // self.block)
        if steps < blocks:
            raise ConfigError(
                f"{steps} steps are too few for the {blocks} blocks of {self.block} in {length} positions: use at least"
                f" {blocks} steps, or larger blocks"
            )

    def suits(self, confidence: Confidence) -> None:
        """The rule must be able to read it."""
        known = (Probability, Margin, NegativeEntropy, GumbelConfidence)
        if isinstance(confidence, known) and not isinstance(confidence, self.rule.reads):
            names = [KINDS[kind] for kind in self.rule.reads]
            raise ConfigError(
                f"{self.rule} cannot read the confidence {confidence}; use"
                f" {' or '.join(kind.__name__ for kind in self.rule.reads)} (confidence.kind={' or '.join(names)})"
            )

    def candidates(self, progress: Progress) -> Tensor:
        """The masked offsets of the block."""
        _, end = self.block_at(progress)
        committed = len(progress.starts) - progress.left
        return places(progress.masked[:end], bisect_left(progress.starts, end) - committed)

    def commit(self, progress: Progress, candidates: Tensor, confidence: Tensor, generator: torch.Generator) -> Tensor:
        """Flags of those that are ready, and by confidence of what is missing to the least count."""
        del generator
        ready = self.rule.ready(progress, candidates, confidence)
        ranking = confidence.argsort(descending=True, stable=True)
        ranking = ranking[places(ready[ranking], len(ranking))]
        count = ready.sum().clamp(min=self._least(progress, candidates.numel()))
        return _unranked(torch.arange(len(ranking), device=ready.device) < count, ranking)

    def _least(self, progress: Progress, count: int) -> int:
        left, (_, end) = progress.steps - progress.step, self.block_at(progress)
        behind = len({start // self.block for start in progress.starts if start >= end}) if self.block else 0
        return min(count, max(math.ceil(progress.left / left), math.ceil(count / max(1, left - behind))))

    def block_at(self, progress: Progress) -> tuple[int, int]:
        """The first block with a mask left."""
        if self.block is None or progress.left == 0:
            return 0, progress.masked.numel()
        # Blocks are finished left to right, so that as many as were committed lie before the first that is masked.
        start = progress.starts[len(progress.starts) - progress.left] // self.block * self.block
        return start, start + self.block


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """All whose confidence is at least tau, `threshold` (Fast-dLLM, arXiv 2505.22618).

    Raises:
        ConfigError: the threshold is not in [0, 1].
    """

    threshold: float = 0.9

    def __post_init__(self) -> None:
        _check_share("threshold", self.threshold)

    @property
    def reads(self) -> tuple[type, ...]:
        """Numbers in [0, 1]."""
        return Probability, Margin

    @property
    def history(self) -> int:
        """None."""
        return 0

    def ready(self, progress: Progress, candidates: Tensor, confidence: Tensor) -> Tensor:
        """confidence >= tau."""
        del progress, candidates
        return confidence >= self.threshold


@dataclass(frozen=True, kw_only=True)
class Factor:
    """The n surest, n the largest with (n + 1) (1 - c_(n)) < f, c_(n) the n-th highest confidence, f = `factor`.

    The more are committed together, the surer the least sure of them must be (Fast-dLLM, arXiv 2505.22618).

    Raises:
        ConfigError: the factor is not positive.
    """

    factor: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.factor < math.inf:
            raise ConfigError(f"factor {self.factor} must be a positive number; 1 is usual")

    @property
    def reads(self) -> tuple[type, ...]:
        """Numbers in [0, 1]."""
        return Probability, Margin

    @property
    def history(self) -> int:
        """None."""
        return 0

    def ready(self, progress: Progress, candidates: Tensor, confidence: Tensor) -> Tensor:
        """The n surest."""
        del progress, candidates
        doubt, ranking = (1.0 - confidence.double()).sort(stable=True)
        numbers = torch.arange(2, 2 + doubt.numel(), device=doubt.device)
        # The product never falls as n grows, so what satisfies the bound is a beginning of the ranking.
        return _unranked(numbers * doubt < self.factor, ranking)


@dataclass(frozen=True, kw_only=True)
class EntropyBounded:
    """The k of the lowest entropies H, k the largest with sum_k H - max_k H <= gamma, `bound` in nats.

    The left side bounds what the tokens of the set tell of each other, which drawing them independently ignores
    (EB-Sampler, arXiv 2505.24857). The confidence is read as -H.

    Raises:
        ConfigError: the bound is negative or not finite.
    """

    bound: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 <= self.bound < math.inf:
            raise ConfigError(f"entropy bound {self.bound} must be at least 0 nats; 0.1 is usual")

    @property
    def reads(self) -> tuple[type, ...]:
        """Negative entropies."""
        return (NegativeEntropy,)

    @property
    def history(self) -> int:
        """None."""
        return 0

    def ready(self, progress: Progress, candidates: Tensor, confidence: Tensor) -> Tensor:
        """The k surest; the first of them is always among them."""
        del progress, candidates
        entropy, ranking = (-confidence.double()).sort(stable=True)
        # In rising order the last is the largest, so the left side is the sum of those before it.
        others = torch.cat([entropy.new_zeros(1), entropy[:-1].cumsum(dim=0)])[: entropy.numel()]
        return _unranked(others <= self.bound, ranking)


@dataclass(frozen=True, kw_only=True)
class KLASS:
    """All whose confidence is above tau and whose prediction has settled (KLASS, arXiv 2511.05664).

    Settled: KL(p_t || p_t-1) < `max_drift` in each of the last `steps` steps. Where nothing is ready, the `fallback`
    surest are. A block's positions are predicted from its first step on, so none has settled before it had `steps` + 1.

    Raises:
        ConfigError: a value is out of range.
    """

    threshold: float = 0.9
    max_drift: float = 0.01
    steps: int = 2
    fallback: int = 1

    def __post_init__(self) -> None:
        _check_share("threshold", self.threshold)
        check_settled(self.max_drift, self.steps)
        if self.fallback < 1:
            raise ConfigError(f"fallback {self.fallback} must be at least 1 token")

    @property
    def reads(self) -> tuple[type, ...]:
        """Numbers in [0, 1]."""
        return Probability, Margin

    @property
    def history(self) -> int:
        """The steps in which a prediction must not move."""
        return self.steps

    def ready(self, progress: Progress, candidates: Tensor, confidence: Tensor) -> Tensor:
        """confidence > tau and settled; else the surest."""
        settled = (progress.drift[: self.steps, candidates] < self.max_drift).all(dim=0)
        ready = settled & (confidence > self.threshold)
        surest = confidence.argsort(descending=True, stable=True)[: self.fallback]
        return torch.where(ready.any(), ready, torch.zeros_like(ready).index_fill(0, surest, True))


def check_settled(max_drift: float, steps: int) -> None:
    """Refuse a bound or a number of steps that no prediction could meet."""
    if not 0.0 < max_drift < math.inf:
        raise ConfigError(f"max_drift {max_drift} must be a positive number of nats; 0.01 is usual")
    if steps < 1:
        raise ConfigError(f"steps {steps} must be at least 1: a prediction is compared with the one before")


def _check_share(what: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"{what} {value} must lie in [0, 1], as probabilities do")


def _unranked(ranked: Tensor, ranking: Tensor) -> Tensor:
    """Flags [m] in the order of a ranking int64 [m] -> in the order of what was ranked."""
    flags = torch.empty_like(ranked)
    flags[ranking] = ranked
    return flags
