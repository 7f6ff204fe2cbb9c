"""Torch's scaled dot product attention, batched over sequences of equal length: no mask, runs everywhere.

Axes: as in `base`; B = sequences of one group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from dimoo.backbone.layout import PackedLayout


@dataclass(frozen=True, kw_only=True)
class SdpaAttention:
    """One call per group of sequences with equal (query, key) lengths.

    The stream is split at its runs of equal length, which are views, and only groups of several runs are
    concatenated: nothing at all is copied when all sequences are equally long. On CPU 16-bit inputs are
    computed in fp32, whose backward kernel is several times faster there.
    """

    def attend(self, query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout) -> Tensor:
        """See `AttentionBackend.attend`."""
        if query.device.type != "cpu" or query.dtype in (torch.float32, torch.float64):
            return _grouped(query, key, value, layout)
        with torch.autocast("cpu", enabled=False):
            return _grouped(query.float(), key.float(), value.float(), layout).to(query.dtype)


def _grouped(query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout) -> Tensor:
    queries = torch.split(query, [run.queries for run in layout.runs])
    keys = torch.split(key, [run.keys for run in layout.runs])
    values = torch.split(value, [run.keys for run in layout.runs])
    outputs: dict[int, Tensor] = {}
    for group in layout.groups:
        run = layout.runs[group[0]]
        out = _rectangle(
            torch.unflatten(_join([queries[index] for index in group]), 0, (-1, run.query_length)),
            torch.unflatten(_join([keys[index] for index in group]), 0, (-1, run.key_length)),
            torch.unflatten(_join([values[index] for index in group]), 0, (-1, run.key_length)),
        )
        parts = torch.split(out.flatten(0, 1), [layout.runs[index].queries for index in group])
        outputs.update(zip(group, parts, strict=True))
    return _join([outputs[index] for index in range(len(outputs))])


def _rectangle(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of equally long sequences: [B, Lq, H, D] over [B, Lk, Hkv, D] -> [B, Lq, H, D]."""
    out: Tensor = scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        enable_gqa=query.shape[2] != key.shape[2],
    )
    return out.transpose(1, 2)


def _join(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
