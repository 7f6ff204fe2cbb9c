"""Where keys, values and logits are kept between steps.

Axes: S = tokens of the stored stream, Nq = tokens computed now, H = key/value heads, D = head width, L = positions of a
row that are denoised on some columns, C = those columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dimoo.diffusion.canvas import Canvas


class KeyValueStore:
    """The rotated keys and the values of a stream, per layer; a `dimoo.backbone.kv.KV`.

    Buffers are the tensors of the last step that computed everything: they are written to in place, and made anew only
    when sequences come or leave.
    """

    def __init__(self, layers: int) -> None:
        self._layers: list[tuple[Tensor, Tensor] | None] = [None] * layers
        self._index: Tensor | None = None

    @property
    def bytes(self) -> int:
        """What the buffers take."""
        return sum(tensor.nbytes for pair in self._layers if pair is not None for tensor in pair)

    def writing(self, index: Tensor | None) -> KeyValueStore:
        """The store, about to be given the keys and values of these stream positions, int64 [Nq]; None: of all."""
        self._index = index
        return self

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write fresh rows [Nq, H, D], read all [S, H, D]; see `KV.extend`."""
        pair = self._layers[layer]
        if self._index is None or pair is None:
            self._layers[layer] = pair = (key, value)
        else:
            pair[0].index_copy_(0, self._index, key)
            pair[1].index_copy_(0, self._index, value)
        return pair

    def rearrange(self, sources: Tensor, targets: Tensor, total: int) -> None:
        """Be a stream of `total` tokens whose `targets` int64 are the old `sources`; the rest is to be written."""
        for layer, pair in enumerate(self._layers):
            if pair is not None:
                fresh = tuple(tensor.new_empty(total, *tensor.shape[1:]) for tensor in pair)
                for new, old in zip(fresh, pair, strict=True):
                    new[targets] = old[sources]
                self._layers[layer] = (fresh[0], fresh[1])


class LogitStore:
    """The logits of one row's positions on one range of columns, per branch. Offsets count from the row's first."""

    def __init__(self, start: Canvas, row: int, columns: tuple[int, int]) -> None:
        """Args:
        start: the canvas before the first step.
        row: the row.
        columns: the range (start, stop) of the spans that are kept.
        """
        positions = denoised(start, row, columns)
        first, self._rows = sum(start.lengths[:row]), positions.numel()
        self._free = ~start.masked[first : first + start.lengths[row]]
        # Offsets that are not the spans' share a last row, which nobody reads: so no step must ask which they are.
        self._slots = torch.full((start.lengths[row],), self._rows, dtype=torch.int64, device=positions.device)
        self._slots[positions - first] = torch.arange(self._rows, device=positions.device)
        self._kept: dict[str, Tensor] = {}

    @property
    def bytes(self) -> int:
        """What is kept."""
        return sum(kept.nbytes for kept in self._kept.values())

    def write(self, branch: str, offsets: Tensor, logits: Tensor) -> None:
        """Keep logits [k, C] at offsets int64 [k], below 0 those of context; what is not the spans' is left."""
        if branch not in self._kept:
            self._kept[branch] = logits.new_zeros(self._rows + 1, logits.shape[1])
        slots = torch.where(offsets < 0, self._rows, self._slots[offsets.clamp(min=0)])
        self._kept[branch][slots] = logits

    def read(self, branches: Sequence[str], offsets: Tensor) -> Tensor:
        """Logits [branches, m, C] at offsets int64 [m]."""
        slots = self._slots[offsets]
        return torch.stack([self._kept[branch][slots] for branch in branches])

    def may_see(self, offsets: Tensor) -> Tensor:
        """Whether these columns say how certain a position is, bool [k]: unless it is denoised on other columns."""
        inside = offsets.clamp(min=0)
        return (offsets < 0) | self._free[inside] | (self._slots[inside] < self._rows)


def denoised(start: Canvas, row: int, columns: tuple[int, int]) -> Tensor:
    """The canvas positions int64 [L] of a row that are masked at first and denoised on some columns."""
    positions = torch.cat([span.positions for span in start.spans if span.row == row and span.columns == columns])
    return positions[start.masked[positions]]
