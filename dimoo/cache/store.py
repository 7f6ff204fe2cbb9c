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

    def values(self, layer: int, positions: Tensor) -> Tensor:
        """The values [k, H, D] of a layer at stream positions int64 [k], which have been computed before."""
        pair = self._layers[layer]
        assert pair is not None
        return pair[1][positions]

    def rearrange(self, sources: Tensor, targets: Tensor, total: int) -> None:
        """Be a stream of `total` tokens whose `targets` int64 are the old `sources`; the rest is to be written."""
        for layer, pair in enumerate(self._layers):
            if pair is not None:
                key, value = (moved(tensor, sources, targets, total) for tensor in pair)
                self._layers[layer] = (key, value)


class OutputStore:
    """What blocks added to the hidden states of canvas tokens, in numbered slots.

    The last slot is nobody's: all context tokens are written to it, and no step must ask which they are.
    """

    def __init__(self, layers: int, slots: int) -> None:
        self._layers: list[Tensor | None] = [None] * layers
        self._slots = slots

    @property
    def bytes(self) -> int:
        """What the buffers take."""
        return sum(kept.nbytes for kept in self._layers if kept is not None)

    def write(self, layer: int, slots: Tensor, added: Tensor) -> None:
        """Keep what a block added, [k, d], in slots int64 [k]."""
        kept = self._layers[layer]
        if kept is None:
            kept = self._layers[layer] = added.new_empty(self._slots, added.shape[1])
        kept.index_copy_(0, slots, added)

    def read(self, layer: int, slots: Tensor) -> Tensor:
        """What was written last, [k, d], to slots int64 [k]."""
        kept = self._layers[layer]
        assert kept is not None
        return kept[slots]

    def rearrange(self, sources: Tensor, targets: Tensor, slots: int) -> None:
        """Have so many slots, whose `targets` int64 are the old `sources`; the rest is to be written."""
        self._slots = slots
        self._layers = [kept if kept is None else moved(kept, sources, targets, slots) for kept in self._layers]


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
        self._read: list[Tensor] = []
        self._turn = 0

    @property
    def bytes(self) -> int:
        """What is kept, and on a CPU the memory that is read into."""
        return sum(kept.nbytes for kept in (*self._kept.values(), *self._read))

    def clear(self) -> None:
        """Keep nothing."""
        self._kept.clear()
        self._read.clear()

    def begin(self) -> None:
        """A step begins: what was read in the last one is no longer needed."""
        self._turn = 0

    def write(self, branch: str, offsets: Tensor, logits: Tensor) -> None:
        """Keep logits [k, C] at offsets int64 [k], below 0 those of context; what is not the spans' is left."""
        if branch not in self._kept:
            self._kept[branch] = logits.new_full((self._rows + 1, logits.shape[1]), torch.nan)
        slots = torch.where(offsets < 0, self._rows, self._slots[offsets.clamp(min=0)])
        self._kept[branch][slots] = logits

    def read(self, branches: Sequence[str], offsets: Tensor) -> Tensor:
        """Logits [branches, m, C] at offsets int64 [m], to be used before the next step begins."""
        kept, slots = [self._kept[branch] for branch in branches], self._slots[offsets]
        found = self._memory(kept, slots.numel())
        for whole, rows in zip(kept, found.unbind(0), strict=True):
            torch.index_select(whole, 0, slots, out=rows)
        return found

    def _memory(self, kept: Sequence[Tensor], rows: int) -> Tensor:
        """[branches, m, C]: on a CPU that of the steps before, as fresh pages cost more than the copy into them."""
        like, shape = kept[0], (len(kept), rows, kept[0].shape[1])
        if like.device.type != "cpu":
            return like.new_empty(shape)
        if self._turn == len(self._read):
            self._read.append(like.new_empty(0))
        count = len(kept) * rows * shape[2]
        if self._read[self._turn].numel() < count:
            self._read[self._turn] = like.new_empty(count)
        self._turn += 1
        return self._read[self._turn - 1][:count].view(shape)

    def may_see(self, offsets: Tensor) -> Tensor:
        """Whether these columns say how certain a position is, bool [k]: unless it is denoised on other columns."""
        inside = offsets.clamp(min=0)
        return (offsets < 0) | self._free[inside] | (self._slots[inside] < self._rows)


def moved(kept: Tensor, sources: Tensor, targets: Tensor, total: int) -> Tensor:
    """A tensor of `total` rows whose rows `targets` int64 [k] are the rows `sources` int64 [k] of another."""
    fresh = kept.new_empty(total, *kept.shape[1:])
    fresh[targets] = kept[sources]
    return fresh


def denoised(start: Canvas, row: int, columns: tuple[int, int]) -> Tensor:
    """The canvas positions int64 [L] of a row that are masked at first and denoised on some columns."""
    positions = torch.cat([span.positions for span in start.spans if span.row == row and span.columns == columns])
    return positions[start.masked[positions]]
