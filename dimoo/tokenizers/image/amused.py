"""The autoencoder of aMUSEd's VQ-GAN, which Lumina-DiMOO uses for pictures.

Notable choices, all fixed by the released weights: group normalisation with eps 1e-6, SiLU, downsampling by
a strided convolution padded on the right and bottom only, nearest-neighbour upsampling followed by a
convolution, no attention, one more residual block per stage in the decoder than in the encoder.

Axes: B = batch, H W = pixels, h w = code grid, C = channels.

Source: Patil et al. 2024 (arXiv 2401.01808), after VQ-GAN (arXiv 2012.09841).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """skip(x) + conv(silu(norm(conv(silu(norm(x)))))); skip is a 1x1 convolution where the width changes."""

    def __init__(self, before: int, after: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, before, eps=1e-6)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, after, eps=1e-6)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.skip = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, before, H, W] -> [B, after, H, W]."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        result: Tensor = self.skip(x) + hidden
        return result


class Downsample(nn.Module):
    """Halve the resolution; the input is padded by one row below and one column to the right."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H/2, W/2]."""
        result: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return result


class Upsample(nn.Module):
    """Double the resolution by repeating pixels, then convolve."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, 2H, 2W]."""
        result: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return result


class Stage(nn.Module):
    """Residual blocks at one resolution, then the change of resolution."""

    def __init__(self, before: int, after: int, blocks: int, groups: int, resample: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(ResidualBlock(before if block == 0 else after, after, groups) for block in range(blocks))
        )
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        """[B, before, H, W] -> [B, after, H', W']."""
        result: Tensor = self.resample(self.blocks(x))
        return result


class Encoder(nn.Module):
    """Pixels -> features: stem, stages, middle, head."""

    def __init__(self, channels: Sequence[int], blocks: int, latent_channels: int, groups: int) -> None:
        super().__init__()
        last = channels[-1]
        self.stem = nn.Conv2d(3, channels[0], 3, padding=1)
        stages = []
        for index, width in enumerate(channels):
            before = channels[max(index - 1, 0)]
            resample = Downsample(width) if index < len(channels) - 1 else nn.Identity()
            stages.append(Stage(before, width, blocks, groups, resample))
        self.stages = nn.Sequential(*stages)
        self.middle = nn.Sequential(*(ResidualBlock(last, last, groups) for _ in range(2)))
        self.norm = nn.GroupNorm(groups, last, eps=1e-6)
        self.head = nn.Conv2d(last, latent_channels, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] -> features [B, C, h, w]."""
        hidden = self.middle(self.stages(self.stem(pixels)))
        result: Tensor = self.head(F.silu(self.norm(hidden)))
        return result


class Decoder(nn.Module):
    """Features -> pixels: the encoder's order mirrored, with the widths reversed."""

    def __init__(self, channels: Sequence[int], blocks: int, latent_channels: int, groups: int) -> None:
        super().__init__()
        widths = list(reversed(channels))
        self.stem = nn.Conv2d(latent_channels, widths[0], 3, padding=1)
        self.middle = nn.Sequential(*(ResidualBlock(widths[0], widths[0], groups) for _ in range(2)))
        stages = []
        for index, width in enumerate(widths):
            before = widths[max(index - 1, 0)]
            resample = Upsample(width) if index < len(widths) - 1 else nn.Identity()
            stages.append(Stage(before, width, blocks + 1, groups, resample))
        self.stages = nn.Sequential(*stages)
        self.norm = nn.GroupNorm(groups, widths[-1], eps=1e-6)
        self.head = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Features [B, C, h, w] -> pixels [B, 3, H, W]."""
        hidden = self.stages(self.middle(self.stem(features)))
        result: Tensor = self.head(F.silu(self.norm(hidden)))
        return result


class AmusedAutoencoder(nn.Module):
    """Pixels in [0, 1], not normalised further <-> latents at 1/2^(stages - 1) of the resolution."""

    def __init__(
        self, *, channels: Sequence[int], blocks: int, latent_channels: int, latent_dim: int, groups: int
    ) -> None:
        super().__init__()
        self.factor: int = 2 ** (len(channels) - 1)
        self.encoder = Encoder(channels, blocks, latent_channels, groups)
        self.to_latent = nn.Conv2d(latent_channels, latent_dim, 1)
        self.from_latent = nn.Conv2d(latent_dim, latent_channels, 1)
        self.decoder = Decoder(channels, blocks, latent_channels, groups)

    @property
    def downsampling(self) -> int:
        """Pixels per code along each side."""
        return self.factor

    @property
    def encoding(self) -> tuple[nn.Module, ...]:
        """The parts that make latents."""
        return self.encoder, self.to_latent

    @property
    def last_weight(self) -> Tensor:
        """The weight of the layer that writes pixels."""
        return self.decoder.head.weight

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] in [0, 1] -> latents [B, C, h, w]."""
        latents: Tensor = self.to_latent(self.encoder(pixels))
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] -> pixels [B, 3, H, W], not clamped."""
        pixels: Tensor = self.decoder(self.from_latent(latents))
        return pixels
