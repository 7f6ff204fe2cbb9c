"""Edits: a scene, an instruction, and the scene that follows from it. Nothing else changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from dimoo.core.errors import ConfigError
from dimoo.data.world.config import WorldConfig
from dimoo.data.world.dice import below
from dimoo.data.world.draws import TRIES, Draw
from dimoo.data.world.language import PLACES, noun_phrase, phrase_at
from dimoo.data.world.sample import MOST, Canvas, Split, anywhere, sample_scene, shows
from dimoo.data.world.scene import Background, Entity, Scene, region

PLACINGS = 12
"""Places tried for an object before another scene is drawn."""

Change = tuple[str, Scene]
"""An instruction and the scene after it."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A change of a scene and how it is asked for."""

    kind: str
    """A key of `EDITS`."""
    instruction: str
    before: Scene
    after: Scene
    """May be empty where the only object was removed."""


def draw_edit(
    config: WorldConfig, rng: np.random.Generator, kind: str, split: Split = "train", canvas: Canvas | None = None
) -> Edit:
    """Draw an edit.

    "edit_add": "add a small cat in the top left", a noun that is not there yet (no place is named where it is not
    clear). "edit_remove": "remove the cat". "edit_replace": "replace the cat with a dog" of the same size at the same
    place. "edit_move": "put the cat in the top left", from another region or none. "edit_recolor": "make the background
    blue", all of it, from other colours. "The cat" is always the only one.

    Of "train" neither scene contains a held-out combination, of "heldout" the scene after does.

    Raises:
        ConfigError: there is no such kind, or the config has no such edit.
    """
    if kind not in EDITS:
        raise ConfigError(f"there is no edit {kind!r}; use one of {', '.join(EDITS)}")
    draw = Draw(config=config, rng=rng, split=split, canvas=canvas)
    for _ in range(TRIES):
        # What a held-out edit starts from is free: it is the result that training never sees.
        start: Split = "train" if split == "train" else "any"
        before = sample_scene(config, rng, start, canvas=draw.roomy(2 if kind == "edit_add" else 1))
        change = EDITS[kind](config, rng, before)
        if change is None:
            continue
        instruction, after = change
        if draw.allows(after) and shows(after.background, after.entities, (after.height, after.width)):
            return Edit(kind=kind, instruction=instruction, before=before, after=after)
    raise draw.impossible(kind)


def _add(config: WorldConfig, rng: np.random.Generator, before: Scene) -> Change | None:
    canvas = before.height, before.width
    if len(before.entities) == MOST:
        return None
    size = "big" if config.capacity(canvas, config.big) and rng.random() < config.big_share else "small"
    noun = _other_noun(config, rng, before)
    for _ in range(PLACINGS if noun else 0):
        new = anywhere(config, rng, canvas, noun, size)
        if not any(new.overlaps(other) for other in before.entities):
            after = replace(before, entities=(*before.entities, new))
            return f"add {phrase_at(new, after, size=True)}", after
    return None


def _remove(config: WorldConfig, rng: np.random.Generator, before: Scene) -> Change | None:
    del config
    old = _the_only(rng, before)
    return None if old is None else (f"remove the {old.noun}", _without(before, old))


def _replace(config: WorldConfig, rng: np.random.Generator, before: Scene) -> Change | None:
    old, noun = _the_only(rng, before), _other_noun(config, rng, before)
    if old is None or not noun:
        return None
    new = replace(old, noun=noun)
    return f"replace the {old.noun} with {noun_phrase(new)}", _with(before, old, new)


def _move(config: WorldConfig, rng: np.random.Generator, before: Scene) -> Change | None:
    old = _the_only(rng, before)
    if old is None:
        return None
    others = _without(before, old).entities
    for _ in range(PLACINGS):
        new = anywhere(config, rng, (before.height, before.width), old.noun, old.size_name)
        place = region(new, before)
        if place is not None and place != region(old, before) and not any(new.overlaps(other) for other in others):
            return f"put the {old.noun} {PLACES[place]}", _with(before, old, new)
    return None


def _recolor(config: WorldConfig, rng: np.random.Generator, before: Scene) -> Change | None:
    colors = [color for color in config.colors if color not in before.background.colors]
    if not colors:
        return None
    color = colors[below(rng, len(colors))]
    return f"make the background {color}", replace(before, background=Background(colors=(color,)))


def _the_only(rng: np.random.Generator, scene: Scene) -> Entity | None:
    """An object that is the only one of its noun."""
    counts = scene.counts()
    alone = [entity for entity in scene.entities if counts[entity.noun] == 1]
    return alone[below(rng, len(alone))] if alone else None


def _other_noun(config: WorldConfig, rng: np.random.Generator, scene: Scene) -> str:
    """A noun that is not in the scene; empty where all are."""
    nouns = [noun for noun in config.words if noun not in scene.counts()]
    return nouns[below(rng, len(nouns))] if nouns else ""


def _without(scene: Scene, old: Entity) -> Scene:
    return replace(scene, entities=tuple(e for e in scene.entities if e is not old))


def _with(scene: Scene, old: Entity, new: Entity) -> Scene:
    return replace(scene, entities=tuple(new if e is old else e for e in scene.entities))


EDITS: Mapping[str, Callable[[WorldConfig, np.random.Generator, Scene], Change | None]] = MappingProxyType(
    {
        "edit_add": _add,
        "edit_remove": _remove,
        "edit_replace": _replace,
        "edit_move": _move,
        "edit_recolor": _recolor,
    }
)
"""Kind -> what it makes of a scene; None where this scene does not allow it."""
