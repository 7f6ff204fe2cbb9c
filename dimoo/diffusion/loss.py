"""The training loss: weights of the masked tokens' negative log-likelihoods, and those computed in chunks.

Axes: M = masked tokens, G = groups, d = hidden width, C = columns of the head.

Every loss is a sum and a count, never a mean. With the parts p of a batch (micro-batches, ranks),

    loss = sum_p total_p / sum_p count_p

is the same however the batch is split; a mean of means would weight a token by how few others its part
happens to have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    """float32 scalar."""

    def __add__(self, other: LossTerms) -> LossTerms:
        return LossTerms(total=self.total + other.total, count=self.count + other.count)

    def mean(self) -> Tensor:
        """total / count, and 0 where nothing was counted."""
        return self.total / torch.where(self.count > 0, self.count, 1.0)


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

    answer: Tensor | None = None
    """int64 [G]: the first group of the same document; None: each group is an answer of its own."""

    def masked(self) -> Tensor:
        """int64 [G]: masked tokens in the group."""
        return torch.zeros_like(self.sizes).index_add(0, self.group, torch.ones_like(self.group))

    def to(self, device: torch.device) -> MaskedGroups:
        """The same on another device."""
        return MaskedGroups(
            group=self.group.to(device),
            progress=self.progress.to(device),
            share=self.share.to(device),
            sizes=self.sizes.to(device),
            answer=None if self.answer is None else self.answer.to(device),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupWeights:
    """What the masked tokens of each group weigh, and what the group adds to the denominator."""

    token: Tensor
    """float32 [G]: weight of each of its masked tokens."""

    count: Tensor
    """float32 [G]."""

    def terms(self, nll: Tensor, group: Tensor) -> LossTerms:
        """sum_i token_g(i) nll_i over sum_g count_g: nll float32 [M], group int64 [M]."""
        return LossTerms(total=(nll * self.token[group]).sum(), count=self.count.sum())

    def scaled(self, factor: Tensor) -> GroupWeights:
        """Groups that count more or less than others: factor float32 [G], on both sides of the fraction."""
        return GroupWeights(token=self.token * factor, count=self.count * factor)


class LossWeight(Protocol):
    """Weighs the masked tokens' negative log-likelihoods, group by group."""

    def __call__(self, groups: MaskedGroups) -> GroupWeights:
        """The weights of each group."""


@dataclass(frozen=True, kw_only=True)
class MeanOverMasked:
    """Every masked token counts the same: sum_i nll_i / (number masked).

    MaskGIT and Lumina-DiMOO. Against the likelihood bound it favours strongly masked groups; good for images.
    """

    def __call__(self, groups: MaskedGroups) -> GroupWeights:
        """Weight 1, counted by masked tokens."""
        return GroupWeights(token=torch.ones_like(groups.share), count=groups.masked().float())


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

    def __call__(self, groups: MaskedGroups) -> GroupWeights:
        """Weight 1 / p, counted by target tokens."""
        return GroupWeights(token=1.0 / groups.share.clamp(min=self.least_share), count=groups.sizes.float())


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

    def __call__(self, groups: MaskedGroups) -> GroupWeights:
        """Weight |m'| / p, counted by target tokens."""
        slope = self.schedule.derivative(groups.progress).abs()
        return GroupWeights(token=slope / groups.share.clamp(min=self.least_share), count=groups.sizes.float())


@dataclass(frozen=True, kw_only=True)
class AnswerMean:
    """Every answer counts the same, however long it is: the mean over answers of what `weight` makes of each alone.

    An answer is all groups of a document: words and their padding together, a picture, or both. With `InverseShare` it
    is 1 / p over the length of the answer, padding included, as LLaDA is taught to answer (arXiv 2502.09992, section
    2.3; there one time is drawn for the whole answer, here one for each group).
    """

    weight: LossWeight

    def __call__(self, groups: MaskedGroups) -> GroupWeights:
        """The inner weights and counts over the inner count of the answer; answers that count nothing stay out."""
        inner = self.weight(groups)
        if groups.answer is None:
            whole = inner.count
        else:
            whole = torch.zeros_like(inner.count).index_add(0, groups.answer, inner.count)[groups.answer]
        whole = torch.where(whole > 0, whole, 1.0)
        return GroupWeights(token=inner.token / whole, count=inner.count / whole)


def _check_least(share: float) -> None:
    if not 0.0 < share <= 1.0:
        raise ConfigError(f"least_share {share} must be in (0, 1]: 0.001 is usual")


@dataclass(frozen=True, kw_only=True, eq=False)
class Hits:
    """How the masked tokens were predicted, besides their likelihood."""

    correct: Tensor
    """bool [M]: whether the most likely id is the right one."""

    entropy: Tensor
    """float32 [M]: of the predicted distribution, in nats."""

    @classmethod
    @torch.no_grad()
    def of(cls, logits: Tensor, targets: Tensor) -> Hits:
        """arg max_c p_c = target, and -sum_c p_c log p_c: logits float32 [M, C], targets int64 [M]."""
        entropy = torch.special.entr(logits.softmax(-1)).sum(-1)
        return cls(correct=logits.argmax(-1) == targets, entropy=entropy)

    @classmethod
    def joined(cls, parts: Sequence[Hits]) -> Hits:
        """Those of several parts, in their order."""
        return cls(
            correct=torch.cat([part.correct for part in parts]), entropy=torch.cat([part.entropy for part in parts])
        )

    def __getitem__(self, order: Tensor) -> Hits:
        """Those at some places: order int64 or bool [M]."""
        return Hits(correct=self.correct[order], entropy=self.entropy[order])


class Watch(Protocol):
    """Looks at logits before they are gone."""

    def __call__(self, logits: Tensor, targets: Tensor, /) -> None:
        """Called once for each chunk in turn: logits float32 [m, C], targets int64 [m]. It is to leave both alone."""


def unwatched(logits: Tensor, targets: Tensor) -> None:
    """Nobody looks."""
    del logits, targets


def chunked_nll(
    hidden: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor], chunk: int, watch: Watch = unwatched
) -> Tensor:
    """-log softmax(head(hidden))[target]: hidden [M, d], targets int64 [M] -> float32 [M].

    At most `chunk` rows of logits exist at a time, in the backward pass too, where they are computed again
    chunk by chunk, and not watched. One chunk is computed plainly. The head ([m, d] -> [m, C]) must be deterministic:
    it is run twice.

    Raises:
        ConfigError: `chunk` is below 1.
    """
    if chunk < 1:
        raise ConfigError(f"chunk {chunk} must be at least 1: how many rows of logits to hold at a time")
    forward = True

    def nll(rows: Tensor, wanted: Tensor) -> Tensor:
        logits = head(rows).float()
        if forward:
            watch(logits.detach(), wanted)
        return functional.cross_entropy(logits, wanted, reduction="none")

    if len(hidden) <= chunk:
        # No masked token at all runs the head on no rows, which keeps its parameters in the graph.
        return nll(hidden, targets)
    parts: list[Tensor] = [
        checkpoint(nll, rows, wanted, use_reentrant=False, preserve_rng_state=False)
        for rows, wanted in zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True)
    ]
    forward = False  # from here on `nll` is run by the backward pass
    return torch.cat(parts)
