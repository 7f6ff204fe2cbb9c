"""A tokenizer that computes nothing: for looking a request through before the work on any begins."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dimoo.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class Unencoded:
    """As `tokenizer` in all but the codes: `encode` gives zeros of the right shape."""

    tokenizer: Tokenizer

    @property
    def modality(self) -> str:
        """The tokenizer's."""
        return self.tokenizer.modality

    @property
    def codebook_size(self) -> int:
        """The tokenizer's."""
        return self.tokenizer.codebook_size

    @property
    def codebooks(self) -> int:
        """The tokenizer's."""
        return self.tokenizer.codebooks

    @property
    def downsampling(self) -> tuple[int, ...]:
        """The tokenizer's."""
        return self.tokenizer.downsampling

    @property
    def fingerprint(self) -> str:
        """The tokenizer's."""
        return self.tokenizer.fingerprint

    def grid_for(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The tokenizer's, and what it raises."""
        return self.tokenizer.grid_for(size)

    def encode(self, media: Tensor) -> Tensor:
        """Media [B, channels, *size] -> int64 zeros [B, *G] or [B, *G, Q]; see `Tokenizer` for the axes."""
        books = () if self.codebooks == 1 else (self.codebooks,)
        return torch.zeros(len(media), *self.grid_for(tuple(media.shape[2:])), *books, dtype=torch.int64)

    def decode(self, codes: Tensor) -> Tensor:
        """The tokenizer's."""
        return self.tokenizer.decode(codes)
