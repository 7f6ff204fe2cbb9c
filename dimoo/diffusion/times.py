"""How training draws the progress u of each group of tokens that is corrupted together.

Axes: G = groups (a caption, an image, an answer, its padding...).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Times(Protocol):
    """Draws progress values, each of them uniform on [0, 1) taken alone."""

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
