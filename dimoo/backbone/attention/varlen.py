"""Torch's variable-length flash attention (CUDA, 16 bit): packed sequences are its native input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from dimoo.backbone.attention.base import not_installed, require_cuda
from dimoo.backbone.layout import PackedLayout
from dimoo.core.errors import BackendError


@dataclass(frozen=True, kw_only=True)
class VarlenAttention:
    """`torch.nn.attention.varlen.varlen_attn` on cumulative lengths."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout) -> Tensor:
        """See `AttentionBackend.attend`."""
        require_cuda("varlen", query)
        if query.dtype not in (torch.bfloat16, torch.float16):
            raise BackendError(
                f"attention='varlen' computes in bf16 or fp16, not {query.dtype}; use autocast or attention='auto'"
            )
        try:
            from torch.nn.attention.varlen import varlen_attn
        except ImportError as error:
            raise not_installed("varlen", "torch.nn.attention.varlen", "install a newer torch") from error
        # Older versions have no such argument, and need none where the heads are equal in number.
        grouped: dict[str, Any] = {} if query.shape[1] == key.shape[1] else {"enable_gqa": True}
        out = varlen_attn(
            query,
            key,
            value,
            layout.query_bounds,
            layout.key_bounds,
            max(layout.query_lengths),
            max(layout.key_lengths),
            **grouped,
        )
        return cast(Tensor, out)
