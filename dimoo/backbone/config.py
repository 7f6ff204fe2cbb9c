"""The backbone's configuration. Free of torch."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator
from typing_extensions import Self

from dimoo.core.config import StrictConfig

Target = Literal[
    "attention.query", "attention.key", "attention.value", "attention.output", "mlp.gate", "mlp.up", "mlp.output"
]
"""The linear layers of a block."""
Recompute = Literal["none", "selective", "all"]
AttentionKind = Literal["auto", "sdpa", "varlen", "flex", "xformers"]
QuantizeKind = Literal["int8", "fp8"]
"""How the weights of the blocks are kept, where they are not kept as they are: see `dimoo.backbone.quantized`."""
Count = Annotated[int, Field(gt=0, le=2**24)]
"""Bounded, so that a damaged config is refused rather than built."""


class BackboneConfig(StrictConfig):
    """The shape of the bidirectional transformer; the released Lumina-DiMOO is 4096/32/32/32/12288/134548."""

    d_model: Count
    """Width of the residual stream."""
    layers: int = Field(gt=0, le=1024)
    """Number of blocks."""
    heads: Count
    """Query heads; `d_model / heads` is the width of a head and must be even."""
    kv_heads: Count
    """Key and value heads, each shared by `heads / kv_heads` query heads."""
    mlp_hidden: Count
    """Inner width of the gated MLP."""
    vocab_size: Count
    """Rows of the embedding and of the head: the size of the one id space."""
    rope_theta: float = Field(default=500000.0, gt=1)
    """Base of the rotary frequencies."""
    rope_axes: tuple[Count, ...] = Field(default=(1,), min_length=1)
    """Proportions in which position axes share the rotary pairs of a head: (1,) is plain 1-D, (2, 1, 1) gives
    half of them to the first axis (time) and a quarter each to rows and columns."""
    norm_eps: float = Field(default=1e-5, gt=0)
    """Added to the mean square in RMSNorm."""
    attention: AttentionKind = "auto"
    """The packed attention kernel; `auto` takes the fastest that the device and installation have."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.d_model % self.heads or (self.d_model // self.heads) % 2:
            raise ValueError(
                f"d_model {self.d_model} over {self.heads} heads gives no even head width; "
                f"use a multiple of {2 * self.heads}"
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} does not divide heads {self.heads}")
        pairs = self.d_model // self.heads // 2
        if pairs % sum(self.rope_axes):
            raise ValueError(
                f"rope_axes {self.rope_axes} must add up to a divisor of the {pairs} rotary pairs of a head"
            )
        return self


class LoRAConfig(StrictConfig):
    """Low-rank adapters on a frozen network: see `dimoo.backbone.lora`."""

    rank: int = Field(default=16, gt=0, le=2**16)
    """r: rows of A and columns of B."""
    alpha: float = Field(default=32.0, gt=0)
    """What an adapter gives is scaled by alpha / rank."""
    targets: tuple[Target, ...] = Field(default=get_args(Target), min_length=1)
    """Which layers of every block are adapted."""
    modules_to_save: tuple[Literal["embedding", "unembedding"], ...] = ()
    """Modules that are trained whole beside the adapters, as new ids need it."""

    @model_validator(mode="after")
    def _once(self) -> Self:
        for name in ("targets", "modules_to_save"):
            if len(set(entries := getattr(self, name))) < len(entries):
                raise ValueError(f"{name} {entries} names one twice; name each once")
        return self
