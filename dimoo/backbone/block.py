"""One transformer block: pre-norm attention and gated MLP, no biases, as in LLaDA (arXiv 2502.09992).

Axes: Nq = query tokens, Nk = key tokens, d = model width, H = heads, D = head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn
from torch.nn.functional import silu

from dimoo.backbone.attention import AttentionBackend
from dimoo.backbone.kv import KV
from dimoo.backbone.layout import PackedLayout
from dimoo.backbone.norm import RMSNorm
from dimoo.backbone.rope import Rotation
from dimoo.core.errors import BackendError


class Linear(nn.Linear):
    """`nn.Linear` without bias and without a hidden draw: `initialise` or a checkpoint gives the values."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def reset_parameters(self) -> None:
        """Leave the weight as allocated."""


class Attention(nn.Module):
    """Bidirectional attention within each packed sequence, with rotated queries and keys."""

    def __init__(self, layer: int, width: int, heads: int, kv_heads: int, backend: AttentionBackend) -> None:
        super().__init__()
        self.layer = layer
        self.head_width = width // heads
        self.backend = backend
        self.query = Linear(width, heads * self.head_width)
        self.key = Linear(width, kv_heads * self.head_width)
        self.value = Linear(width, kv_heads * self.head_width)
        self.output = Linear(heads * self.head_width, width)

    def project(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """[Nq, d] -> rotated queries [Nq, H, D], rotated keys and values [Nq, Hkv, D]."""
        shape = (-1, self.head_width)
        query = rotation.apply(self.query(x).unflatten(-1, shape))
        key = rotation.apply(self.key(x).unflatten(-1, shape))
        return query, key, self.value(x).unflatten(-1, shape)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, kv: KV) -> Tensor:
        """What `project` gave, exchanged for all that is attended to, and attended: [Nq, H D].

        Raises:
            BackendError: the store gave another number of keys than the layout has.
        """
        key, value = kv.extend(self.layer, key, value)
        if key.shape[0] != layout.keys or value.shape[0] != layout.keys:
            raise BackendError(
                f"{type(kv).__name__} gave {key.shape[0]} keys and {value.shape[0]} values to block "
                f"{self.layer}, but the layout has {layout.keys}; pass the store that belongs to this layout"
            )
        return self.backend.attend(query, key, value, layout).flatten(1)

    def forward(self, x: Tensor, rotation: Rotation, layout: PackedLayout, kv: KV) -> Tensor:
        """[Nq, d] -> [Nq, d]; errors as those of `mix`."""
        out: Tensor = self.output(self.mix(*self.project(x, rotation), layout, kv))
        return out


class GatedMLP(nn.Module):
    """out(silu(gate(x)) * up(x)), [Nq, d] -> [Nq, d]  (SwiGLU, Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = Linear(width, hidden)
        self.up = Linear(width, hidden)
        self.output = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to every token."""
        out: Tensor = self.output(silu(self.gate(x)) * self.up(x))
        return out


class Execution(Protocol):
    """How a block is computed; what it computes is the same."""

    def __call__(self, block: Block, x: Tensor, rotation: Rotation, layout: PackedLayout, kv: KV) -> Tensor:
        """x + attention(norm(x)), then x + mlp(norm(x)): [Nq, d] -> [Nq, d]."""


@dataclass(frozen=True)
class Eager:
    """The null execution: module by module, as written."""

    def __call__(self, block: Block, x: Tensor, rotation: Rotation, layout: PackedLayout, kv: KV) -> Tensor:
        """See `Execution`."""
        x = x + block.attention(block.attention_norm(x), rotation, layout, kv)
        transformed: Tensor = x + block.mlp(block.mlp_norm(x))
        return transformed


EAGER = Eager()


class Block(nn.Module):
    """Pre-norm attention, then a pre-norm gated MLP, each added to the stream: [Nq, d] -> [Nq, d]."""

    def __init__(
        self, attention: Attention, mlp: GatedMLP, norms: tuple[RMSNorm, RMSNorm], execution: Execution = EAGER
    ) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = norms
        self.attention = attention
        self.mlp = mlp
        self.execution = execution

    def forward(self, x: Tensor, rotation: Rotation, layout: PackedLayout, kv: KV) -> Tensor:
        """Transform the stream once."""
        return self.execution(self, x, rotation, layout, kv)
