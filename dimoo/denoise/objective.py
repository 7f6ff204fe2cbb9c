"""The training objective: mask a pack of documents, predict the masked tokens, sum their negative log-likelihoods.

Axes: N = tokens of the pack, G = target groups, M = masked tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Generator, Tensor

from dimoo.backbone.layout import PackedLayout
from dimoo.denoise.predictor import MaskPredictor
from dimoo.diffusion.corruption import Corruption, shares
from dimoo.diffusion.loss import (
    GroupWeights,
    Hits,
    LossTerms,
    LossWeight,
    MaskedGroups,
    chunked_nll,
    unwatched,
)
from dimoo.diffusion.schedules import Schedule
from dimoo.diffusion.times import Times
from dimoo.tokenizers.packing import Batch
from dimoo.tokenizers.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True, eq=False)
class Noisy:
    """A corrupted pack: what the network sees and what it is to predict."""

    batch: Batch
    ids: Tensor
    """int64 [N]: the pack with masks."""
    rows: Tensor
    """int64 [M]: the masked stream positions."""
    groups: MaskedGroups
    """Which group each masked row belongs to, and each group's time, share and size."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Loss:
    """Loss of a pack."""

    terms: LossTerms
    """Numerator (with gradient) and denominator; add them up over packs and ranks before dividing."""
    nll: Tensor
    """float32 [M], detached: the negative log-likelihood of each masked token, in nats."""
    hits: Hits | None
    """Which of them were predicted right and how surely; None: that was not measured."""


@dataclass(frozen=True, kw_only=True)
class MaskedObjective:
    """Masked cross-entropy with pluggable times, schedule, corruption and weights (SPEC section 3).

    u_g ~ times;  m_g = schedule(u_g), 1 for groups of at most `full_up_to` tokens;  mask a share m_g of group g;
    loss = sum_i lambda_k(i) w_i * -log p(x_i | masked pack) / sum_g lambda_k(g) c_g, with w and c of `weight` and k the
    kind of a target.
    """

    vocabulary: Vocabulary
    schedule: Schedule
    times: Times
    corruption: Corruption
    weight: LossWeight
    full_up_to: int
    slice_loss: bool
    """Softmax over the ids that the target may take (its `columns`) instead of the full vocabulary."""
    chunk: int
    """Masked rows whose logits exist at a time."""
    kind_weights: Mapping[str, float] = field(default_factory=dict)
    """lambda: how much the targets of a kind ("image", "text", "padding") count; 1 where it is not said."""

    def corrupt(self, batch: Batch, generator: Generator) -> Noisy:
        """Draw times and masks for a pack; the pack is left as it is."""
        sizes = batch.sizes()
        progress = self.times.sample(len(batch.targets), generator)
        share = shares(self.schedule, progress, sizes, self.full_up_to)
        corrupted = self.corruption(batch.ids, batch.group, share, self.vocabulary.mask, generator)
        rows = corrupted.masked.nonzero().squeeze(1)
        groups = MaskedGroups(
            group=batch.group[rows], progress=progress, share=corrupted.share, sizes=sizes, answer=batch.answers()
        )
        return Noisy(batch=batch, ids=corrupted.ids, rows=rows, groups=groups)

    def complement(self, noisy: Noisy) -> Noisy:
        """The same pack with those targets masked that were not, so that of both together each is learnt once.

        A group that was masked whole is given here, and counts nothing (complementary masking, LaViDa, arXiv
        2505.16839). The bounds (`InverseShare`, `ScheduleWeight`) expect of both what they expect of one; under
        `MeanOverMasked` both together are the mean over all targets, each under one of two masks.
        """
        batch = noisy.batch
        hidden = batch.group >= 0
        hidden[noisy.rows] = False
        rows = hidden.nonzero().squeeze(1)
        groups = replace(noisy.groups, group=batch.group[rows], share=1 - noisy.groups.share)
        counted = torch.where(noisy.groups.share < 1, groups.sizes, 0)
        ids = batch.ids.masked_fill(hidden, self.vocabulary.mask)
        return Noisy(batch=batch, ids=ids, rows=rows, groups=replace(groups, sizes=counted))

    def count(self, noisy: Noisy) -> float:
        """The denominator that a pack adds: known before the forward pass, so packs can be summed one by one."""
        return float(self._weights(noisy, noisy.groups).count.sum())

    def loss(self, backbone: MaskPredictor, noisy: Noisy, *, measure: bool = False) -> Loss:
        """Forward a corrupted pack; logits exist only for masked rows, `chunk` at a time.

        Args:
            backbone: what predicts.
            noisy: the pack.
            measure: give `hits` too, from the same logits; the loss and its gradients stay as they are.
        """
        device = backbone.device
        layout = PackedLayout.of(noisy.batch.lengths, device)
        hidden = backbone(noisy.ids.to(device), layout)
        wanted = noisy.batch.ids[noisy.rows]
        everything = (0, self.vocabulary.size)
        ranges = [target.columns if self.slice_loss else everything for target in noisy.batch.targets]
        order, pieces, hits = [], [], list[Hits]()

        def watch(logits: Tensor, targets: Tensor) -> None:
            hits.append(Hits.of(logits, targets))

        for columns in dict.fromkeys(ranges):
            members = _members(ranges, columns, noisy.groups.group).nonzero().squeeze(1)
            order.append(members)
            pieces.append(
                chunked_nll(
                    hidden[noisy.rows[members].to(device)],
                    (wanted[members] - columns[0]).to(device),
                    lambda piece, columns=columns: backbone.head(piece, slice(*columns)),  # type: ignore[misc]
                    self.chunk,
                    watch if measure else unwatched,
                )
            )
        back = torch.cat(order).argsort().to(device)
        nll = torch.cat(pieces)[back]
        groups = noisy.groups.to(device)
        return Loss(
            terms=self._weights(noisy, groups).terms(nll, groups.group),
            nll=nll.detach(),
            hits=Hits.joined(hits)[back] if measure else None,
        )

    def _weights(self, noisy: Noisy, groups: MaskedGroups) -> GroupWeights:
        factors = [self.kind_weights.get(target.kind, 1.0) for target in noisy.batch.targets]
        return self.weight(groups).scaled(torch.tensor(factors, device=groups.share.device))


def _members(values: Sequence[object], value: object, group: Tensor) -> Tensor:
    """bool [M]: which masked tokens belong to a group that has this value."""
    return torch.tensor([entry == value for entry in values], device=group.device)[group]
