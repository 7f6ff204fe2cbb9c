"""From logits to token ids.

Axes: M = masked positions of one row, C = columns the position may take. Noise is drawn on the generator's
device and moved, so a CPU generator draws the same noise whatever the logits' device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dimoo.core.device import sent
from dimoo.core.errors import ConfigError
from dimoo.diffusion.inverse import invert, invert_ranked, widest
from dimoo.diffusion.rowwise import rowwise


class Draw(Protocol):
    """Chooses one column per position."""

    def __call__(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Logits [M, C] -> columns, int64 [M]."""


@dataclass(frozen=True, kw_only=True)
class Greedy:
    """The most likely column; the lowest index wins a tie. Draws nothing."""

    def __call__(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """The argmax."""
        del generator
        return logits.argmax(dim=-1)


@dataclass(frozen=True, kw_only=True)
class Categorical:
    """A sample of softmax(logits / temperature), from one uniform number per position.

    `top_k` keeps exactly that many columns, also under ties. `top_p` then keeps the smallest set of most
    likely columns whose probability (after temperature and top-k) reaches it. In both the lowest index wins a
    tie.

    The noise trap: the released sampler draws by Gumbel-max, argmax(logits / temperature + g) with
    g = -log(-log u) for every column, in the logits' dtype. In bfloat16 the largest u below 1 is 1 - 2^-8, which
    caps g near 5.5: unlikely columns can never win, and "temperature 1" is really a sampler with its tail cut
    off. `noise` bfloat16 reproduces that: noise and scores are rounded to it; other dtypes do the same with
    their own caps. float32, the honest default, gives wilder samples: it is the distribution itself, by inverting
    its cumulative sum (`dimoo.diffusion.inverse`), which needs no noise for the columns.

    Raises:
        ConfigError: a setting is out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    noise: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if self.temperature == 0.0:
            raise ConfigError("temperature 0 leaves nothing to draw: use Greedy (kind 'greedy') instead of Categorical")
        if not 0.0 < self.temperature < math.inf:
            raise ConfigError(f"temperature {self.temperature} must be a positive number")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k {self.top_k} must be at least 1, or None to keep all columns")
        if self.top_p is not None and not 0.0 < self.top_p < 1.0:
            raise ConfigError(f"top_p {self.top_p} must lie strictly between 0 and 1, or be None to keep all columns")
        if not self.noise.is_floating_point:
            raise ConfigError(f"noise {self.noise} must be a floating dtype such as float32")

    def __call__(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Filter, then draw."""
        if self.noise != torch.float32:
            return rowwise(lambda rows: self._by_noise(rows, generator), logits)
        source = generator.device
        uniform = torch.rand(len(logits), dtype=widest(source), generator=generator, device=source)
        return rowwise(self._by_inversion, logits, sent(uniform, logits.device, widest(logits.device)))

    def _by_inversion(self, logits: Tensor, uniform: Tensor) -> Tensor:
        scores, columns = self._scores(logits), logits.shape[-1]
        kept = columns if self.top_k is None else min(self.top_k, columns)
        if kept == columns and self.top_p is None:
            return invert(scores.softmax(dim=-1), uniform)
        return invert_ranked(scores, uniform, top_k=kept, top_p=self.top_p)

    def _by_noise(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        # Filtered before the rounding to the noise dtype, which would make ties of what are none.
        scores = self._scores(logits)
        if self.top_k is not None:
            scores = keep_top_k(scores, self.top_k)
        if self.top_p is not None:
            scores = keep_top_p(scores, self.top_p)
        noise = gumbel(scores.shape, dtype=self.noise, generator=generator, device=scores.device)
        return (scores.to(self.noise) + noise).argmax(dim=-1)

    def _scores(self, logits: Tensor) -> Tensor:
        scores = logits.to(torch.promote_types(self.noise, torch.float32))
        return scores if self.temperature == 1.0 else scores / self.temperature


def gumbel(shape: torch.Size, *, dtype: torch.dtype, generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard Gumbel noise -log(-log u), u uniform, every operation in `dtype`; always finite."""
    least = torch.finfo(dtype).tiny
    uniform = sent(torch.rand(shape, dtype=dtype, generator=generator, device=generator.device), device)
    return -(-uniform.clamp(min=least).log()).clamp(min=least).log()


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Logits [M, C] with all but exactly k, the largest of each row, at -inf; low indices win ties."""
    if k >= logits.shape[-1]:
        return logits
    least = logits.topk(k, dim=-1).values[:, -1:]
    above, tied = logits > least, logits == least
    room = k - above.sum(dim=-1, keepdim=True)
    kept = above | (tied & (tied.cumsum(dim=-1) <= room))
    return logits.masked_fill(~kept, -math.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Logits [M, C] with all but the smallest most likely set of probability >= p at -inf; never empty."""
    ordered, index = logits.sort(dim=-1, descending=True, stable=True)
    probability = ordered.softmax(dim=-1)
    before = probability.cumsum(dim=-1) - probability
    kept = torch.empty_like(before, dtype=torch.bool).scatter_(-1, index, before < p)
    return logits.masked_fill(~kept, -math.inf)
