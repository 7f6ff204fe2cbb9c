"""A light autoencoder whose codes are local: one code, one patch.

Notable choices:
- the encoder is a pixel-unshuffle and 1x1 convolutions, so that equal patches always get equal codes wherever
  they stand and whatever surrounds them. Codes without leakage are easier to model.
- normalisation is RMS over the channels of one position; a group norm would mix statistics of the whole
  picture into every code.
- each side is a linear map plus a network whose last layer starts at zero. The linear maps start orthogonal and each
  other's transpose, so that with a codebook fitted by k-means the tokenizer starts as a dictionary of patches, which
  is where training would take minutes to arrive.
- everything runs at code resolution; pixels appear only in the (un)shuffle. Convolution inputs stay
  contiguous.

Axes: B = batch, H W = pixels, h w = code grid, C = channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ChannelNorm(nn.Module):
    """RMS normalisation over channels, y = g * x / sqrt(mean_C(x^2) + eps), at each position."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, C, h, w]."""
        scale = x.float().square().mean(dim=1, keepdim=True).add(self.eps).rsqrt().to(x.dtype)
        return x * scale * self.weight.to(x.dtype)[:, None, None]


class ResidualBlock(nn.Module):
    """x + conv1x1(silu(conv_kxk(norm(x)))), all of one width."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.mix = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w]."""
        residual: Tensor = self.out(F.silu(self.mix(self.norm(x))))
        return x + residual


class PatchAutoencoder(nn.Module):
    """Pixels in [0, 1] <-> latents at 1/patch of the resolution."""

    def __init__(
        self,
        *,
        patch: int,
        width: int,
        latent_dim: int,
        encoder_blocks: int,
        encoder_context: int,
        decoder_blocks: int,
    ) -> None:
        super().__init__()
        self.patch = patch
        pixels = 3 * patch * patch
        self.to_patches = nn.PixelUnshuffle(patch)
        self.analysis = nn.Conv2d(pixels, latent_dim, 1, bias=False)
        self.synthesis = nn.Conv2d(latent_dim, pixels, 1, bias=False)
        self.encoder = nn.Sequential(
            nn.Conv2d(pixels, width, 1),
            *(ResidualBlock(width, 1) for _ in range(encoder_blocks)),
            *(ResidualBlock(width, 3) for _ in range(encoder_context)),
            ChannelNorm(width),
            nn.Conv2d(width, latent_dim, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_dim, width, 1),
            *(ResidualBlock(width, 3) for _ in range(decoder_blocks)),
            ChannelNorm(width),
            nn.Conv2d(width, pixels, 1),
        )
        self.to_pixels = nn.PixelShuffle(patch)

    @property
    def downsampling(self) -> int:
        """Pixels per code along each side."""
        return self.patch

    @property
    def encoding(self) -> tuple[nn.Module, ...]:
        """The parts that make latents."""
        return self.analysis, self.encoder

    @property
    def last_weight(self) -> Tensor:
        """The weight of the layer that writes pixels."""
        last = self.decoder[-1]
        assert isinstance(last, nn.Conv2d)
        return last.weight

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] in [0, 1] -> latents [B, C, h, w]."""
        patches = self.to_patches(2 * pixels - 1)
        latents: Tensor = self.analysis(patches) + self.encoder(patches)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] -> pixels [B, 3, H, W], not clamped."""
        pixels: Tensor = self.to_pixels(self.synthesis(latents) + self.decoder(latents))
        return (pixels + 1) / 2

    @torch.no_grad()
    def start_linear(self, generator: torch.Generator) -> None:
        """Set the linear maps to a random orthogonal matrix and its transpose, the networks to output zero."""
        latent_dim, pixels = self.analysis.weight.shape[:2]
        size = max(latent_dim, pixels)
        rotation, _ = torch.linalg.qr(torch.randn(size, size, generator=generator))
        self.analysis.weight.copy_(rotation[:latent_dim, :pixels, None, None])
        self.synthesis.weight.copy_(rotation[:latent_dim, :pixels].T[:, :, None, None])
        for network in (self.encoder, self.decoder):
            last = network[-1]
            assert isinstance(last, nn.Conv2d)
            last.weight.zero_()
