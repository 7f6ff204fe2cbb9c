"""The VQ-GAN training objective as parts that add up: reconstruction, quantizer, adversary.

Axes: B = batch, H W = pixels, C = 3 colours. Per-pixel weights are [B, 1, H, W].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from dimoo.core.errors import RequestError
from dimoo.tokenizers.image.tokenizer import Reconstruction


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Named scalar parts, each already weighted."""

    parts: Mapping[str, Tensor]

    @property
    def total(self) -> Tensor:
        """The sum of the parts."""
        return torch.stack(list(self.parts.values())).sum()


@dataclass(frozen=True, kw_only=True)
class ReconstructionLoss:
    """Weighted means over pixels of differences d = made - wanted.

    l1: |d|;  l2: d^2;  gradient: |difference of d between horizontal, and vertical, neighbours|;
    multiscale: |d| after average pooling by 2^s, averaged over s = 1..scales.

    With per-pixel weights m, each mean is sum(m * x) / sum(m) over pixels and colours; a neighbour pair
    weighs the mean of its two pixels, a pooled pixel the mean of its area. A part with weight 0 is left out.
    """

    l1: float = 1.0
    l2: float = 1.0
    gradient: float = 0.5
    multiscale: float = 0.0
    scales: int = 3

    def __call__(self, made: Tensor, wanted: Tensor, weights: Tensor | None = None) -> dict[str, Tensor]:
        """Named parts for pictures [B, 3, H, W].

        Raises:
            RequestError: a picture is too small for the pyramid.
        """
        error = made.float() - wanted.float()
        mask = None if weights is None else weights.float()
        parts: dict[str, Tensor] = {}
        if self.l1:
            parts["l1"] = self.l1 * _mean(error.abs(), mask)
        if self.l2:
            parts["l2"] = self.l2 * _mean(error.square(), mask)
        if self.gradient:
            parts["gradient"] = self.gradient * _edges(error, mask)
        if self.multiscale:
            parts["multiscale"] = self.multiscale * self._pyramid(error, mask)
        return parts

    def _pyramid(self, error: Tensor, mask: Tensor | None) -> Tensor:
        if min(error.shape[2:]) < 2**self.scales:
            raise RequestError(
                f"pictures of {tuple(error.shape[2:])} pixels are too small for scales={self.scales}; "
                f"use sides of at least {2**self.scales}, or fewer scales"
            )
        levels = []
        for _ in range(self.scales):
            error = F.avg_pool2d(error, 2)
            mask = None if mask is None else F.avg_pool2d(mask, 2)
            levels.append(_mean(error.abs(), mask))
        return torch.stack(levels).mean()


class Adversary(Protocol):
    """The adversarial half of the objective."""

    def generator_parts(self, made: Tensor, *, base: Tensor, step: int, last_weight: Tensor) -> dict[str, Tensor]:
        """What the tokenizer minimises besides `base`, its reconstruction loss."""

    def discriminator_parts(self, made: Tensor, wanted: Tensor, *, step: int) -> dict[str, Tensor]:
        """What the discriminator minimises; sends gradients to the discriminator alone."""

    def parameters(self) -> list[nn.Parameter]:
        """What a second optimiser trains; empty without a discriminator."""


@dataclass(frozen=True, kw_only=True)
class NoAdversary:
    """Reconstruction alone."""

    def generator_parts(self, made: Tensor, *, base: Tensor, step: int, last_weight: Tensor) -> dict[str, Tensor]:
        """No part."""
        del made, base, step, last_weight
        return {}

    def discriminator_parts(self, made: Tensor, wanted: Tensor, *, step: int) -> dict[str, Tensor]:
        """No part."""
        del made, wanted, step
        return {}

    def parameters(self) -> list[nn.Parameter]:
        """Nothing to train."""
        return []


