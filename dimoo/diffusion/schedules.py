"""How large a share of the tokens is masked as denoising goes on.

Progress u runs from 0 (everything masked) to 1 (clean) everywhere in dimoo; the t of papers that count noise
is 1 - u. A schedule is the masked share m(u): m(0) = 1, m(1) = 0, never increasing. Training turns a random
u into a share to corrupt, sampling turns a step into a count of tokens that stay masked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dimoo.core.errors import ConfigError

_HALF_A_DRAW = 2.0**-25
"""Draws of float32 are multiples of 2^-24, so 0 stands for an interval; its middle."""


class Schedule(Protocol):
    """The masked share m(u) and its derivative; both work element by element on floats of any shape."""

    def share(self, u: Tensor) -> Tensor:
        """m(u) in [0, 1], in the dtype and shape of u."""

    def derivative(self, u: Tensor) -> Tensor:
        """dm/du, at most 0, in the dtype and shape of u."""


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """m(u) = cos(pi u / 2): few tokens first, many at the end (MaskGIT, arXiv 2202.04200)."""

    def share(self, u: Tensor) -> Tensor:
        """cos(pi u / 2)."""
        # The cosine of the rounded pi/2 is a hair below zero in float32: a share is never negative.
        return torch.cos(0.5 * math.pi * u).clamp(min=0.0)

    def derivative(self, u: Tensor) -> Tensor:
        """-(pi/2) sin(pi u / 2)."""
        return -0.5 * math.pi * torch.sin(0.5 * math.pi * u)


@dataclass(frozen=True, kw_only=True)
class Linear:
    """m(u) = 1 - u: the same number of tokens at every step (LLaDA, arXiv 2502.09992)."""

    def share(self, u: Tensor) -> Tensor:
        """1 - u."""
        return 1.0 - u

    def derivative(self, u: Tensor) -> Tensor:
        """-1."""
        return torch.full_like(u, -1.0)


@dataclass(frozen=True, kw_only=True)
class Power:
    """m(u) = 1 - u^p: p = 2 and 3 are MaskGIT's square and cubic, p = 1/2 its square root, p = 1 is linear.

    Below p = 1 the slope grows without bound towards u = 0.

    Raises:
        ConfigError: the exponent is not a positive number.
    """

    exponent: float

    def __post_init__(self) -> None:
        if not (0.0 < self.exponent < math.inf):
            raise ConfigError(f"power schedule: exponent {self.exponent} must be above 0 (2 for the square schedule)")

    def share(self, u: Tensor) -> Tensor:
        """1 - u^p."""
        return 1.0 - u**self.exponent

    def derivative(self, u: Tensor) -> Tensor:
        """-p u^(p - 1); at 0, where that is infinite below p = 1, what it is at 2^-25."""
        if self.exponent < 1.0:
            u = u.clamp(min=_HALF_A_DRAW)
        return -self.exponent * u ** (self.exponent - 1.0)


@dataclass(frozen=True, kw_only=True)
class Arccos:
    """m(u) = arccos(u) / (pi/2): drops fastest at the end (Halton-MaskGIT, arXiv 2503.17076).

    The slope at u = 1 is infinite.
    """

    def share(self, u: Tensor) -> Tensor:
        """arccos(u) / (pi/2)."""
        return torch.acos(u) / (0.5 * math.pi)

    def derivative(self, u: Tensor) -> Tensor:
        """-(2/pi) / sqrt(1 - u^2)."""
        return -(2.0 / math.pi) / torch.sqrt(1.0 - u**2)


def remaining(schedule: Schedule, total: int, step: int, steps: int) -> int:
    """How many of `total` tokens the schedule leaves masked after the 0-based `step` of `steps`.

    floor(total * m((step + 1) / steps)), and 0 from the last step on. Product and share are float32 by
    contract: where the share is exactly representable (cos at u = 2/3 is one half) float64 rounds to the
    other side and the count differs by one from that of the released sampler.
    """
    if step + 1 >= steps:
        return 0
    share = schedule.share(torch.tensor([(step + 1) / steps], dtype=torch.float32))
    return int((torch.tensor(float(total), dtype=torch.float32) * share).floor())
