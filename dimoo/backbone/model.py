"""The bidirectional transformer of LLaDA (arXiv 2502.09992) and Lumina-DiMOO (arXiv 2510.06308), packed.

No padding, no mask, no causal order: one stream of tokens with the boundaries of its sequences. Pre-norm
blocks with RMSNorm, rotary positions and a gated MLP; no biases; the head is not tied to the embedding. Keys
and values come from an argument, so a module holds weights and nothing else.

Axes: Nq = query tokens of all sequences, d = model width, M = rows asked of the head, C = vocabulary columns.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from dimoo.backbone.block import Block, Linear
from dimoo.backbone.kv import KV, NO_KV
from dimoo.backbone.layout import PackedLayout
from dimoo.backbone.norm import RMSNorm
from dimoo.backbone.rope import Rope
from dimoo.core.errors import BackendError


class Embedding(nn.Embedding):
    """`nn.Embedding` without a hidden draw: `initialise` or a checkpoint gives the values."""

    def reset_parameters(self) -> None:
        """Leave the weight as allocated."""


class Backbone(nn.Module):
    """Token stream -> hidden states -> logits of the rows and columns asked for.

    Weights are as allocated (arbitrary) until `initialise` or a checkpoint fills them; under
    `torch.device("meta")` nothing is allocated.
    """

    def __init__(self, *, vocab_size: int, blocks: Iterable[Block], norm: RMSNorm, rope: Rope) -> None:
        super().__init__()
        width = norm.weight.shape[0]
        self.rope = rope
        self.embedding = Embedding(vocab_size, width)
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.unembedding = Linear(width, vocab_size)

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding, columns of the full logits."""
        return self.embedding.num_embeddings

    @property
    def width(self) -> int:
        """d, the width of the hidden states."""
        return self.embedding.embedding_dim

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.weight.device

    def forward(self, tokens: Tensor, layout: PackedLayout, kv: KV = NO_KV) -> Tensor:
        """Tokens int64 [Nq] -> hidden states [Nq, d], after the final norm."""
        return self.encode(self.embed(tokens), layout, kv)

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens int64 [Nq] -> embeddings [Nq, d]."""
        vectors: Tensor = self.embedding(tokens)
        return vectors

    def encode(self, embeddings: Tensor, layout: PackedLayout, kv: KV = NO_KV) -> Tensor:
        """Embeddings [Nq, d] -> hidden states [Nq, d]: for inputs that are not (only) tokens.

        Raises:
            BackendError: the stream is not as long as the layout.
        """
        if embeddings.shape[0] != layout.queries:
            raise BackendError(
                f"the stream has {embeddings.shape[0]} tokens, its layout {layout.queries}; "
                "pass the layout that the stream was packed with"
            )
        rotation = self.rope.rotation(layout.positions)
        hidden = embeddings
        for block in self.blocks:
            hidden = block(hidden, rotation, layout, kv)
        normed: Tensor = self.norm(hidden)
        return normed

    def head(self, hidden_rows: Tensor, columns: slice | None = None) -> Tensor:
        """Hidden rows [M, d] -> logits [M, C] of the ids in `columns` (None: all), and no other."""
        weight = self.unembedding.weight
        # A slice of everything would cost a copy of the table in the backward pass.
        whole = columns is None or columns.indices(len(weight)) == (0, len(weight), 1)
        return linear(hidden_rows, weight if whole else weight[columns])
