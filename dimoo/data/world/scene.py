"""A scene: the one source of truth from which pictures, captions, questions and scores follow."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

Relation = Literal["left of", "right of", "above", "below"]
OPPOSITE: dict[Relation, Relation] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}

OUTER, INNER = 0.35, 0.09
"""A centre is clearly left up to OUTER of the width, and clearly central within INNER of the middle."""


@dataclass(frozen=True, kw_only=True)
class Entity:
    """One object: a noun drawn in the square of `size_px` pixels whose top left corner is (x, y)."""

    noun: str
    size_name: str
    size_px: int
    x: int
    y: int

    @property
    def center(self) -> tuple[float, float]:
        """(x, y) of the middle, in pixels."""
        return self.x + self.size_px / 2, self.y + self.size_px / 2

    def overlaps(self, other: Entity) -> bool:
        """Whether the two squares share a pixel."""
        return (
            self.x < other.x + other.size_px
            and other.x < self.x + self.size_px
            and self.y < other.y + other.size_px
            and other.y < self.y + self.size_px
        )


@dataclass(frozen=True, kw_only=True)
class Background:
    """One colour, or two with a straight edge between them.

    `axis` "x" puts the first colour left of the column `edge` and the second right of it, "y" the first above
    the row `edge` and the second below.
    """

    colors: tuple[str, ...]
    axis: Literal["x", "y"] = "x"
    edge: int = 0

    def areas(self, height: int, width: int) -> list[tuple[str, slice, slice]]:
        """(colour, rows, columns) of each part of a picture."""
        everywhere = slice(0, height), slice(0, width)
        if len(self.colors) == 1:
            return [(self.colors[0], *everywhere)]
        if self.axis == "x":
            halves = [(slice(0, height), slice(0, self.edge)), (slice(0, height), slice(self.edge, width))]
        else:
            halves = [(slice(0, self.edge), slice(0, width)), (slice(self.edge, height), slice(0, width))]
        return [(color, *half) for color, half in zip(self.colors, halves, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Objects that do not overlap, on a background; `height` and `width` in pixels."""

    height: int
    width: int
    background: Background
    entities: tuple[Entity, ...]

    def counts(self) -> Counter[str]:
        """Noun -> how often it appears, in the order of appearance."""
        return Counter(entity.noun for entity in self.entities)


def relation(a: Entity, b: Entity) -> Relation | None:
    """Where `a` is as seen from `b`, or None where that is not clear.

    Clear means: the squares are apart along one axis, and the centres differ more along it than along the
    other.
    """
    dx, dy = b.center[0] - a.center[0], b.center[1] - a.center[1]
    apart = (a.size_px + b.size_px) / 2
    if abs(dx) > abs(dy) and abs(dx) >= apart:
        return "left of" if dx > 0 else "right of"
    if abs(dy) > abs(dx) and abs(dy) >= apart:
        return "above" if dy > 0 else "below"
    return None


def region(entity: Entity, scene: Scene) -> str | None:
    """The cell of a 3x3 grid: "top left", "top", ..., "centre"; None near a border of cells."""
    x, y = entity.center
    column = _third(x / scene.width, "left", "right")
    row = _third(y / scene.height, "top", "bottom")
    if column is None or row is None:
        return None
    return f"{row} {column}".strip() or "centre"


def _third(share: float, low: str, high: str) -> str | None:
    if share <= OUTER:
        return low
    if share >= 1 - OUTER:
        return high
    return "" if abs(share - 0.5) <= INNER else None
