"""The fastest packed attention that a device and installation have."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from dimoo.backbone.attention.base import AttentionBackend
from dimoo.backbone.attention.sdpa import SdpaAttention
from dimoo.backbone.attention.varlen import VarlenAttention
from dimoo.backbone.attention.xformers import XformersAttention
from dimoo.backbone.layout import PackedLayout


@dataclass(frozen=True, kw_only=True)
class AutoAttention:
    """SDPA off CUDA and for fp32; for 16 bits on CUDA varlen flash, else xformers, else SDPA.

    Chosen per call from the tensors, since a model may be moved or run under autocast after it was built.
    """

    def attend(self, query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout) -> Tensor:
        """See `AttentionBackend.attend`."""
        return fastest(query.device, query.dtype).attend(query, key, value, layout)


@cache
def fastest(device: torch.device, dtype: torch.dtype) -> AttentionBackend:
    """The backend that `AutoAttention` takes for tensors of this device and dtype."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return SdpaAttention()
    if has_varlen(device):
        return VarlenAttention()
    if find_spec("xformers") is not None:
        return XformersAttention()
    return SdpaAttention()


def has_varlen(device: torch.device) -> bool:
    """Whether torch is new enough, built with flash attention, and the GPU is Ampere or later."""
    return (
        find_spec("torch.nn.attention.varlen") is not None
        and torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )
