"""The xformers block-diagonal kernel (CUDA, optional dependency)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dimoo.backbone.attention.base import not_installed, require_cuda
from dimoo.backbone.layout import PackedLayout


@dataclass(frozen=True, kw_only=True)
class XformersAttention:
    """`xformers.ops.memory_efficient_attention` with a block-diagonal bias."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout) -> Tensor:
        """See `AttentionBackend.attend`."""
        require_cuda("xformers", query)
        try:
            from xformers.ops import memory_efficient_attention
        except ImportError as error:
            raise not_installed("xformers", "xformers", "pip install 'dimoo[xformers]'") from error
        # The backward kernels take no grouped heads, so shared key/value heads are repeated.
        share = query.shape[1] // key.shape[1]
        if share > 1:
            key, value = key.repeat_interleave(share, dim=1), value.repeat_interleave(share, dim=1)
        out: Tensor = memory_efficient_attention(
            query.unsqueeze(0),
            key.unsqueeze(0),
            value.unsqueeze(0),
            attn_bias=layout.derived("xformers", block_diagonal),
        )
        return out.squeeze(0)


def block_diagonal(layout: PackedLayout) -> Any:
    """The `BlockDiagonalMask` of the layout's sequences."""
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask

    return BlockDiagonalMask.from_seqlens(
        q_seqlen=list(layout.query_lengths),
        kv_seqlen=list(layout.key_lengths),
        device=layout.positions.device,
    )
