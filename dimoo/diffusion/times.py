"""How training draws the progress u of each group of tokens that is corrupted together.

Axes: G = groups (a caption, an image, an answer, its padding...).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dimoo.core.errors import ConfigError

_BELOW_ONE = 1.0 - 2.0**-24
"""The largest float32 below 1."""


class Times(Protocol):
    """Draws progress values in [0, 1).

    The losses that bound a likelihood do so where each value alone is uniform, as `UniformTimes` and `AntitheticTimes`
    have it; other densities put the work where it teaches more.
    """

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` values, float32 [G] in [0, 1), on the generator's device."""


@dataclass(frozen=True, kw_only=True)
class UniformTimes:
    """Independent uniform draws."""

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """u_i ~ U[0, 1)."""
        return torch.rand(count, generator=generator, device=generator.device)


@dataclass(frozen=True, kw_only=True)
class AntitheticTimes:
    """One draw per stratum: u_i = (u + i / count) mod 1, dealt to the groups in random order.

    Every batch covers [0, 1) evenly, which lowers the variance of the loss (MDLM, arXiv 2406.07524). The
    order is random since in batch order neighbours, such as an answer and its padding, would always get
    nearly the same time.
    """

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """One value in each of `count` equal strata of the circle, shuffled."""
        offset = torch.rand(1, generator=generator, device=generator.device)
        stratum = torch.randperm(count, generator=generator, device=generator.device)
        return (offset + stratum / max(count, 1)) % 1.0


@dataclass(frozen=True, kw_only=True)
class LogitNormalTimes:
    """u = 1 / (1 + exp(-z)), z ~ N(`mean`, `std`^2): mostly in the middle (Esser et al., arXiv 2403.03206).

    Raises:
        ConfigError: the mean is not finite, or the deviation not positive.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean):
            raise ConfigError(f"mean {self.mean} must be a finite number")
        if not 0.0 < self.std < math.inf:
            raise ConfigError(f"std {self.std} must be a positive number; 1 is usual")

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Independent draws."""
        normal = torch.randn(count, generator=generator, device=generator.device)
        # Far out the sigmoid rounds to 1, which is no progress value.
        return (self.mean + self.std * normal).sigmoid().clamp(max=_BELOW_ONE)


@dataclass(frozen=True, kw_only=True)
class ClippedTimes:
    """u = low + (high - low) v, v ~ `times`: no group is masked hardly at all, or whole (BD3-LM, arXiv 2503.09573).

    Raises:
        ConfigError: not 0 <= low < high <= 1.
    """

    times: Times
    low: float = 0.05
    high: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.low < self.high <= 1.0:
            raise ConfigError(f"low {self.low} and high {self.high} must satisfy 0 <= low < high <= 1")

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """The inner draws, moved into the interval."""
        inner = self.times.sample(count, generator)
        return (self.low + (self.high - self.low) * inner).clamp(max=_BELOW_ONE)
