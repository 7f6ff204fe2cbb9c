"""Which segments lie in the stored stream, and where: rows come and leave while a canvas is denoised.

Axes: S = tokens of the stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from typing_extensions import Self

from dimoo.core.device import sent
from dimoo.denoise.pack import Branches, Pack, pack
from dimoo.diffusion.canvas import Canvas
from dimoo.diffusion.sampler import Query

Name = tuple[int, str]
"""(row, branch): names a segment, the context and then the canvas of one branch of one row."""


def wanted_by(queries: Sequence[Query]) -> tuple[Name, ...]:
    """The segments that some queries ask for, in their order."""
    return tuple(dict.fromkeys((query.row, name) for query in queries for name in query.branches))


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrangement:
    """Some segments, one after the other."""

    names: tuple[Name, ...]
    packed: Pack
    contexts: Mapping[Name, int]
    """How many tokens of each segment are its context."""

    @classmethod
    def of(cls, start: Canvas, requests: Mapping[int, Branches], names: tuple[Name, ...]) -> Self:
        """Lay out segments; `start` is the canvas before the first step.

        Raises:
            ConfigError: a guidance asks for a branch that the request does not have.
        """
        packed = pack(start, requests, names)
        contexts = {(row, branch): requests[row][branch].context.numel() for row, branch in names}
        return cls(names=names, packed=packed, contexts=contexts)

    @property
    def total(self) -> int:
        """S"""
        return self.packed.layout.keys

    @cached_property
    def ranges(self) -> Mapping[Name, tuple[int, int]]:
        """Where each segment (start, stop) lies in the stream."""
        bounds = [0, *accumulate(self.packed.layout.key_lengths)]
        return dict(zip(self.names, pairwise(bounds), strict=True))

    @property
    def canvases(self) -> int:
        """How many tokens are not context."""
        return self.total - sum(self.contexts.values())

    @cached_property
    def slots(self) -> Tensor:
        """int64 [S]: canvas tokens are numbered from 0 on; context tokens all have the number that follows."""
        device = self.packed.template.device
        canvas = torch.cat(
            [
                torch.arange(stop - start, device=device) >= self.contexts[name]
                for name, (start, stop) in self.ranges.items()
            ]
        )
        return torch.where(canvas, canvas.cumsum(0) - 1, self.canvases)

    def shared(self, before: Arrangement) -> tuple[Tensor, Tensor]:
        """Stream positions of the segments that were there before: int64 [k] there, and int64 [k] here."""
        kept = [name for name in self.names if name in before.ranges]
        device = self.packed.template.device
        old, new = (
            sent(torch.cat([torch.arange(0), *(torch.arange(*ranges[name]) for name in kept)]), device)
            for ranges in (before.ranges, self.ranges)
        )
        return old, new
