"""What every task of the world draws from, and what it yields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dimoo.core.errors import ConfigError
from dimoo.data.example import TaskExample
from dimoo.data.world.config import WorldConfig
from dimoo.data.world.dice import below, pick
from dimoo.data.world.holdout import unseen_colors, unseen_relations
from dimoo.data.world.sample import Canvas, Split, sample_scene
from dimoo.data.world.scene import Scene

TRIES = 2000
"""Draws of a task before it counts as impossible."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskCase:
    """A task with its answer and the truth behind them."""

    kind: str
    """What scores are kept by, as "edit_add"."""
    example: TaskExample
    before: Scene | None
    """The first picture of the request, or what its words describe; None where it brings no scene."""
    scene: Scene | None
    """The answer's picture, before a style, a map or a view is made of it; None where the answer is words alone."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Scenes of one split, for one task."""

    config: WorldConfig
    rng: np.random.Generator
    split: Split
    canvas: Canvas | None
    """The one canvas to use; None: drawn by the config's weights."""

    def scene(self, *, objects: int | None = None) -> Scene:
        """A scene of the split; with a number of objects they are different, and the canvas has room for them."""
        repeat = None if objects is None else False
        canvas = self.roomy(objects or 1)
        return sample_scene(self.config, self.rng, self.split, objects=objects, repeat=repeat, canvas=canvas)

    def plain(self, *, objects: int, colors: tuple[str, ...] | None = None) -> Scene:
        """A scene of the split with different objects on one colour, of these or of all that the world has."""
        flat = self.config.model_copy(update={"two_tone": 0.0, "colors": colors or self.config.colors})
        canvas = self.roomy(objects)
        return sample_scene(flat, self.rng, self.split, objects=objects, repeat=False, canvas=canvas)

    def roomy(self, objects: int) -> Canvas:
        """A canvas with room for that many objects.

        Raises:
            ConfigError: the config has none.
        """
        config = self.config
        if self.canvas is not None:
            return self.canvas
        weights = [
            weight * (config.capacity(canvas, config.small) >= objects)
            for canvas, weight in zip(
                config.canvases, config.canvas_weights or [1.0] * len(config.canvases), strict=True
            )
        ]
        if not any(weights):
            raise ConfigError(f"no canvas of {config.canvases} has room for {objects} objects; add a larger one")
        return config.canvases[pick(self.rng, weights)]

    def allows(self, scene: Scene) -> bool:
        """Whether a scene that was changed after drawing may be shown in this split.

        That of "train" contains no held-out combination, that of "heldout" at least one.
        """
        share = self.config.holdout
        return self.split == "any" or (self.split == "heldout") == (
            unseen_colors(scene, share) or unseen_relations(scene, share)
        )

    def one_in(self, bound: int) -> bool:
        """True once in `bound` times."""
        return below(self.rng, bound) == 0

    def impossible(self, what: str) -> ConfigError:
        """The error for what was not found in `TRIES` draws."""
        where = "" if self.canvas is None else f" on canvas {self.canvas}"
        return ConfigError(
            f"found no {what!r} for split {self.split!r}{where} in {TRIES} draws; allow larger canvases, more objects,"
            " nouns or colors"
        )
