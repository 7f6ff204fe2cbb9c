"""What worlds there are: canvases, nouns, backgrounds, how many objects."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from dimoo.core.config import StrictConfig
from dimoo.data.world.atlas import names
from dimoo.data.world.palette import PALETTE

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Pixels = Annotated[int, Field(ge=8, le=128)]


class WorldConfig(StrictConfig):
    """A distribution of scenes. All lengths are pixels; all shares and weights are of sampled scenes."""

    nouns: Annotated[int, Field(ge=1)] = 32
    """The first n nouns of the atlas; the first 32 are the most distinct."""
    canvases: tuple[tuple[int, int], ...] = ((64, 64),)
    """(height, width) of the pictures, each 32..128 and a multiple of `align`."""
    canvas_weights: tuple[Weight, ...] | None = None
    """How often each canvas is drawn, relative to the others; None: equally often."""
    align: Annotated[int, Field(ge=1, le=32)] = 8
    """Corners of objects and edges of backgrounds lie on multiples of this; best a token's side."""
    small: Pixels = 24
    """Side of a small object."""
    big: Pixels = 32
    """Side of a big object."""
    big_share: Share = 0.5
    """Share of objects that are big, where the canvas has room."""
    object_counts: tuple[Weight, Weight, Weight, Weight] = (0.4, 0.35, 0.15, 0.1)
    """How often a scene has 1, 2, 3, 4 objects, relative; a canvas leaves out what it has no room for."""
    repeat_share: Share = 0.4
    """Of the scenes with two or more objects, the share that shows one noun several times, to count."""
    colors: tuple[str, ...] = tuple(PALETTE)
    """Names of the background colours."""
    two_tone: Share = 0.2
    """Share of backgrounds in two colours, side by side or stacked; not where objects would hide one."""
    holdout: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of combinations (noun, relation, noun) and (noun, background colour) that training never sees."""

    @property
    def words(self) -> tuple[str, ...]:
        """The nouns in use."""
        return names(self.nouns)

    @property
    def sizes(self) -> dict[str, int]:
        """Size name -> side in pixels."""
        return {"small": self.small, "big": self.big}

    def grid(self, canvas: tuple[int, int], size: int) -> tuple[int, int, int]:
        """(rows, columns, pitch) of the densest regular arrangement of objects of `size` px on a canvas."""
        pitch = -(-size // self.align) * self.align
        height, width = canvas
        return (height - size) // pitch + 1, (width - size) // pitch + 1, pitch

    def capacity(self, canvas: tuple[int, int], size: int) -> int:
        """How many objects of `size` px surely fit on a (height, width) canvas."""
        rows, columns, _ = self.grid(canvas, size)
        return rows * columns

    @field_validator("nouns")
    @classmethod
    def _nouns_exist(cls, nouns: int) -> int:
        if nouns > len(names()):
            raise ValueError(f"nouns={nouns}, but the atlas has {len(names())}; use at most that many")
        return nouns

    @field_validator("colors")
    @classmethod
    def _colors_exist(cls, colors: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [color for color in colors if color not in PALETTE]
        if unknown or not colors or len(set(colors)) < len(colors):
            raise ValueError(f"colors={colors}: use one or more of {', '.join(PALETTE)}, each once")
        return colors

    @model_validator(mode="after")
    def _possible(self) -> WorldConfig:
        if self.small >= self.big:
            raise ValueError(f"small={self.small} is not below big={self.big}; make big larger")
        if self.two_tone > 0 and len(self.colors) < 2:
            raise ValueError(
                f"two_tone={self.two_tone} needs two colors, there is only {self.colors[0]!r}; set it to 0"
            )
        if not any(self.object_counts):
            raise ValueError("object_counts are all zero; give at least one a weight")
        most = max(count for count, weight in enumerate(self.object_counts, 1) if weight)
        if self.repeat_share < 1 and most > self.nouns:
            raise ValueError(f"{most} different objects cannot be drawn from nouns={self.nouns}; raise nouns")
        self._check_canvases()
        return self

    def _check_canvases(self) -> None:
        if not self.canvases:
            raise ValueError("canvases is empty; give at least one (height, width)")
        if self.canvas_weights is not None and (
            len(self.canvas_weights) != len(self.canvases) or not any(self.canvas_weights)
        ):
            raise ValueError(f"canvas_weights={self.canvas_weights} do not fit {len(self.canvases)} canvases")
        for canvas in self.canvases:
            if any(side % self.align or not 32 <= side <= 128 for side in canvas):
                raise ValueError(f"canvas {canvas}: sides must be 32..128 and multiples of align={self.align}")
            if self.two_tone > 0 and self.align in canvas:
                raise ValueError(f"canvas {canvas} has no inner edge at align={self.align}; set two_tone to 0")
            room = self.capacity(canvas, self.small)
            if not any(self.object_counts[:room]):
                raise ValueError(f"canvas {canvas} holds {room} objects of small={self.small} px, object_counts more")
