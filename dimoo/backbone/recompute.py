"""Training in less memory: what a block made on the way forward is made again on the way back.

Kept between the passes of a block: with "none" all that its gradients need, with "all" its input alone (Chen et al.,
arXiv 1604.06174), and with "selective" what matrix products and attention gave, whose making costs most (Korthikanti et
al., arXiv 2205.05198).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts, noop_context_fn
from typing_extensions import assert_never

from dimoo.backbone.block import Block, Execution
from dimoo.backbone.config import Recompute
from dimoo.backbone.kv import KV
from dimoo.backbone.layout import PackedLayout
from dimoo.backbone.model import Backbone
from dimoo.backbone.rope import Rotation

EXPENSIVE = [
    torch.ops.aten.mm.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
]
"""Operations whose results "selective" keeps; kernels outside of torch's own are computed again."""


@dataclass(frozen=True, kw_only=True)
class Recomputed:
    """An `Execution` that keeps of another one what its `contexts` say, and computes the rest again for gradients."""

    inner: Execution
    contexts: Callable[[], Any] = noop_context_fn

    def __call__(self, block: Block, x: Tensor, rotation: Rotation, layout: PackedLayout, kv: KV) -> Tensor:
        """See `Execution`."""
        if not torch.is_grad_enabled():
            return self.inner(block, x, rotation, layout, kv)
        out: Tensor = checkpoint(
            self.inner,
            block,
            x,
            rotation,
            layout,
            kv,
            use_reentrant=False,
            preserve_rng_state=False,  # a block draws nothing
            context_fn=self.contexts,
        )
        return out


def recomputed(backbone: Backbone, kind: Recompute) -> Backbone:
    """Have the blocks of a model computed so, and return it; the store must be the null one, as in training."""
    for block in (cast(Block, block) for block in backbone.blocks):
        match kind:
            case "none":
                pass
            case "all":
                block.execution = Recomputed(inner=block.execution)
            case "selective":
                contexts = partial(create_selective_checkpoint_contexts, EXPENSIVE)
                block.execution = Recomputed(inner=block.execution, contexts=contexts)
            case _:
                assert_never(kind)
    return backbone
