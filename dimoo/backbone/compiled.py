"""Blocks compiled by `torch.compile`.

A block is compiled in two halves around attention, which is a kernel already, and whose store and layout are objects
that would be compiled anew for every layout. What is left is a function of tensors with one length that varies.

Axes: Nq = query tokens, d = model width, H = heads, D = head width, P = rotary pairs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from dimoo.backbone.block import Block, Execution
from dimoo.backbone.kv import KV
from dimoo.backbone.layout import PackedLayout
from dimoo.backbone.model import Backbone
from dimoo.backbone.rope import Rotation
from dimoo.core.errors import BackendError

Half = Callable[..., Any]
VERSIONS = 16
"""Of one half, without graphs: one token or more, with or without gradients, under autocast or not."""
LENGTHS = 64
"""For which graphs are recorded; streams of further lengths run as written."""


def before(block: Block, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Up to attention: x [Nq, d], cos and sin [Nq, 1, P] -> queries, keys, values as of `Attention.project`."""
    return block.attention.project(block.attention_norm(x), Rotation(cos=cos, sin=sin))


def after(block: Block, x: Tensor, mixed: Tensor) -> Tensor:
    """From attention on: x [Nq, d] and what `Attention.mix` gave, [Nq, H D] -> [Nq, d]."""
    x = x + block.attention.output(mixed)
    transformed: Tensor = x + block.mlp(block.mlp_norm(x))
    return transformed


@dataclass(frozen=True, kw_only=True)
class Halved:
    """An `Execution` in two halves, with the store and the attention backend as they are in between."""

    before: Half
    after: Half

    def __call__(self, block: Block, x: Tensor, rotation: Rotation, layout: PackedLayout, kv: KV) -> Tensor:
        """See `Execution`."""
        query, key, value = self.before(block, x, rotation.cos, rotation.sin)
        mixed = block.attention.mix(query, key, value, layout, kv)
        # As a view it would be compiled for the shape of what it is a view of: this is the same memory, and no view.
        out: Tensor = self.after(block, x, torch.ops.aten._unsafe_view(mixed, mixed.shape))
        return out


@dataclass(frozen=True, kw_only=True)
class Varying:
    """A half compiled for any number of tokens, and for everything else as it is."""

    half: Half

    def __call__(self, block: Block, *streams: Tensor) -> Any:
        """What the half gives; every stream has one row per token."""
        for stream in streams:
            torch._dynamo.maybe_mark_dynamic(stream, 0)
        return self.half(block, *streams)


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """A half that replays CUDA graphs, whose outputs are copied out of the memory that the next replay writes to.

    Keys and values must outlive the step in a store, and the stream is needed by both halves of the next block.
    """

    half: Half

    def __call__(self, *inputs: Any) -> Any:
        """What the half gives.

        Raises:
            BackendError: gradients are asked for; their graphs would need what the next replay overwrites.
        """
        if torch.is_grad_enabled():
            raise BackendError("compile='graphs' is for sampling; use torch.no_grad(), or compile=True to train")
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return tree_map(torch.clone, self.half(*inputs))


def compiled(backbone: Backbone, *, graphs: bool = False, backend: str | Callable[..., Any] = "inductor") -> Backbone:
    """The same weights (shared, under the same names), their blocks compiled.

    All blocks share two compiled functions, which hold for every length but 1: that is compiled apart, as are passes
    with and without gradients. Nothing is compiled before the first pass.

    Args:
        backbone: the model; it stays as it is.
        graphs: record CUDA graphs, one per half, block and length of stream: for policies with static shapes.
        backend: of `torch.compile`.

    Raises:
        BackendError: graphs are asked for, and the model is not on a CUDA device.
    """
    _require_cuda(backbone.device, graphs=graphs)
    execution = _execution(graphs=graphs, backend=backend)
    with torch.device("meta"):
        made = Backbone(
            vocab_size=backbone.vocab_size,
            blocks=[_with(cast(Block, block), execution) for block in backbone.blocks],
            norm=backbone.norm,
            rope=backbone.rope,
        )
    made.embedding, made.unembedding = backbone.embedding, backbone.unembedding
    return made.train(backbone.training)


def is_compiled(backbone: Backbone) -> bool:
    """Whether `compiled` made it."""
    return any(isinstance(block.execution, Halved) for block in backbone.blocks)


def require_compiler(device: torch.device, *, graphs: bool = False) -> None:
    """Compile next to nothing, so that what is missing is known before anything large is loaded.

    Raises:
        BackendError: graphs are asked for without CUDA, or `torch.compile` does not work for this device.
    """
    _require_cuda(device, graphs=graphs)
    try:
        torch.compile(torch.neg, fullgraph=True)(torch.ones(2, device=device))
    except RuntimeError as error:
        need = "a C++ compiler (g++, or another that CXX names)" if device.type == "cpu" else "Triton and a C compiler"
        reason = str(error).strip().splitlines()[0]
        raise BackendError(
            f"compile=True needs {need} on {device.type!r}, and a first try failed: {reason};"
            " install it, or leave compile out"
        ) from error


def _execution(*, graphs: bool, backend: str | Callable[..., Any]) -> Execution:
    if not graphs:
        made = [_compile(half, VERSIONS, backend=backend, fullgraph=True) for half in (before, after)]
        return Halved(before=Varying(half=made[0]), after=Varying(half=made[1]))
    # Not the full graph: that would make a length too many an error instead of a slower one.
    made = [_compile(half, LENGTHS, backend=backend, mode="reduce-overhead", dynamic=False) for half in (before, after)]
    return Halved(before=Replayed(half=made[0]), after=Replayed(half=made[1]))


def _compile(half: Half, limit: int, **settings: Any) -> Half:
    """Apart from what other models compile of the same function, which would count towards the limit."""
    if "isolate_recompiles" in inspect.signature(torch.compile).parameters:  # older versions have no such thing
        settings |= {"isolate_recompiles": True, "recompile_limit": limit}
    return torch.compile(half, **settings)


def _with(block: Block, execution: Execution) -> Block:
    return Block(block.attention, block.mlp, (block.attention_norm, block.mlp_norm), execution)


def _require_cuda(device: torch.device, *, graphs: bool) -> None:
    if graphs and device.type != "cuda":
        raise BackendError(
            f"compile='graphs' records CUDA graphs, and the device is {device.type!r}; use compile=True there"
        )
