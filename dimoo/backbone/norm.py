"""Root-mean-square normalisation (Zhang & Sennrich 2019, arXiv 1910.07467)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class RMSNorm(nn.Module):
    """y = w * x / sqrt(mean(x^2) + eps), [..., d] -> [..., d].

    The quotient is computed in fp32 and cast back before the weight is applied: the order of the released
    checkpoint, which matters in 16 bits.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        return self.weight * functional.rms_norm(x.float(), self.weight.shape, eps=self.eps).to(x.dtype)
