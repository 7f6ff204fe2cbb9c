"""What a step of the similarity cache carries through the layers, and how much of it a layer computes.

Axes: n = tokens that are carried, of all segments, k = those of them that a layer computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import Self

from dimoo.backbone.layout import PackedLayout
from dimoo.backbone.rope import Rotation
from dimoo.cache.segments import Name
from dimoo.core.device import sent


@dataclass(frozen=True, kw_only=True)
class Part:
    """A segment's share of a step."""

    start: int
    """The first stream position that is carried: of the context where that is computed, else of the canvas."""
    stop: int
    canvas: int
    """Canvas tokens; they come last."""
    whole: bool
    """Whether all of the canvas is computed in every layer."""

    @property
    def length(self) -> int:
        """How many tokens are carried."""
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """How many tokens of each segment a layer computes, where that is not all."""

    segment: Tensor
    """int64 [n]: which segment a token belongs to."""
    places: Tensor
    """int64 [k]: which of n tokens to take that are sorted by segment, then by urgency."""
    layout: PackedLayout
    """Of the k. It has no positions of use: those differ from layer to layer, so rotations are picked one by one."""

    @classmethod
    def of(cls, segment: Tensor, bounds: Sequence[int], counts: Sequence[int], keys: tuple[int, ...]) -> Self:
        """Take `counts` of the segments that begin at `bounds`, over all their keys."""
        pieces = [torch.arange(bound, bound + count) for bound, count in zip(bounds, counts, strict=True)]
        places = sent(torch.cat(pieces), segment.device)
        layout = PackedLayout(positions=torch.zeros_like(places), query_lengths=tuple(counts), key_lengths=keys)
        return cls(segment=segment, places=places, layout=layout)

    def most(self, urgency: Tensor) -> Tensor:
        """Which tokens to compute, int64 [k]: the most urgent [n] of each segment, the first of equals."""
        order = urgency.sort(descending=True, stable=True).indices
        return order[self.segment[order].sort(stable=True).indices][self.places]


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """What one step carries through the layers."""

    live: Tensor
    """int64 [n]: stream positions, ascending: all canvases, and the contexts whose turn it is."""
    slots: Tensor
    """int64 [n]: where the blocks' additions to them are stored."""
    forced: Tensor
    """bool [n]: computed whatever their values say."""
    first: Mapping[Name, int]
    """Of each segment, which of the n is the first canvas token."""
    rotation: Rotation
    layout: PackedLayout
    """Of all n."""
    choice: Choice | None
    """What the layers after the first compute of them; None: all."""
