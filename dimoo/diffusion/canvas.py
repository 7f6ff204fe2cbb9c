"""The canvas: the answer tokens of every request in one flat stream, some given, some masked.

Axes: C = canvas tokens of all rows, R = rows (requests), L = positions of one span, V = ids of a span's range.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dimoo.core.errors import ConfigError
from dimoo.diffusion.confidence import Confidence
from dimoo.diffusion.draw import Draw
from dimoo.diffusion.guidance import Guidance
from dimoo.diffusion.orders import Order, Particular
from dimoo.diffusion.remasking import NoRemasking, Remasking
from dimoo.diffusion.stopping import Stopping


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one span is denoised: every part is a strategy of its own.

    Raises:
        ConfigError: the order cannot read the confidence, or the remasking does not go with the order.
    """

    steps: int
    """Of the order; remasking may add rounds."""
    order: Order
    draw: Draw
    confidence: Confidence
    guidance: Guidance
    stopping: Stopping
    remasking: Remasking = field(default_factory=NoRemasking)

    def __post_init__(self) -> None:
        if isinstance(self.order, Particular):
            self.order.suits(self.confidence)
        self.remasking.validate(self.order)

    @property
    def most_steps(self) -> int:
        """The order's steps and the rounds of the remasking."""
        return self.steps + self.remasking.rounds


@dataclass(frozen=True, kw_only=True, eq=False)
class Span:
    """Positions of one row that are denoised by one plan; joint text and image are two spans of one row."""

    row: int
    positions: Tensor
    """int64 [L]: where the span's positions lie in the canvas, in reading order; some of them may be given."""
    columns: tuple[int, int]
    """The ids (start, stop) that these positions may take: the head computes only these."""
    plan: Plan
    forbidden: tuple[int, ...] = ()
    """Ids inside `columns` that are never drawn, as the mask itself."""
    fill: int = 0
    """What positions get that are still masked when the plan's stopping rule ends the span early."""

    def __post_init__(self) -> None:
        self.plan.order.validate(self.positions.numel(), self.plan.steps)

    def may_draw(self, index: int) -> bool:
        """Whether an id can be drawn at the span's positions."""
        return self.columns[0] <= index < self.columns[1] and index not in self.forbidden


@dataclass(frozen=True, kw_only=True, eq=False)
class Canvas:
    """State of the answer tokens of all rows. Immutable: `commit` returns a new canvas."""

    ids: Tensor
    """int64 [C]"""
    masked: Tensor
    """bool [C]"""
    lengths: tuple[int, ...]
    """Canvas tokens of each row, in order; they sum to C."""
    spans: tuple[Span, ...]
    mask_id: int

    @classmethod
    def start(cls, *, ids: Tensor, lengths: tuple[int, ...], spans: tuple[Span, ...], mask_id: int) -> Canvas:
        """The canvas before the first step: exactly the positions that hold `mask_id` are masked.

        Raises:
            ConfigError: lengths do not sum to the ids, or a masked position belongs to no span or to two.
        """
        if sum(lengths) != ids.numel():
            raise ConfigError(f"row lengths {lengths} do not sum to the {ids.numel()} canvas tokens")
        masked = ids == mask_id
        owners = torch.zeros_like(ids)
        for span in spans:
            owners[span.positions] += 1
        if bool((owners[masked] != 1).any()):
            raise ConfigError("every masked canvas position must belong to exactly one span")
        return cls(ids=ids.clone(), masked=masked, lengths=lengths, spans=spans, mask_id=mask_id)

    def commit(self, positions: Tensor, ids: Tensor) -> Canvas:
        """A new canvas with `ids` [k] written at `positions` [k]. A written mask id leaves its position masked."""
        new_ids, new_masked = self.ids.clone(), self.masked.clone()
        new_ids[positions] = ids
        new_masked[positions] = ids == self.mask_id
        return replace(self, ids=new_ids, masked=new_masked)

    def mask(self, positions: Tensor) -> Canvas:
        """A new canvas with the positions [r] masked again."""
        return self.commit(positions, torch.full_like(positions, self.mask_id)) if positions.numel() else self

    def row(self, index: int) -> Tensor:
        """ids of one row, int64 [its length]."""
        offset = sum(self.lengths[:index])
        return self.ids[offset : offset + self.lengths[index]]
