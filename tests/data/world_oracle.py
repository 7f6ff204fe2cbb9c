"""The truth about a scene, worked out again from boxes and pixels, without the code under test."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise

import numpy as np

from dimoo.data.world import Entity, Scene, render
from dimoo.data.world.atlas import lexicon, sprite
from dimoo.data.world.holdout import held_out_color, held_out_triple
from dimoo.data.world.palette import PALETTE

NUMBERS = {"a": 1, "an": 1, "two": 2, "three": 3, "four": 4}
PLACES = (
    "in the top left", "in the top right", "in the bottom left", "in the bottom right", "in the centre",
    "at the top", "at the bottom", "on the left", "on the right",
)  # fmt: skip
RELATIONS = ("to the left of", "left of", "to the right of", "right of", "above", "over", "below", "under")
SINGULAR = {form: noun.name for noun in lexicon().values() for form in (noun.name, noun.plural)}

_nouns = "|".join(sorted(SINGULAR, key=len, reverse=True))
_colors = f"(?:{'|'.join(PALETTE)})(?: and (?:{'|'.join(PALETTE)}))?"
THING = re.compile(
    rf"(?P<count>an?|two|three|four) (?:(?P<size>small|big) )?(?P<noun>{_nouns})"
    rf"(?: (?P<place>{'|'.join(PLACES)}))?"
)
JOINT = re.compile(rf" (?P<joint>and|{'|'.join(RELATIONS)}) ")
WHOLE = (
    re.compile(rf"(?P<things>.+) on a (?P<colors>{_colors}) background"),
    re.compile(rf"(?P<things>.+) on (?P<colors>{_colors})"),
    re.compile(rf"a (?P<colors>{_colors}) background with (?P<things>.+)"),
    re.compile(r"(?P<things>.+)"),
)


def check_caption(text: str, scene: Scene) -> set[str]:
    """Assert that a caption names every object once and says nothing false; returns what it spoke about."""
    match = next(found for pattern in WHOLE if (found := pattern.fullmatch(text)))
    spoken = set()
    if colors := match.groupdict().get("colors"):
        assert colors == background(scene), text
        spoken.add("background")
    rest, joints, things = match["things"], [], []
    while True:
        thing = THING.match(rest)
        assert thing is not None, (text, rest)
        things.append(thing)
        rest = rest[thing.end() :]
        if not rest:
            break
        joint = JOINT.match(rest)
        assert joint is not None, (text, rest)
        joints.append(joint["joint"])
        rest = rest[joint.end() :]
    named = [SINGULAR[thing["noun"]] for thing in things]
    assert len(set(named)) == len(named), text
    assert {n: NUMBERS[t["count"]] for n, t in zip(named, things, strict=True)} == dict(scene.counts()), text
    for noun, thing in zip(named, things, strict=True):
        alike = [e for e in scene.entities if e.noun == noun]
        assert thing["noun"] == (lexicon()[noun].plural if len(alike) > 1 else noun), text
        if len(alike) == 1 and not thing["size"]:
            assert thing["count"] == lexicon()[noun].article, text
        if thing["size"]:
            assert {e.size_name for e in alike} == {thing["size"]}, text
            spoken.add("size")
        if thing["place"]:
            assert len(alike) == 1, text
            assert in_place(alike[0], scene, thing["place"]), text
            spoken.add("place")
    for words, (a, b) in zip(joints, pairwise(named), strict=True):
        if words != "and":
            (first,), (second,) = ([e for e in scene.entities if e.noun == noun] for noun in (a, b))
            assert stands(first, words, second), text
            spoken.add("relation")
    if scene.entities and len(scene.counts()) < len(scene.entities):
        spoken.add("count")
    return spoken


def check_question(question: str, answer: str, scene: Scene) -> None:
    """Assert that the answer is right, and the only right one."""
    entities, nouns = scene.entities, [e.noun for e in scene.entities]
    if question in ("what is in the picture", "what is shown", "what can you see"):
        assert {SINGULAR[answer]} == set(nouns)
        assert (answer == nouns[0]) == (len(nouns) == 1)
    elif question == "what colour is the background":
        assert answer == background(scene)
    elif question == "how many objects are there":
        assert answer == ("one", "two", "three", "four")[len(entities) - 1]
    elif many := re.fullmatch(r"how many (.+) are there", question):
        assert answer == ("one", "two", "three", "four")[nouns.count(SINGULAR[many[1]]) - 1]
    elif there := re.fullmatch(r"is there an? (.+)", question):
        assert answer == ("yes" if there[1] in nouns else "no")
    elif where := re.fullmatch(r"where is the (.+)", question):
        (entity,) = (e for e in entities if e.noun == where[1])
        assert in_place(entity, scene, answer)
    elif side := re.fullmatch(rf"what is ({'|'.join(PLACES)})", question):
        centers = [((e.x + e.size_px / 2) / scene.width, (e.y + e.size_px / 2) / scene.height) for e in entities]
        inside = [
            e.noun
            for e, (x, y) in zip(entities, centers, strict=True)
            if ("left" not in side[1] or x < 0.5) and ("right" not in side[1] or x > 0.5)
            and ("top" not in side[1] or y < 0.5) and ("bottom" not in side[1] or y > 0.5)
        ]  # fmt: skip
        assert inside == [answer]
    else:
        found = re.fullmatch(rf"what is ({'|'.join(RELATIONS)}) the (.+)", question)
        assert found is not None, question
        (anchor,) = (e for e in entities if e.noun == found[2])
        assert [e.noun for e in entities if e is not anchor and stands(e, found[1], anchor)] == [answer]


@cache
def background(scene: Scene) -> str:
    """The colours that show where all sprites are wholly transparent, in reading order of the two halves."""
    picture = render(scene)
    free = np.ones((scene.height, scene.width), bool)
    for e in scene.entities:
        free[e.y : e.y + e.size_px, e.x : e.x + e.size_px] &= sprite(e.noun, e.size_px)[..., 3] == 0
    places = {}
    for name, color in PALETTE.items():
        shown = np.argwhere(free & (picture == color).all(-1))
        if len(shown):
            places[name] = shown.mean(0).sum()
    return " and ".join(sorted(places, key=lambda name: places[name]))


def in_place(e: Entity, scene: Scene, words: str) -> bool:
    """Whether the centre lies well inside the part of the picture."""
    x, y = (e.x + e.size_px / 2) / scene.width, (e.y + e.size_px / 2) / scene.height
    column = "left" if x < 0.36 else "right" if x > 0.64 else "centre" if 0.4 < x < 0.6 else "?"
    row = "top" if y < 0.36 else "bottom" if y > 0.64 else "centre" if 0.4 < y < 0.6 else "?"
    wanted = words.removeprefix("in the ").removeprefix("at the ").removeprefix("on the ").split()
    return sorted({column, row}) == sorted({*wanted, "centre"} if len(wanted) == 1 else wanted)


def stands(a: Entity, words: str, b: Entity) -> bool:
    """Whether a is there as seen from b: wholly beyond its edge, and more that way than sideways."""
    if "right" in words:
        return stands(b, "left of", a)
    if words in ("below", "under"):
        return stands(b, "above", a)
    dx = (2 * b.x + b.size_px) - (2 * a.x + a.size_px)
    dy = (2 * b.y + b.size_px) - (2 * a.y + a.size_px)
    if "left" in words:
        return a.x + a.size_px <= b.x and dx > abs(dy)
    return a.y + a.size_px <= b.y and dy > abs(dx)


def held_out(scene: Scene, share: float) -> bool:
    """Whether a scene contains a combination that training must not see."""
    colors = any(held_out_color(e.noun, color, share) for e in scene.entities for color in scene.background.colors)
    return colors or any(
        stands(a, words, b) and held_out_triple(a.noun, words, b.noun, share)
        for a in scene.entities
        for b in scene.entities
        for words in ("left of", "above")  # the other two are mirrored statements
    )
