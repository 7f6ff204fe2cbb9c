"""Rows (request, branch) = context + canvas, packed into one stream with an index from canvas to stream.

Axes: S = stream tokens, C = canvas tokens, m = positions of a query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dimoo.backbone.layout import PackedLayout
from dimoo.core.device import sent
from dimoo.core.errors import ConfigError
from dimoo.diffusion.canvas import Canvas


@dataclass(frozen=True, kw_only=True, eq=False)
class Branch:
    """One condition of a request: what stands in front of the canvas."""

    context: Tensor
    """int64 [c]: prompt ids, input images among them."""
    hide_given: bool = False
    """Show the canvas tokens that were given (not denoised) as masks: the text guidance of LLaDA."""


Branches = Mapping[str, Branch]
"""The branches of one request by the name that its guidance uses: "condition", "unconditional", "no_text", ..."""


Requests = Mapping[int, Branches] | Sequence[Branches]
"""The branches of the rows of a canvas, by row."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pack:
    """A stream layout for some rows; the same for every step, only the canvas ids in it change."""

    layout: PackedLayout
    template: Tensor
    """int64 [S]: context ids; the canvas slots are filled by `tokens`."""
    slots: Tensor
    """int64: stream positions that show the canvas ..."""
    sources: Tensor
    """int64: ... and the canvas position each of them shows ..."""
    hidden: Tensor
    """bool: ... or hides, by a mask."""
    offsets: Mapping[tuple[int, str], int]
    """(row, branch) -> what to add to a canvas position to get its stream position."""

    def tokens(self, canvas: Canvas) -> Tensor:
        """The stream of a canvas, int64 [S]."""
        stream = self.template.clone()
        stream[self.slots] = canvas.ids[self.sources].masked_fill(self.hidden, canvas.mask_id)
        return stream

    def rows(self, row: int, branches: Sequence[str], positions: Tensor) -> Tensor:
        """Stream positions of canvas positions in each branch of a row, int64 [branches * m], branch by branch."""
        return torch.cat([positions + self.offsets[row, branch] for branch in branches])


def pack(canvas: Canvas, requests: Requests, wanted: Sequence[tuple[int, str]]) -> Pack:
    """Lay out the wanted (row, branch) pairs of a canvas in one stream; positions count from 0 in each.

    Raises:
        ConfigError: a guidance asks for a branch that the request does not have.
    """
    device, starts = canvas.ids.device, [0]
    for length in canvas.lengths:
        starts.append(starts[-1] + length)
    pieces, slots, sources, hidden, offsets, lengths = [], [], [], [], {}, []
    cursor = 0
    for row, name in wanted:
        if name not in requests[row]:
            raise ConfigError(
                f"request {row} has no branch {name!r} for its guidance; it has {', '.join(requests[row])}"
            )
        branch = requests[row][name]
        first, length, context = starts[row], canvas.lengths[row], sent(branch.context, device)
        pieces += [context, canvas.ids.new_full((length,), canvas.mask_id)]
        source = torch.arange(first, first + length, device=device)
        given = ~canvas.masked[first : first + length]
        hidden.append(given if branch.hide_given else torch.zeros_like(given))
        offsets[row, name] = cursor + context.numel() - first
        sources.append(source)
        slots.append(source + offsets[row, name])
        lengths.append(context.numel() + length)
        cursor += lengths[-1]
    return Pack(
        layout=PackedLayout.of(tuple(lengths), device),
        template=torch.cat(pieces),
        slots=torch.cat(slots),
        sources=torch.cat(sources),
        hidden=torch.cat(hidden),
        offsets=offsets,
    )
