"""Nearest code by squared distance, and a few Lloyd iterations: the arithmetic of learned codebooks.

Axes: N = vectors, K = codes, C = channels.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F

_ROWS = 16384  # rows per block of the N x K score matrix, which bounds memory for large pictures


def nearest_codes(vectors: Tensor, codebook: Tensor) -> Tensor:
    """The code k that minimises |v - e_k|^2 = |v|^2 - 2 v.e_k + |e_k|^2; ties to the lowest k.

    One matrix product in fp32, also under autocast: half precision would flip codes.

    Args:
        vectors: [N, C].
        codebook: [K, C].

    Returns:
        int64 [N].
    """
    kind = vectors.device.type  # the meta device knows no autocast, so there is none to switch off
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        table = codebook.detach().float()
        half_norms = table.square().sum(dim=1) / 2
        blocks = torch.split(vectors.detach().float(), _ROWS)
        return torch.cat([torch.addmm(half_norms, rows, table.T, alpha=-1).argmin(dim=1) for rows in blocks])


def gather_sums(vectors: Tensor, codes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Per code, how many vectors chose it [K] and their sum [K, C], both fp32."""
    counts = torch.bincount(codes, minlength=size).float()
    sums = torch.zeros(size, vectors.shape[1], device=vectors.device)
    return counts, sums.index_add_(0, codes, vectors.float())


def random_rows(vectors: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` rows of [N, C] drawn without replacement, or with it where N is too small."""
    size = len(vectors)
    if count <= size:
        picks = torch.randperm(size, generator=generator, device=generator.device)[:count]
    else:
        picks = torch.randint(size, (count,), generator=generator, device=generator.device)
    return vectors[picks.to(vectors.device)]


def k_means(vectors: Tensor, size: int, generator: torch.Generator, iterations: int = 10) -> Tensor:
    """Random rows refined by Lloyd's iterations; a centre that loses all its vectors is drawn anew.

    Returns:
        centres fp32 [size, C].
    """
    centres = random_rows(vectors, size, generator).float()
    for _ in range(iterations):
        counts, sums = gather_sums(vectors, nearest_codes(vectors, centres), size)
        fresh = random_rows(vectors, size, generator).float()
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], fresh)
    return centres


def to_rows(latents: Tensor) -> Tensor:
    """Latents [B, C, h, w] -> vectors [B*h*w, C]."""
    return latents.permute(0, 2, 3, 1).flatten(0, 2)


def embed(codes: Tensor, codebook: Tensor) -> Tensor:
    """Codes [B, h, w] -> their rows of the codebook, [B, C, h, w]."""
    return F.embedding(codes, codebook).permute(0, 3, 1, 2).contiguous()