@dataclass(frozen=True, kw_only=True)
class HingeAdversary:
    """Hinge losses of a discriminator D from `start_step` on.

    generator: -weight * a * mean D(made), with a = 1, or where `adaptive`, at the decoder's last weight,
    a = |grad of the reconstruction loss| / (|grad of -mean D(made)| + 1e-4), at most 1e4;
    discriminator: mean max(0, 1 - D(wanted)) / 2 + mean max(0, 1 + D(made)) / 2.

    Source: Esser et al. 2021 (arXiv 2012.09841), equations 6 and 7.
    """

    discriminator: nn.Module
    weight: float = 0.1
    start_step: int = 0
    adaptive: bool = True

    def generator_parts(self, made: Tensor, *, base: Tensor, step: int, last_weight: Tensor) -> dict[str, Tensor]:
        """The part "adversary", or none before `start_step`."""
        if step < self.start_step:
            return {}
        # Detached weights: the tokenizer's backward pass leaves no gradient in the discriminator.
        frozen = {name: tensor.detach() for name, tensor in self.discriminator.state_dict().items()}
        loss = -functional_call(self.discriminator, frozen, (made.float(),)).mean()
        scale = _balance(base, loss, last_weight) if self.adaptive else loss.new_ones(())
        return {"adversary": self.weight * scale * loss}

    def discriminator_parts(self, made: Tensor, wanted: Tensor, *, step: int) -> dict[str, Tensor]:
        """The parts "real" and "made", or none before `start_step`."""
        if step < self.start_step:
            return {}
        real, fake = self.discriminator(wanted.float()), self.discriminator(made.detach().float())
        return {"real": F.relu(1 - real).mean() / 2, "made": F.relu(1 + fake).mean() / 2}

    def parameters(self) -> list[nn.Parameter]:
        """The discriminator's weights."""
        return list(self.discriminator.parameters())


@dataclass(frozen=True, kw_only=True)
class TokenizerObjective:
    """Reconstruction + the quantizer's own losses + adversary, for the two optimisers."""

    reconstruction: ReconstructionLoss = field(default_factory=ReconstructionLoss)
    adversary: Adversary = field(default_factory=NoAdversary)

    def generator_losses(
        self,
        made: Reconstruction,
        wanted: Tensor,
        *,
        step: int,
        last_weight: Tensor,
        weights: Tensor | None = None,
    ) -> Losses:
        """What the tokenizer minimises on pictures `wanted` [B, 3, H, W].

        Args:
            made: the tokenizer's output for them.
            wanted: the pictures.
            step: optimiser steps taken so far.
            last_weight: `tokenizer.network.last_weight`.
            weights: importance of each pixel [B, 1, H, W]; None counts all the same.
        """
        pixels = self.reconstruction(made.pixels, wanted, weights)
        parts = {**pixels, **made.quantized.losses}
        base = torch.stack(list(pixels.values())).sum()
        extra = self.adversary.generator_parts(made.pixels, base=base, step=step, last_weight=last_weight)
        return Losses(parts={**parts, **extra})

    def discriminator_losses(self, made: Reconstruction, wanted: Tensor, *, step: int) -> Losses:
        """What the discriminator minimises; no parts where there is none (yet)."""
        return Losses(parts=self.adversary.discriminator_parts(made.pixels, wanted, step=step))


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """sum(mask * values) / sum(mask) over pixels and colours; values [B, C, H, W], mask [B, 1, H, W]."""
    if mask is None:
        return values.mean()
    return (values * mask).sum() / (mask.sum() * values.shape[1]).clamp(min=1e-8)


def _edges(error: Tensor, mask: Tensor | None) -> Tensor:
    across = _mean(error.diff(dim=3).abs(), None if mask is None else (mask[..., 1:] + mask[..., :-1]) / 2)
    down = _mean(error.diff(dim=2).abs(), None if mask is None else (mask[:, :, 1:] + mask[:, :, :-1]) / 2)
    return across + down


def _balance(base: Tensor, adversary: Tensor, weight: Tensor) -> Tensor:
    (of_base,) = torch.autograd.grad(base, weight, retain_graph=True)
    (of_adversary,) = torch.autograd.grad(adversary, weight, retain_graph=True)
    ratio: Tensor = of_base.norm() / (of_adversary.norm() + 1e-4)
    return ratio.clamp(max=1e4).detach()
