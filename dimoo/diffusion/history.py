"""How the predictions of a span change from step to step.

Axes: L = positions of the span, m = those predicted at a step, C = columns, n = steps that are looked back on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class History:
    """The last predictions of a span, and how far the last n steps moved them. With n = 0 nothing is kept.

    Steps in which nothing of the span was predicted do not count.
    """

    offsets: Tensor
    """int64 [m]: what the last step predicted."""
    log_probabilities: Tensor
    """float [m, C]: as what; log softmax of the guided logits."""
    drift: Tensor
    """float [n, L]: KL(p_t || p_t-1) = sum_c p_t (log p_t - log p_t-1) in nats, the last step's first; inf where a
    position was not predicted both in a step and in the one before."""

    @classmethod
    def empty(cls, *, steps: int, length: int, device: torch.device) -> History:
        """Before the first step of a span of `length` positions, to look back on `steps` of them."""
        return cls(
            offsets=torch.empty(0, dtype=torch.int64, device=device),
            log_probabilities=torch.empty(0, 0, device=device),
            drift=torch.full((steps, length), torch.inf, device=device),
        )

    def after(self, offsets: Tensor, logits: Tensor) -> History:
        """The history with one more step, which predicted logits [m, C] at offsets int64 [m]."""
        steps, length = self.drift.shape
        if steps == 0:
            return self
        current = logits.float().log_softmax(dim=-1)
        drift = self.drift.new_full((length,), torch.inf)
        if self.offsets.numel():
            rows = torch.full((length,), -1, dtype=torch.int64, device=offsets.device)
            rows[self.offsets] = torch.arange(self.offsets.numel(), device=offsets.device)
            before = self.log_probabilities[rows[offsets].clamp(min=0)]
            drift[offsets] = torch.where(rows[offsets] >= 0, divergence(current, before), torch.inf)
        return replace(
            self, offsets=offsets, log_probabilities=current, drift=torch.cat([drift[None], self.drift[:-1]])
        )


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """KL(first || second) of log-probabilities [m, C] -> float [m], at least 0.

    A column that `first` rules out (-inf) adds nothing; one that only `second` rules out makes it infinite.
    """
    share = first.exp()
    return torch.where(share > 0, share * (first - second), 0.0).sum(dim=-1).clamp(min=0.0)
