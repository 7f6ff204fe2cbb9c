"""How sure the model is of a drawn token: higher is committed earlier.

Axes: M = masked positions of one row, C = columns the position may take.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dimoo.core.errors import ConfigError
from dimoo.diffusion.draw import gumbel


class Confidence(Protocol):
    """Scores each position's drawn token; only the order of the scores within a row matters."""

    def __call__(self, logits: Tensor, ids: Tensor, generator: torch.Generator) -> Tensor:
        """Logits [M, C], drawn columns ids int64 [M] -> float [M]."""


@dataclass(frozen=True, kw_only=True)
class Probability:
    """softmax(logits)[drawn], computed in `dtype`; LLaDA takes float64, which MPS lacks: float32 there."""

    dtype: torch.dtype = torch.float32

    def __call__(self, logits: Tensor, ids: Tensor, generator: torch.Generator) -> Tensor:
        """The probability of each drawn column."""
        del generator
        dtype = torch.float32 if logits.device.type == "mps" else self.dtype
        return _at(logits.to(dtype).softmax(dim=-1), ids)


@dataclass(frozen=True, kw_only=True)
class Margin:
    """p(1) - p(2), the lead of the best column over the second, whichever was drawn; 1 for a lone column.

    Distinguishes "surely this" from "this or that" (Kim et al., arXiv 2502.06768).
    """

    def __call__(self, logits: Tensor, ids: Tensor, generator: torch.Generator) -> Tensor:
        """The lead of the best column."""
        del ids, generator
        best = logits.float().softmax(dim=-1).topk(min(2, logits.shape[-1]), dim=-1).values
        return best[:, 0] - best[:, 1:].sum(dim=-1)


@dataclass(frozen=True, kw_only=True)
class NegativeEntropy:
    """sum_c p_c log p_c, at most 0, whichever column was drawn."""

    def __call__(self, logits: Tensor, ids: Tensor, generator: torch.Generator) -> Tensor:
        """The negative entropy of each prediction."""
        del ids, generator
        entropy: Tensor = torch.special.entr(logits.float().softmax(dim=-1)).sum(dim=-1)
        return -entropy


@dataclass(frozen=True, kw_only=True)
class GumbelConfidence:
    """log p(drawn) + temperature * g, g standard Gumbel: MaskGIT's random choice of what to commit.

    Softmax, logarithm and noise are in the dtype `noise` (the noise trap of `draw.Categorical` holds here
    too: bfloat16 reproduces the release, float32 is correct). At temperature 0 nothing is drawn and the score
    is `Probability`, which has the same order.

    Raises:
        ConfigError: a setting is out of range.
    """

    temperature: float = 1.0
    noise: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < math.inf:
            raise ConfigError(f"confidence temperature {self.temperature} must be 0 (no noise) or a positive number")
        if not self.noise.is_floating_point:
            raise ConfigError(f"noise {self.noise} must be a floating dtype such as float32")

    def __call__(self, logits: Tensor, ids: Tensor, generator: torch.Generator) -> Tensor:
        """The noisy log-probability of each drawn column."""
        if self.temperature == 0.0:
            return Probability(dtype=self.noise)(logits, ids, generator)
        certainty = _at(logits.to(self.noise).log_softmax(dim=-1), ids)
        noise = gumbel(certainty.shape, dtype=self.noise, generator=generator, device=logits.device)
        return certainty + self.temperature * noise


def _at(values: Tensor, ids: Tensor) -> Tensor:
    return values.gather(-1, ids[:, None])[:, 0]
