"""Any padded encoder as a backbone.

Axes: N = tokens of the stream, S = sequences, L = the longest of them, d = hidden width, M = rows, C =
columns.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from dimoo.backbone.kv import KV, NO_KV, NoKV
from dimoo.backbone.layout import PackedLayout
from dimoo.core.errors import BackendError


class PaddedEncoder(nn.Module):
    """Wraps a module `(ids [S, L], mask bool [S, L]) -> hidden [S, L, d]`, a Hugging Face encoder say.

    The stream is unpacked to a right-padded rectangle and packed again. It gains nothing from packing, and
    has no cache: a store other than `NoKV`, or positions other than 0, 1, ... in each sequence, are refused.
    That batched equals single is up to the encoder: it must honour its mask.

    Args:
        encoder: the module; True in its mask is a token.
        unembedding: the head's weight, of shape [V, d].
        pad: the id that fills the rectangle.
    """

    def __init__(self, encoder: nn.Module, *, unembedding: nn.Parameter, pad: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.unembedding = unembedding
        self.pad = pad

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.unembedding.device

    @property
    def vocab_size(self) -> int:
        """Columns of the full logits."""
        return len(self.unembedding)

    def forward(self, tokens: Tensor, layout: PackedLayout, kv: KV = NO_KV) -> Tensor:
        """Tokens int64 [N] -> hidden states [N, d].

        Raises:
            BackendError: a store was given, or the layout is not of whole sequences at positions 0, 1, ...
        """
        if not isinstance(kv, NoKV) or not layout.derived("whole", _is_whole):
            raise BackendError(
                f"a padded encoder computes whole sequences and has no cache, but {type(kv).__name__} was "
                f"given for {layout.queries} of {layout.keys} tokens; use NoCache, or dimoo's own backbone"
            )
        mask = layout.derived("padding", _padding)
        ids = tokens.new_full(mask.shape, self.pad)
        ids[mask] = tokens
        hidden: Tensor = self.encoder(ids, mask)
        return hidden[mask]

    def head(self, hidden_rows: Tensor, columns: slice | None = None) -> Tensor:
        """Hidden rows [M, d] -> logits [M, C] of the ids in `columns` (None: all)."""
        return linear(hidden_rows, self.unembedding if columns is None else self.unembedding[columns])


def _is_whole(layout: PackedLayout) -> bool:
    usual = PackedLayout.of(layout.key_lengths, layout.positions.device).positions
    return layout.query_lengths == layout.key_lengths and torch.equal(layout.positions, usual)


def _padding(layout: PackedLayout) -> Tensor:
    """Where the tokens stand in the rectangle: bool [S, L]."""
    lengths = layout.query_bounds.diff().unsqueeze(1)
    return torch.arange(max(layout.query_lengths), device=lengths.device) < lengths
