"""Draws by inverting the cumulative distribution: one uniform number a row, exact to the last unlikely column.

Axes: M = rows, C = columns, K = chunks of `CHUNK` columns (the last may be shorter).
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 128


def widest(device: torch.device) -> torch.dtype:
    """The widest float of a device: float64, which MPS lacks."""
    return torch.float32 if device.type == "mps" else torch.float64


def invert(weights: Tensor, uniform: Tensor) -> Tensor:
    """The column c with w_0 + ... + w_{c-1} <= u (w_0 + ... + w_{C-1}) < w_0 + ... + w_c: drawn with its share of w.

    Two levels, first the chunk, then a column of it, each cumulated in float64. What float32 rounds is the sum of a
    chunk, in proportion to that sum; cumulated over the row in float32, columns below 6e-8 would be lost or doubled.
    A column of weight 0 is never drawn, whatever u.

    Args:
        weights: [M, C], none negative, some positive in every row.
        uniform: [M], u in [0, 1).

    Returns:
        int64 [M]; 0 for a row that has weights that are not numbers, as the softmax of logits that are all -inf.
    """
    wide = widest(weights.device)
    # u times the last end is below that end only where u is below 1 by more than its rounding.
    most = 1 - torch.finfo(wide).eps
    uniform = uniform.to(wide).clamp(max=most)[:, None]
    sums = _chunk_sums(weights)
    ends = sums.cumsum(dim=-1, dtype=wide)
    target = uniform * ends[:, -1:]
    chunk = (ends <= target).sum(dim=-1, keepdim=True)
    own = sums.gather(-1, chunk)
    share = ((target - ends.gather(-1, chunk) + own) / own).clamp(min=0, max=most)

    columns = chunk * CHUNK + torch.arange(CHUNK, device=weights.device)
    beyond = columns >= weights.shape[-1]
    inside = weights.gather(-1, columns.masked_fill(beyond, 0)).masked_fill(beyond, 0).cumsum(dim=-1, dtype=wide)
    return chunk[:, 0] * CHUNK + (inside <= share * inside[:, -1:]).sum(dim=-1)


def invert_ranked(scores: Tensor, uniform: Tensor, *, top_k: int, top_p: float | None) -> Tensor:
    """Draws from the softmax of the best columns only, the lowest index first among equal scores.

    A rank is drawn, then its column is looked up: nothing is sorted back, and only ties need the row again.

    Args:
        scores: [M, C].
        uniform: [M], u in [0, 1).
        top_k: keep the columns of this many ranks, at most C.
        top_p: of these, the fewest first ranks that together are this probable; None: all.

    Returns:
        int64 [M].
    """
    ordered = scores.topk(top_k, dim=-1).values
    shares = ordered.softmax(dim=-1)
    if top_p is not None:
        shares = shares.masked_fill(shares.cumsum(dim=-1) - shares >= top_p, 0)
    rank = invert(shares, uniform)[:, None]
    score = ordered.gather(-1, rank)
    # torch.topk promises no order among equal scores: the column is the n-th of those that have the score.
    nth = (rank - (ordered > score).sum(dim=-1, keepdim=True))[:, 0]
    equal = (scores == score).float()
    return invert(equal, (nth.to(widest(scores.device)) + 0.5) / equal.sum(dim=-1))


def _chunk_sums(weights: Tensor) -> Tensor:
    """[M, C] -> [M, K]."""
    chunks, rest = divmod(weights.shape[-1], CHUNK)
    sums = weights[:, : chunks * CHUNK].view(len(weights), chunks, CHUNK).sum(dim=-1)
    return torch.cat([sums, weights[:, chunks * CHUNK :].sum(dim=-1, keepdim=True)], dim=-1) if rest else sums
