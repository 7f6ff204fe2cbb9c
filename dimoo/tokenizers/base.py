"""The interface of every modality tokenizer: media <-> a grid of discrete codes.

Axes: B = batch, G = the code grid (1 axis for sound, 2 for images, 3 for video), Q = codebooks per position.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Tokenizer(Protocol):
    """Turns media of one modality into codes and back.

    `decode` need not be the inverse of `encode`: a slow generative decoder fits. With several codebooks per
    position (`codebooks > 1`) the codes carry a last axis Q; with one they do not.
    """

    @property
    def modality(self) -> str:
        """The name of the id range that the codes take in the vocabulary, as "image"."""

    @property
    def codebook_size(self) -> int:
        """How many values one code may take."""

    @property
    def codebooks(self) -> int:
        """How many codes stand at one grid position."""

    @property
    def downsampling(self) -> tuple[int, ...]:
        """Media samples per code along each grid axis, as (16, 16) pixels or (320,) sound samples."""

    @property
    def fingerprint(self) -> str:
        """A digest of the architecture and weights, stored with data and checkpoints that depend on them."""

    def grid_for(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The code grid of media of this size.

        Raises:
            RequestError: the size is not a multiple of `downsampling`; names the nearest size that is.
        """

    def encode(self, media: Tensor) -> Tensor:
        """Media (images: float [B, 3, H, W] in [0, 1]) -> codes, int64 [B, *G] or [B, *G, Q]."""

    def decode(self, codes: Tensor) -> Tensor:
        """Codes, int64 [B, *G] or [B, *G, Q] -> media, in the range that `encode` takes."""
