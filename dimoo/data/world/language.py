"""What can be said about a scene. Lower case, no punctuation, every statement true."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dimoo.data.world.atlas import lexicon
from dimoo.data.world.dice import below, shuffled
from dimoo.data.world.scene import Background, Entity, Relation, Scene, region, relation

NUMBERS = ("zero", "one", "two", "three", "four")
PLACES = {
    "top left": "in the top left",
    "top": "at the top",
    "top right": "in the top right",
    "left": "on the left",
    "centre": "in the centre",
    "right": "on the right",
    "bottom left": "in the bottom left",
    "bottom": "at the bottom",
    "bottom right": "in the bottom right",
}
RELATIONS: dict[Relation, tuple[str, ...]] = {
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
GROUNDS = ("{things} on a {colors} background", "{things} on {colors}", "a {colors} background with {things}")


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One of many short captions; sizes, places and relations are mentioned now and then."""
    ground = "{things}" if rng.random() < 0.06 else GROUNDS[below(rng, len(GROUNDS))]
    return ground.format(things=_things(scene, rng), colors=color_words(scene.background))


def plain_caption(scene: Scene) -> str:
    """Nouns, how many, the relation of two where it is clear, and the background."""
    return f"{_joined(scene)} on a {color_words(scene.background)} background"


def describe(scene: Scene) -> str:
    """All there is to say: each object with its size and, where clear, its place, and the background."""
    things = " and ".join(phrase_at(e, scene, size=True) for e in scene.entities)
    return f"{things} on a {color_words(scene.background)} background"


def noun_phrase(entity: Entity, *, size: bool = False) -> str:
    """ "an apple", or with its size "a small apple"."""
    if size:
        return f"a {entity.size_name} {entity.noun}"
    return f"{lexicon()[entity.noun].article} {entity.noun}"


def phrase_at(entity: Entity, scene: Scene, *, size: bool = False) -> str:
    """ "an apple in the top left"; without the place where that is not clear."""
    place = region(entity, scene)
    return noun_phrase(entity, size=size) + ("" if place is None else f" {PLACES[place]}")


def color_words(background: Background) -> str:
    """ "blue", or "blue and white" (left or top first)."""
    return " and ".join(background.colors)


def _things(scene: Scene, rng: np.random.Generator) -> str:
    entities = scene.entities
    if len(scene.counts()) < len(entities):
        return _counted(scene, size=rng.random() < 0.25)
    if len(entities) == 1:
        size, place = rng.random() < 0.4, rng.random() < 0.4
        return phrase_at(entities[0], scene, size=size) if place else noun_phrase(entities[0], size=size)
    mixed = shuffled(rng, entities)
    if len(entities) > 2:
        return _listed(mixed)
    style = rng.random()
    where = relation(mixed[0], mixed[1])
    if where is not None and style < 0.7:
        words = RELATIONS[where][below(rng, len(RELATIONS[where]))]
        return _related(mixed, words, size=rng.random() < 0.2)
    if style > 0.85:
        return " and ".join(phrase_at(e, scene) for e in mixed)
    return " and ".join(noun_phrase(e, size=style > 0.8) for e in mixed)


def _joined(scene: Scene) -> str:
    entities = scene.entities
    if len(scene.counts()) < len(entities):
        return _counted(scene, size=False)
    where = relation(entities[0], entities[1]) if len(entities) == 2 else None
    return _listed(entities) if where is None else _related(entities, RELATIONS[where][0], size=False)


def _listed(entities: Sequence[Entity]) -> str:
    return " and ".join(noun_phrase(entity) for entity in entities)


def _related(pair: Sequence[Entity], words: str, *, size: bool) -> str:
    return f"{noun_phrase(pair[0], size=size)} {words} {noun_phrase(pair[1], size=size)}"


def _counted(scene: Scene, *, size: bool) -> str:
    """ "three apples and a dog"; with sizes where all objects of a noun have the same."""
    phrases = []
    for noun, count in scene.counts().items():
        alike = [entity for entity in scene.entities if entity.noun == noun]
        same_size = size and len({entity.size_name for entity in alike}) == 1
        if count == 1:
            phrases.append(noun_phrase(alike[0], size=same_size))
        else:
            adjective = f"{alike[0].size_name} " if same_size else ""
            phrases.append(f"{NUMBERS[count]} {adjective}{lexicon()[noun].plural}")
    return " and ".join(phrases)
