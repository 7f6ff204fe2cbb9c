"""From a configuration to a backbone."""

from __future__ import annotations

from typing_extensions import assert_never

from dimoo.backbone.attention import (
    AttentionBackend,
    AutoAttention,
    FlexAttention,
    SdpaAttention,
    VarlenAttention,
    XformersAttention,
)
from dimoo.backbone.block import Attention, Block, GatedMLP
from dimoo.backbone.config import AttentionKind, BackboneConfig
from dimoo.backbone.model import Backbone
from dimoo.backbone.norm import RMSNorm
from dimoo.backbone.rope import Rope


def build_backbone(config: BackboneConfig) -> Backbone:
    """Assemble the model on the current default device, with weights as allocated.

    Fill them with `initialise` or `load_exact`. Under `torch.device("meta")` it costs nothing.
    """
    width = config.d_model
    backend = build_attention(config.attention)
    return Backbone(
        vocab_size=config.vocab_size,
        blocks=[
            Block(
                Attention(layer, width, config.heads, config.kv_heads, backend),
                GatedMLP(width, config.mlp_hidden),
                (RMSNorm(width, config.norm_eps), RMSNorm(width, config.norm_eps)),
            )
            for layer in range(config.layers)
        ],
        norm=RMSNorm(width, config.norm_eps),
        rope=Rope(head_width=width // config.heads, theta=config.rope_theta, axes=config.rope_axes),
    )


def build_attention(kind: AttentionKind) -> AttentionBackend:
    """The attention backend of that name; whether it can run is known when it first attends."""
    match kind:
        case "auto":
            return AutoAttention()
        case "sdpa":
            return SdpaAttention()
        case "varlen":
            return VarlenAttention()
        case "flex":
            return FlexAttention()
        case "xformers":
            return XformersAttention()
        case _:
            assert_never(kind)
