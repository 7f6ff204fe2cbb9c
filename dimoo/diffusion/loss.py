"""The training loss: weights of the masked tokens' negative log-likelihoods, and those computed in chunks.

Axes: M = masked tokens, G = groups, d = hidden width, C = columns of the head.

Every weight returns a sum and a count, never a mean. With the parts p of a batch (micro-batches, ranks),

    loss = sum_p total_p / sum_p count_p

is the same however the batch is split; a mean of means would weight a token by how few others its part
happens to have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from dimoo.core.errors import ConfigError
from dimoo.diffusion.schedules import Schedule


@dataclass(frozen=True, kw_only=True, eq=False)
class LossTerms:
    """A part of the batch's loss: its numerator and its denominator. Parts add up."""

    total: Tensor
    """float32 scalar with gradient."""

    count: Tensor
    """int64 scalar."""

    def __add__(self, other: LossTerms) -> LossTerms:
        return LossTerms(total=self.total + other.total, count=self.count + other.count)

    def mean(self) -> Tensor:
        """total / count, and 0 where nothing was counted."""
        return self.total / self.count.clamp(min=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskedGroups:
    """Where the masked tokens come from."""

    group: Tensor
    """int64 [M]: the group of each masked token."""

    progress: Tensor
    """float32 [G]: u, as it was drawn."""

    share: Tensor
    """float32 [G]: the chance that each single token of a group had of being masked (`Corrupted.share`)."""

    sizes: Tensor
    """int64 [G]: target tokens in the group, masked or not."""

    def to(self, device: torch.device) -> MaskedGroups:
        """The same on another device."""
        return MaskedGroups(
            group=self.group.to(device),
            progress=self.progress.to(device),
            share=self.share.to(device),
            sizes=self.sizes.to(device),
        )


class LossWeight(Protocol):
    """Weighs the masked tokens' negative log-likelihoods."""

    def __call__(self, nll: Tensor, groups: MaskedGroups) -> LossTerms:
        """Sum nll float32 [M] with weights."""


@dataclass(frozen=True, kw_only=True)
class MeanOverMasked:
    """Every masked token counts the same: sum_i nll_i / (number masked).

    MaskGIT and Lumina-DiMOO. Against the likelihood bound it favours strongly masked groups; good for images.
    """

    def __call__(self, nll: Tensor, groups: MaskedGroups) -> LossTerms:
        """Weight 1, counted by masked tokens."""
        del groups
        return LossTerms(total=nll.sum(), count=torch.tensor(len(nll), device=nll.device))


@dataclass(frozen=True, kw_only=True)
class InverseShare:
    """LLaDA's bound: sum_i nll_i / p_g(i), over the number of target tokens, masked or not.

    p is the chance a token had of being masked: the share m_g under `Bernoulli(at_least_one=False)`, the realised
    share k_g / n_g under `ExactCount`. So every target token has weight 1 in expectation (exactly 1 per group under
    `ExactCount`). With m uniform on (0, 1) and `Bernoulli(at_least_one=False)` the expectation bounds the negative
    log-likelihood per target token; `ExactCount` and `at_least_one` mask one token where the bound has none, and come
    within about 1 / n_g of it. m is uniform under the linear schedule; use `ScheduleWeight` for another. `least_share`
    bounds the weight of nearly clean groups, at the price of a small bias.
    """

    least_share: float = 1e-3

    def __post_init__(self) -> None:
        _check_least(self.least_share)

    def __call__(self, nll: Tensor, groups: MaskedGroups) -> LossTerms:
        """Weight 1 / p, counted by target tokens."""
        weight = 1.0 / groups.share.clamp(min=self.least_share)
        return LossTerms(total=(nll * weight[groups.group]).sum(), count=groups.sizes.sum())


@dataclass(frozen=True, kw_only=True)
class ScheduleWeight:
    """The bound under any schedule: sum_i nll_i |m'(u_g)| / p_g(i), over the number of target tokens.

    Uniform u makes the density of m equal 1 / |m'|; the factor |m'| undoes it, so all schedules share one
    expectation (MDLM, arXiv 2406.07524). The denominator is the chance really used: a group masked fully by
    rule has p_g = 1 and the expected weight, the integral of |m'|, is 1. p, what is a bound, and `least_share`
    are as in `InverseShare`.
    """

    schedule: Schedule
    least_share: float = 1e-3

    def __post_init__(self) -> None:
        _check_least(self.least_share)

    def __call__(self, nll: Tensor, groups: MaskedGroups) -> LossTerms:
        """Weight |m'| / p, counted by target tokens."""
        weight = self.schedule.derivative(groups.progress).abs() / groups.share.clamp(min=self.least_share)
        return LossTerms(total=(nll * weight[groups.group]).sum(), count=groups.sizes.sum())


def _check_least(share: float) -> None:
    if not 0.0 < share <= 1.0:
        raise ConfigError(f"least_share {share} must be in (0, 1]: 0.001 is usual")


def chunked_nll(hidden: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor], chunk: int) -> Tensor:
    """-log softmax(head(hidden))[target]: hidden [M, d], targets int64 [M] -> float32 [M].

    At most `chunk` rows of logits exist at a time, in the backward pass too, where they are computed again
    chunk by chunk. One chunk is computed plainly. The head ([m, d] -> [m, C]) must be deterministic: it is
    run twice.

    Raises:
        ConfigError: `chunk` is below 1.
    """
    if chunk < 1:
        raise ConfigError(f"chunk {chunk} must be at least 1: how many rows of logits to hold at a time")

    def nll(rows: Tensor, wanted: Tensor) -> Tensor:
        return functional.cross_entropy(head(rows).float(), wanted, reduction="none")

    if len(hidden) <= chunk:
        # No masked token at all runs the head on no rows, which keeps its parameters in the graph.
        return nll(hidden, targets)
    parts: list[Tensor] = [
        checkpoint(nll, rows, wanted, use_reentrant=False, preserve_rng_state=False)
        for rows, wanted in zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True)
    ]
    return torch.cat(parts)
