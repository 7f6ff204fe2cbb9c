"""The two halves of an image tokenizer: a network (pixels <-> latents) and a quantizer (latents <-> codes).

Axes: B = batch, H W = pixels, h w = code grid, C = latent channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What a quantizer made of latents.

    latents: the codes' vectors [B, C, h, w], with the gradient of the latents (straight-through).
    codes: int64 [B, h, w].
    losses: the quantizer's own training losses by name, weighted; empty where it has none.
    """

    latents: Tensor
    codes: Tensor
    losses: Mapping[str, Tensor]


class Quantizer(Protocol):
    """Latents <-> codes. Its statistics change in `initialise` and `update` alone, never in a call."""

    @property
    def codebook_size(self) -> int:
        """How many codes there are."""

    @property
    def dim(self) -> int:
        """Channels C of the latents."""

    @property
    def statistics(self) -> frozenset[str]:
        """Names of the buffers that only training needs; files of finished tokenizers do without."""

    def restart_statistics(self) -> None:
        """Set those buffers as if training began with the present codebook."""

    def __call__(self, latents: Tensor) -> Quantized:
        """Quantize latents [B, C, h, w]."""

    def lookup(self, codes: Tensor) -> Tensor:
        """Codes int64 [B, h, w] -> their vectors [B, C, h, w]."""

    def initialise(self, latents: Tensor, generator: torch.Generator) -> None:
        """Fit the codebook to a first sample of latents [B, C, h, w], before training."""

    def update(self, latents: Tensor, codes: Tensor, generator: torch.Generator) -> int:
        """Learn from one training batch, after the optimiser's step; returns how many codes were revived."""


class Network(Protocol):
    """Pixels <-> latents."""

    @property
    def downsampling(self) -> int:
        """Pixels per code along each side."""

    @property
    def last_weight(self) -> Tensor:
        """The weight of the decoder's last layer, where adversarial weights compare gradients."""

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] in [0, 1] -> latents [B, C, h, w]."""

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] -> pixels [B, 3, H, W], not clamped."""
