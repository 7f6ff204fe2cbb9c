"""Torch's FlexAttention with a block mask of sequences (CUDA, any float dtype, compiled)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from dimoo.backbone.attention.base import require_cuda
from dimoo.backbone.layout import PackedLayout


@dataclass(frozen=True, kw_only=True)
class FlexAttention:
    """`torch.nn.attention.flex_attention`: tokens attend where query and key belong to the same sequence."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout) -> Tensor:
        """See `AttentionBackend.attend`."""
        require_cuda("flex", query)
        heads_first = (tensor.transpose(0, 1).unsqueeze(0) for tensor in (query, key, value))
        out: Tensor = compiled_flex()(
            *heads_first,
            block_mask=layout.derived("flex", block_mask),
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return out.squeeze(0).transpose(0, 1)


@cache
def compiled_flex() -> Callable[..., Any]:
    """The kernel; it is compiled once per process, since uncompiled it computes every masked pair."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


def block_mask(layout: PackedLayout) -> Any:
    """The `BlockMask` that joins the query and key tokens of each sequence."""
    from torch.nn.attention.flex_attention import create_block_mask

    query_of, key_of = sequence_ids(layout.query_bounds), sequence_ids(layout.key_bounds)

    def same_sequence(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        del batch, head
        return query_of[query] == key_of[key]

    return create_block_mask(same_sequence, None, None, layout.queries, layout.keys, device=layout.positions.device)


def sequence_ids(bounds: Tensor) -> Tensor:
    """The sequence index of every token, from cumulative lengths: [0, 2, 5] -> [0, 0, 1, 1, 1]."""
    lengths = bounds.diff()
    return torch.arange(len(lengths), device=bounds.device).repeat_interleave(lengths)
