"""Code grids <-> token sequences: rows of codes with an end-of-line token after each.

Axes: G = the code grid (1 axis for sound, 2 for images, 3 for video), Q = codebooks per position.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from dimoo.core.errors import DataError


@dataclass(frozen=True, kw_only=True)
class GridLayout:
    """How a grid of codes of one modality lies in the sequence.

    A 1-axis grid is laid out as it is. With 2 or 3 axes every row (the last axis) is followed by `end_of_line`, so
    that one RoPE axis suffices for any height and width (SPEC: arbitrary resolution). Several codebooks of a
    position stand side by side, codebook q taking the ids `start + q * codebook_size ...`.
    """

    grid: tuple[int, ...]
    start: int
    """First id of the modality's range."""
    codebook_size: int
    end_of_line: int
    codebooks: int = 1

    def __post_init__(self) -> None:
        if not 1 <= len(self.grid) <= 3 or min(self.grid) < 1:
            raise DataError(f"a code grid has 1 to 3 axes of at least 1 position, not {self.grid}")

    @property
    def length(self) -> int:
        """Tokens that the grid takes, end-of-lines included."""
        return self.books().numel()

    def columns(self, book: int) -> tuple[int, int]:
        """The ids (start, stop) of one codebook."""
        start = self.start + book * self.codebook_size
        return start, start + self.codebook_size

    def books(self) -> Tensor:
        """int64 [length]: the codebook 0..Q-1 of each position, -1 where `end_of_line` stands."""
        rows = torch.arange(self.codebooks).repeat(prod(self.grid[:-1]), self.grid[-1])
        if len(self.grid) > 1:
            rows = torch.cat([rows, rows.new_full((len(rows), 1), -1)], dim=1)
        return rows.flatten()

    def is_code(self) -> Tensor:
        """bool [length]: which positions hold codes; the others hold `end_of_line`."""
        return self.books() >= 0

    def to_sequence(self, codes: Tensor) -> Tensor:
        """Codes int64 [*G] (or [*G, Q]) -> ids int64 [length].

        Raises:
            DataError: the codes do not have the grid's shape or leave the codebook.
        """
        shape = self.grid if self.codebooks == 1 else (*self.grid, self.codebooks)
        if tuple(codes.shape) != shape:
            raise DataError(f"codes of shape {tuple(codes.shape)} do not fit the grid {shape}")
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.codebook_size:
            raise DataError(
                f"codes must lie in 0..{self.codebook_size - 1}, found {int(codes.min())}..{int(codes.max())}"
            )
        books = self.books()
        ids = torch.full_like(books, self.end_of_line)
        ids[books >= 0] = codes.flatten().cpu() + self.start + books[books >= 0] * self.codebook_size
        return ids

    def to_codes(self, ids: Tensor, *, unknown: int | None = None) -> Tensor:
        """The inverse of `to_sequence`: ids int64 [length] -> codes int64 [*G] (or [*G, Q]).

        Positions that hold the id `unknown`, if one is given, become -1.

        Raises:
            DataError: the sequence has another length, or a position holds no code of this range.
        """
        if tuple(ids.shape) != (self.length,):
            raise DataError(f"a grid of {self.grid} takes {self.length} tokens, not {tuple(ids.shape)}")
        books = self.books()
        codes = ids.cpu()[books >= 0] - self.start - books[books >= 0] * self.codebook_size
        if unknown is not None:
            codes = torch.where(ids.cpu()[books >= 0] == unknown, -1, codes)
        lowest = 0 if unknown is None else -1
        if not bool(((codes >= lowest) & (codes < self.codebook_size)).all()):
            raise DataError("the sequence still holds tokens that are no codes of this modality")
        return codes.reshape(self.grid if self.codebooks == 1 else (*self.grid, self.codebooks))
