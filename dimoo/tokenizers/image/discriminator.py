"""A small patch discriminator.

Axes: B = batch, H W = pixels, y x = patches.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches: pixels [B, 3, H, W] in [0, 1] -> logits [B, 1, y, x], high for real ones.

    `depth` strided 4x4 convolutions that halve the resolution and double the width (at most 8-fold), then one
    3x3 convolution to a logit. There is no normalisation: a picture's score does not depend on its batch.

    Source: Isola et al. 2017 (arXiv 1611.07004), as used in VQ-GAN (arXiv 2012.09841).
    """

    def __init__(self, *, width: int, depth: int) -> None:
        super().__init__()
        widths = [3, *(width * min(2**layer, 8) for layer in range(depth))]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] -> logits [B, 1, y, x]."""
        logits: Tensor = self.layers(2 * pixels - 1)
        return logits
