"""What the denoiser, the objective and `Dimoo` need of a network.

Axes: N = tokens of the stream, d = hidden width, M = rows asked of the head, C = columns asked of it.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from dimoo.backbone.layout import PackedLayout


class MaskPredictor(Protocol):
    """Token stream -> hidden states -> logits of the rows and columns asked for.

    `dimoo.backbone.model.Backbone` is one, `dimoo.backbone.adapter.PaddedEncoder` makes one of a padded encoder, and
    any module of your own with these members is one.
    """

    @property
    def device(self) -> torch.device:
        """Where it computes; streams are made there."""

    @property
    def vocab_size(self) -> int:
        """How many ids it takes in and predicts."""

    def __call__(self, tokens: Tensor, layout: PackedLayout) -> Tensor:
        """Tokens int64 [N] -> hidden states [N, d]; sequences of the layout do not see each other."""

    def head(self, hidden_rows: Tensor, columns: slice | None = None) -> Tensor:
        """Hidden rows [M, d] -> logits [M, C] of the ids in `columns` (None: all)."""
