"""Questions about a scene with answers of one to three words, all following from the scene."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal, get_args

import numpy as np
from typing_extensions import assert_never

from dimoo.data.world.atlas import lexicon, names
from dimoo.data.world.dice import below, shuffled
from dimoo.data.world.language import NUMBERS, PLACES, RELATIONS, color_words
from dimoo.data.world.scene import Entity, Relation, Scene, region, relation

Kind = Literal["what", "side", "relation", "where", "count", "color", "exists"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, kw_only=True)
class QA:
    """A question, its kind, and the only right answer."""

    kind: Kind
    question: str
    answer: str


def questions(scene: Scene, rng: np.random.Generator, *, nouns: Sequence[str] | None = None) -> tuple[QA, ...]:
    """One question of each kind that this scene allows, in random order.

    Args:
        scene: what is asked about.
        rng: chooses among the possible questions of a kind.
        nouns: the nouns that "is there a ..." may ask for; None: the whole atlas.
    """
    found = []
    for kind in KINDS:
        choices = possible(scene, kind, nouns=nouns)
        if kind == "exists":  # otherwise "no" would win: more nouns are absent than present
            wanted = "yes" if rng.random() < 0.5 else "no"
            choices = [qa for qa in choices if qa.answer == wanted] or choices
        if choices:
            found.append(choices[below(rng, len(choices))])
    return tuple(shuffled(rng, found))


def possible(scene: Scene, kind: Kind, *, nouns: Sequence[str] | None = None) -> list[QA]:
    """All questions of a kind that have exactly one right answer in this scene; none for some scenes."""
    match kind:
        case "what":
            pairs = _what(scene)
        case "side":
            pairs = _side(scene)
        case "relation":
            pairs = _relation(scene)
        case "where":
            pairs = _where(scene)
        case "count":
            pairs = _count(scene)
        case "color":
            pairs = _color(scene)
        case "exists":
            pairs = _exists(scene, names() if nouns is None else nouns)
        case _:
            assert_never(kind)
    return [QA(kind=kind, question=question, answer=answer) for question, answer in pairs]


def _what(scene: Scene) -> Iterator[tuple[str, str]]:
    if len(scene.counts()) == 1:
        noun = lexicon()[scene.entities[0].noun]
        answer = noun.name if len(scene.entities) == 1 else noun.plural
        for question in ("what is in the picture", "what is shown", "what can you see"):
            yield question, answer


def _side(scene: Scene) -> Iterator[tuple[str, str]]:
    """ "what is on the left", where one object is clearly there and all others lie in the other half."""
    for entity in scene.entities:
        others = [other for other in scene.entities if other is not entity]
        for place in _sides(region(entity, scene)):
            if others and not any(_leans(other, scene, place) for other in others):
                yield f"what is {PLACES[place]}", entity.noun


def _relation(scene: Scene) -> Iterator[tuple[str, str]]:
    """ "what is above the dog", where there is one dog, and one object that is above it at all."""
    for anchor, entity in permutations(scene.entities, 2):
        where = relation(entity, anchor)
        others = [e for e in scene.entities if e is not anchor and e is not entity]
        if where is None or scene.counts()[anchor.noun] > 1 or any(_tends(o, where, anchor) for o in others):
            continue
        for words in RELATIONS[where]:
            yield f"what is {words} the {anchor.noun}", entity.noun


def _where(scene: Scene) -> Iterator[tuple[str, str]]:
    for entity in scene.entities:
        place = region(entity, scene)
        if place is not None and scene.counts()[entity.noun] == 1:
            yield f"where is the {entity.noun}", place


def _count(scene: Scene) -> Iterator[tuple[str, str]]:
    yield "how many objects are there", NUMBERS[len(scene.entities)]
    for noun, count in scene.counts().items():
        yield f"how many {lexicon()[noun].plural} are there", NUMBERS[count]


def _color(scene: Scene) -> Iterator[tuple[str, str]]:
    yield "what colour is the background", color_words(scene.background)


def _exists(scene: Scene, nouns: Sequence[str]) -> Iterator[tuple[str, str]]:
    present = scene.counts()
    for noun in dict.fromkeys((*present, *nouns)):
        yield f"is there {lexicon()[noun].article} {noun}", "yes" if noun in present else "no"


def _sides(place: str | None) -> list[str]:
    """The parts of the picture that a region lies in: "top left" is also "top" and "left"."""
    if place is None or place == "centre":
        return []
    words = place.split()
    return words if len(words) == 1 else [*words, place]


def _leans(entity: Entity, scene: Scene, place: str) -> bool:
    """Whether the centre is on that side of the middle at all."""
    x, y = entity.center[0] / scene.width, entity.center[1] / scene.height
    inside = {"left": x < 0.5, "right": x > 0.5, "top": y < 0.5, "bottom": y > 0.5}
    return all(inside[word] for word in place.split())


def _tends(entity: Entity, where: Relation, anchor: Entity) -> bool:
    """Whether the centre of `entity` is at all on that side of the centre of `anchor`."""
    dx, dy = entity.center[0] - anchor.center[0], entity.center[1] - anchor.center[1]
    return {"left of": dx < 0, "right of": dx > 0, "above": dy < 0, "below": dy > 0}[where]
