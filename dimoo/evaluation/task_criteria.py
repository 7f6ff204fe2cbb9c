"""When the answer to a task of the world is right, by what it shows or says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from PIL import Image

from dimoo import conditions
from dimoo.data.world.atlas import lexicon
from dimoo.data.world.draws import TaskCase
from dimoo.data.world.language import color_words
from dimoo.data.world.maps import map_of
from dimoo.data.world.render import render
from dimoo.data.world.scene import Entity, Scene, region
from dimoo.data.world.styles import STYLES, stylise
from dimoo.data.world.tasks import WorldTask
from dimoo.evaluation.agreement import Picture, agreement, explained, is_nearest
from dimoo.evaluation.criteria import same_background, same_nouns
from dimoo.evaluation.requests import Answer

Right = Callable[[TaskCase, Answer], bool]

NEAR = 8
"""Pixels that an object may lie from where the one that it replaces was, along each axis."""
KEPT = 0.025
"""Mean absolute difference, of brightness in 0..1, up to which an unchanged part of an edited picture is as it was; an
image tokenizer alone costs about .01 of it where there is much to see."""
LIKE = 0.5
"""Share of the true picture that a restyled or turned one must explain, see `explained`."""
AGREES = 0.6
"""Least agreement of two maps, see `agreement`."""
JUDGED: frozenset[WorldTask] = frozenset({"edit", "inpaint", "subject", "control", "illustrate"})
"""Tasks whose answers show a scene; the others are compared pixel by pixel, or are words."""


def edited(case: TaskCase, answer: Answer) -> bool:
    """Exactly the objects and the background after the edit, and what it put somewhere is there."""
    truth, seen = _scenes(case, answer)
    if not _same(truth, seen):
        return False
    return all(_there(case.kind, new, truth, seen) for new in _new(case))


def keeps(case: TaskCase, answer: Answer) -> bool:
    """The picture outside the squares of changed objects, wherever they ended up, is as before the edit (`KEPT`)."""
    truth, seen = _scenes(case, answer)
    assert case.before is not None
    assert answer.picture is not None
    changed = set(case.before.entities) ^ set(truth.entities)
    nouns = {entity.noun for entity in changed}
    outside = np.ones((truth.height, truth.width), np.bool_)
    for entity in (*changed, *(entity for entity in seen.entities if entity.noun in nouns)):
        outside[entity.y : entity.y + entity.size_px, entity.x : entity.x + entity.size_px] = False
    different = np.abs(answer.picture[outside].astype(np.float64) - case.example.images[0][outside]) / 255
    return not outside.any() or bool(different.mean() <= KEPT)


def filled(case: TaskCase, answer: Answer) -> bool:
    """Exactly the objects and the background of the whole, and every given pixel as it was."""
    truth, seen = _scenes(case, answer)
    given, picture = case.example.given, case.example.image
    assert given is not None
    assert picture is not None
    assert answer.picture is not None
    return _same(truth, seen) and np.array_equal(answer.picture[given], picture[given])


def depicted(case: TaskCase, answer: Answer) -> bool:
    """Exactly the objects and the background that were asked for."""
    return _same(*_scenes(case, answer))


def restyled(case: TaskCase, answer: Answer) -> bool:
    """Nearer to the picture in the right style than in any other and in none, and like it (`LIKE`)."""
    assert case.before is not None
    content = render(case.before)
    return _like(case, answer, [content, *(stylise(content, style) for style in STYLES)])


def turned(case: TaskCase, answer: Answer) -> bool:
    """Nearer to the right view than to the front and to the other views, and like it (`LIKE`)."""
    front = case.example.images[0]
    return _like(case, answer, [front, front[:, ::-1], front[::-1, ::-1]])


def controlled(case: TaskCase, answer: Answer) -> bool:
    """Exactly the objects that were asked for, and the map of what is seen agrees with the given one (`AGREES`).

    The caption need not say the background, and no map shows it.
    """
    truth, seen = _scenes(case, answer)
    kind = case.example.option
    assert answer.picture is not None
    if kind == "canny":
        map_seen: Picture = np.asarray(conditions.make(kind, Image.fromarray(answer.picture)))
    else:
        map_seen = map_of(seen, kind)
    return same_nouns(truth, seen) and agreement(kind, map_seen, case.example.images[0]) >= AGREES


def predicted(case: TaskCase, answer: Answer) -> bool:
    """The map agrees with the true one (`AGREES`)."""
    assert answer.picture is not None
    assert case.example.image is not None
    return agreement(case.example.option, answer.picture, case.example.image) >= AGREES


def said(case: TaskCase, answer: Answer) -> bool:
    """The true words, to the letter."""
    return answer.words == case.example.text


def illustrated(case: TaskCase, answer: Answer) -> bool:
    """The picture has exactly the objects, the words name them and no others, and say the background that it has."""
    truth, seen = _scenes(case, answer)
    words = f" {answer.words} "
    named = {noun for noun in lexicon() if f" {noun} " in words}
    agree = words.endswith(f" on a {color_words(seen.background)} background ")
    return same_nouns(truth, seen) and named == set(truth.counts()) and agree


CRITERIA: Mapping[WorldTask, Right] = MappingProxyType(
    {
        "edit": edited,
        "inpaint": filled,
        "subject": depicted,
        "style": restyled,
        "restyle": restyled,
        "control": controlled,
        "predict": predicted,
        "view": turned,
        "compare": said,
        "chat": said,
        "illustrate": illustrated,
    }
)
"""Task -> when an answer is right."""


def scores_of(task: WorldTask, kind: str) -> Mapping[str, Right]:
    """The scores that a case counts for: its kind's and its task's, and of most edits what they keep."""
    right = CRITERIA[task]
    kept: dict[str, Right] = {"edit_keeps": keeps} if task == "edit" and kind != "edit_recolor" else {}
    return {kind: right, **kept, task: right}


def _scenes(case: TaskCase, answer: Answer) -> tuple[Scene, Scene]:
    assert case.scene is not None
    assert answer.seen is not None
    return case.scene, answer.seen


def _same(truth: Scene, seen: Scene) -> bool:
    return same_nouns(truth, seen) and same_background(truth, seen)


def _new(case: TaskCase) -> list[Entity]:
    """The objects that an edit put somewhere; each is the only one of its noun."""
    assert case.before is not None
    assert case.scene is not None
    return [entity for entity in case.scene.entities if entity not in case.before.entities]


def _there(kind: str, new: Entity, truth: Scene, seen: Scene) -> bool:
    found = next(entity for entity in seen.entities if entity.noun == new.noun)
    if kind == "edit_replace":
        return all(abs(a - b) <= NEAR for a, b in zip(found.center, new.center, strict=True))
    place = region(new, truth)  # the instruction names it where it is clear
    return place is None or region(found, seen) == place


def _like(case: TaskCase, answer: Answer, others: list[Picture]) -> bool:
    made, truth = answer.picture, case.example.image
    assert made is not None
    assert truth is not None
    return is_nearest(made, truth, others) and explained(made, truth) >= LIKE
