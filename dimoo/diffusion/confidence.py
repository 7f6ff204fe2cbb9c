"""How sure the model is of a drawn token: higher is committed earlier.

Axes: M = masked positions of one row, C = columns the position may take. All work on a few positions at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dimoo.core.errors import ConfigError
from dimoo.diffusion.draw import gumbel
from dimoo.diffusion.inverse import widest
from dimoo.diffusion.rowwise import rowwise


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
        dtype = self.dtype if widest(logits.device) == torch.float64 else torch.float32
        return rowwise(lambda rows, drawn: _at(rows.softmax(dim=-1, dtype=dtype), drawn), logits, ids)


@dataclass(frozen=True, kw_only=True)
class Margin:
    """p(1) - p(2), the lead of the best column over the second, whichever was drawn; 1 for a lone column.

    Distinguishes "surely this" from "this or that" (Kim et al., arXiv 2502.06768).
    """

    def __call__(self, logits: Tensor, ids: Tensor, generator: torch.Generator) -> Tensor:
        """The lead of the best column."""
        del ids, generator
        return rowwise(_lead, logits)


@dataclass(frozen=True, kw_only=True)
class NegativeEntropy:
    """sum_c p_c log p_c, at most 0, whichever column was drawn."""

    def __call__(self, logits: Tensor, ids: Tensor, generator: torch.Generator) -> Tensor:
        """The negative entropy of each prediction."""
        del ids, generator
        return rowwise(_negative_entropy, logits)


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
        certainty = rowwise(lambda rows, drawn: _at(rows.to(self.noise).log_softmax(dim=-1), drawn), logits, ids)
        noise = gumbel(certainty.shape, dtype=self.noise, generator=generator, device=logits.device)
        return certainty + self.temperature * noise


def _at(values: Tensor, ids: Tensor) -> Tensor:
    return values.gather(-1, ids[:, None])[:, 0]


def _lead(logits: Tensor) -> Tensor:
    best = logits.softmax(dim=-1, dtype=torch.float32).topk(min(2, logits.shape[-1]), dim=-1).values
    return best[:, 0] - best[:, 1:].sum(dim=-1)


def _negative_entropy(logits: Tensor) -> Tensor:
    """sum_c p_c d_c - log z, where d_c = l_c - max l, z = sum_c exp d_c and p_c = exp(d_c) / z."""
    logits = logits.float()
    below = logits - logits.amax(dim=-1, keepdim=True)
    weights = below.exp()
    total = weights.sum(dim=-1)
    # A suppressed column, -inf, is to add 0 * (a number).
    products = weights.mul_(below.clamp_(min=torch.finfo(below.dtype).min))
    return products.sum(dim=-1) / total - total.log()
