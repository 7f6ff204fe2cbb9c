"""Packed attention: one call, several kernels."""

from dimoo.backbone.attention.base import AttentionBackend
from dimoo.backbone.attention.choose import AutoAttention
from dimoo.backbone.attention.flex import FlexAttention
from dimoo.backbone.attention.sdpa import SdpaAttention
from dimoo.backbone.attention.varlen import VarlenAttention
from dimoo.backbone.attention.xformers import XformersAttention

__all__ = [
    "AttentionBackend",
    "AutoAttention",
    "FlexAttention",
    "SdpaAttention",
    "VarlenAttention",
    "XformersAttention",
]
