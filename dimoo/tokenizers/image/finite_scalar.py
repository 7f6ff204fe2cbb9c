"""Finite scalar quantization: no codebook to learn, none to collapse.

Axes: B = batch, h w = code grid, C = channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dimoo.tokenizers.image.base import Quantized


class FiniteScalarQuantizer(nn.Module):
    """Each channel c is bounded by tanh and rounded to one of L_c equally spaced values in [-1, 1].

    digit_c = round((tanh(z_c) + 1) * (L_c - 1) / 2),  value_c = 2 digit_c / (L_c - 1) - 1,
    code = sum_c digit_c * prod_{i<c} L_i, a number in mixed radix. The gradient passes straight through the
    rounding to tanh(z). The values are symmetric about 0 for even L_c too (the paper shifts them), so that
    all levels 2 give value = sign(z): lookup-free quantization with the channel signs as the code's bits.

    Sources: Mentzer et al. 2023 (arXiv 2309.15505); lookup-free: Yu et al. 2023 (arXiv 2310.05737).
    """

    levels: Tensor
    radix: Tensor

    def __init__(self, *, levels: Sequence[int]) -> None:
        super().__init__()
        self._levels = tuple(levels)
        radix = [math.prod(levels[:channel]) for channel in range(len(levels))]
        # Derived from the config, so not part of the weights.
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("radix", torch.tensor(radix), persistent=False)

    @property
    def codebook_size(self) -> int:
        """How many codes there are: the product of the levels."""
        return math.prod(self._levels)

    @property
    def dim(self) -> int:
        """Channels of the latents: one per entry of levels."""
        return len(self._levels)

    @property
    def statistics(self) -> frozenset[str]:
        """None: the values are fixed."""
        return frozenset()

    def restart_statistics(self) -> None:
        """Do nothing: there are none."""

    def forward(self, latents: Tensor) -> Quantized:
        """Quantize latents [B, C, h, w]; there is no loss."""
        bounded = latents.float().tanh()
        digits = self._digits(bounded.detach())
        codes = (digits * self.radix[:, None, None]).sum(dim=1)
        straight_through = bounded + (self._values(digits) - bounded).detach()
        return Quantized(latents=straight_through.to(latents.dtype), codes=codes, losses={})

    def lookup(self, codes: Tensor) -> Tensor:
        """Codes int64 [B, h, w] -> their values [B, C, h, w] in [-1, 1]."""
        digits = codes[:, None] // self.radix[:, None, None] % self.levels[:, None, None]
        return self._values(digits)

    def initialise(self, latents: Tensor, generator: torch.Generator) -> None:
        """Do nothing: the values are fixed."""
        del latents, generator

    def update(self, latents: Tensor, codes: Tensor, generator: torch.Generator) -> int:
        """Do nothing: the values are fixed; returns 0, as no code is ever revived."""
        del latents, codes, generator
        return 0

    def _digits(self, bounded: Tensor) -> Tensor:
        last = self.levels[:, None, None] - 1
        return ((bounded + 1) * last / 2).round().long()

    def _values(self, digits: Tensor) -> Tensor:
        last = self.levels[:, None, None] - 1
        return 2 * digits / last - 1
