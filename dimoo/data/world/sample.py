"""Drawing scenes at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from dimoo.core.errors import ConfigError
from dimoo.data.world.config import WorldConfig
from dimoo.data.world.dice import below, distinct, pick
from dimoo.data.world.holdout import unseen_colors, unseen_relations
from dimoo.data.world.scene import Background, Entity, Scene

Split = Literal["train", "heldout", "any"]
Canvas = tuple[int, int]

MOST = 4
TRIES = 20_000
PLACINGS = 40


def sample_scene(
    config: WorldConfig,
    rng: np.random.Generator,
    split: Split = "train",
    *,
    objects: int | None = None,
    repeat: bool | None = None,
    canvas: Canvas | None = None,
) -> Scene:
    """Draw a scene.

    Scenes of "train" contain no held-out combination. Scenes of "heldout" contain at least one: a held-out
    relation where there are different objects, a held-out background colour where there is one noun only.
    "any" is not filtered.

    Args:
        config: what to draw from.
        rng: the only source of randomness.
        split: which part of all scenes to draw from.
        objects: this many objects instead of a number drawn from `config.object_counts`.
        repeat: True: one noun, False: different nouns, None: as `config.repeat_share` says.
        canvas: this one of `config.canvases` instead of one drawn by `config.canvas_weights`.

    Raises:
        ConfigError: the split is empty for this config, or the objects asked for do not fit the canvas.
    """
    if split == "heldout" and not config.holdout:
        raise ConfigError("split 'heldout' is empty because holdout=0; set holdout above 0")
    # Drawn before scenes are filtered, so that filtering does not change how often they occur.
    if canvas is None:
        canvas = config.canvases[pick(rng, config.canvas_weights or [1.0] * len(config.canvases))]
    elif canvas not in config.canvases:
        raise ConfigError(f"canvas {canvas} is not one of canvases={config.canvases}; add it there")
    objects = _count(config, rng, canvas, objects)
    repeat = objects == 1 or (rng.random() < config.repeat_share if repeat is None else repeat)
    if not repeat and objects > config.nouns:
        raise ConfigError(f"{objects} different objects cannot be drawn from nouns={config.nouns}; raise nouns")
    for _ in range(TRIES):
        scene = _draw_scene(config, rng, canvas, objects, repeat)
        if split == "any" or (split == "heldout") == _unseen(scene, config.holdout, split):
            return scene
    raise ConfigError(
        f"found no scene of split {split!r} with {objects} objects in {TRIES} draws (nouns={config.nouns}, "
        f"{len(config.colors)} colors, holdout={config.holdout}); use more nouns or another holdout"
    )


def _unseen(scene: Scene, share: float, split: Split) -> bool:
    if split == "train":
        return unseen_colors(scene, share) or unseen_relations(scene, share)
    if len(scene.counts()) == 1:
        return unseen_colors(scene, share)
    return unseen_relations(scene, share)


def _count(config: WorldConfig, rng: np.random.Generator, canvas: Canvas, objects: int | None) -> int:
    room = config.capacity(canvas, config.small)
    count = 1 + pick(rng, config.object_counts[:room]) if objects is None else objects
    if not 1 <= count <= min(room, MOST):
        raise ConfigError(f"{count} objects do not fit canvas {canvas}; ask for 1 to {min(room, MOST)}")
    return count


def _draw_scene(config: WorldConfig, rng: np.random.Generator, canvas: Canvas, objects: int, repeat: bool) -> Scene:
    words = config.words
    nouns = [words[below(rng, len(words))]] * objects if repeat else distinct(rng, words, objects)
    background = _draw_background(config, rng, canvas)
    entities = _place(config, rng, canvas, nouns)
    if not shows(background, entities, canvas):
        background = Background(colors=background.colors[:1])
    return Scene(height=canvas[0], width=canvas[1], background=background, entities=entities)


def shows(background: Background, entities: Sequence[Entity], canvas: Canvas) -> bool:
    """Whether objects leave an eighth of each part of the background free."""
    for _, rows, columns in background.areas(*canvas):
        free = (rows.stop - rows.start) * (columns.stop - columns.start) * 7 / 8
        for e in entities:
            high = min(rows.stop, e.y + e.size_px) - max(rows.start, e.y)
            wide = min(columns.stop, e.x + e.size_px) - max(columns.start, e.x)
            free -= max(0, high) * max(0, wide)
        if free < 0:
            return False
    return True


def _draw_background(config: WorldConfig, rng: np.random.Generator, canvas: Canvas) -> Background:
    if rng.random() >= config.two_tone:
        return Background(colors=(config.colors[below(rng, len(config.colors))],))
    axis: Literal["x", "y"] = "x" if rng.random() < 0.5 else "y"
    side = canvas[1] if axis == "x" else canvas[0]
    edges = [e for e in range(config.align, side, config.align) if side <= 4 * e <= 3 * side]
    return Background(colors=tuple(distinct(rng, config.colors, 2)), axis=axis, edge=edges[below(rng, len(edges))])


def _place(config: WorldConfig, rng: np.random.Generator, canvas: Canvas, nouns: Sequence[str]) -> tuple[Entity, ...]:
    """Free places on the grid; where objects keep colliding, places of a regular arrangement."""
    fits = config.capacity(canvas, config.big) >= 1
    sizes = ["big" if fits and rng.random() < config.big_share else "small" for _ in nouns]
    placed: list[Entity] = []
    for _ in range(PLACINGS):
        entity = anywhere(config, rng, canvas, nouns[len(placed)], sizes[len(placed)])
        if not any(entity.overlaps(other) for other in placed):
            placed.append(entity)
        if len(placed) == len(nouns):
            return tuple(placed)
    return _regular(config, rng, canvas, nouns, sizes)


def anywhere(config: WorldConfig, rng: np.random.Generator, canvas: Canvas, noun: str, size: str) -> Entity:
    """An object somewhere on the grid, wherever others are; its size must fit the canvas."""
    side = config.sizes[size]
    x, y = (below(rng, (length - side) // config.align + 1) * config.align for length in (canvas[1], canvas[0]))
    return Entity(noun=noun, size_name=size, size_px=side, x=x, y=y)


def _regular(
    config: WorldConfig, rng: np.random.Generator, canvas: Canvas, nouns: Sequence[str], sizes: Sequence[str]
) -> tuple[Entity, ...]:
    if "big" in sizes and config.capacity(canvas, config.big) < len(nouns):
        sizes = ["small"] * len(nouns)
    largest = max(config.sizes[size] for size in sizes)
    rows, columns, pitch = config.grid(canvas, largest)
    spare_y = canvas[0] - (rows - 1) * pitch - largest
    spare_x = canvas[1] - (columns - 1) * pitch - largest
    top = below(rng, spare_y // config.align + 1) * config.align
    left = below(rng, spare_x // config.align + 1) * config.align
    cells = distinct(rng, range(rows * columns), len(nouns))
    return tuple(
        Entity(
            noun=noun,
            size_name=size,
            size_px=config.sizes[size],
            x=left + cell % columns * pitch,
            y=top + cell // columns * pitch,
        )
        for noun, size, cell in zip(nouns, sizes, cells, strict=True)
    )
