from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from world_oracle import THING, background, check_caption, check_question, in_place

from dimoo.data.world import (
    KINDS,
    Background,
    Entity,
    Scene,
    WorldConfig,
    WorldSource,
    caption,
    describe,
    plain_caption,
    questions,
    region,
)
from dimoo.data.world.palette import PALETTE
from dimoo.data.world.questions import possible


def test_every_statement_of_every_caption_is_true(scenes: list[tuple[WorldConfig, Scene]]) -> None:
    rng = np.random.default_rng(3)
    spoken: Counter[str] = Counter()
    captions = 0
    for _, scene in scenes:
        for text in (*(caption(scene, rng) for _ in range(4)), plain_caption(scene)):
            assert re.fullmatch(r"[a-z ]+", text)
            spoken.update(check_caption(text, scene))
            captions += 1
    assert spoken["background"] > 0.9 * captions
    assert all(spoken[part] > 100 for part in ("size", "place", "relation", "count")), spoken


def test_a_description_says_all_of_every_object(scenes: list[tuple[WorldConfig, Scene]]) -> None:
    for _, scene in scenes:
        text = describe(scene)
        end = f" on a {background(scene)} background"
        assert text.endswith(end)
        things = THING.findall(text.removesuffix(end))
        assert THING.sub("it", text.removesuffix(end)) == " and ".join(["it"] * len(scene.entities))
        for (count, size, noun, place), entity in zip(things, scene.entities, strict=True):
            assert (count, size, noun) == ("a", entity.size_name, entity.noun)
            assert in_place(entity, scene, place) if place else region(entity, scene) is None


def test_captions_are_short_and_varied() -> None:
    source = WorldSource(WorldConfig())
    rng = np.random.default_rng(0)
    lengths = [len(caption(source.scene(i), rng).split()) for i in range(500)]
    assert np.mean(np.array(lengths) < 12) > 0.75
    assert max(lengths) < 25
    scene = source.scene(1)
    assert len(scene.entities) == 2
    assert len({caption(scene, rng) for _ in range(60)}) >= 10


APPLE = Entity(noun="apple", size_name="small", size_px=24, x=0, y=0)
DOG = Entity(noun="dog", size_name="big", size_px=32, x=32, y=0)
BLUE = Background(colors=("blue",))


def test_the_words_themselves() -> None:
    pair = Scene(height=64, width=64, background=BLUE, entities=(APPLE, DOG))
    assert plain_caption(pair) == "an apple to the left of a dog on a blue background"
    assert describe(pair) == ("a small apple in the top left and a big dog in the top right on a blue background")
    halves = Background(colors=("white", "grey"), axis="y", edge=32)
    crowd = tuple(Entity(noun="fox", size_name="small", size_px=24, x=x, y=y) for x, y in ((0, 0), (24, 0), (0, 32)))
    assert (
        plain_caption(Scene(height=64, width=64, background=halves, entities=crowd))
        == "three foxes on a white and grey background"
    )


def test_every_answer_is_true(scenes: list[tuple[WorldConfig, Scene]]) -> None:
    rng = np.random.default_rng(4)
    kinds: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    for world, scene in scenes:
        for kind in KINDS:
            for qa in possible(scene, kind, nouns=world.words):
                check_question(qa.question, qa.answer, scene)
        asked = questions(scene, rng, nouns=world.words)
        assert len({qa.kind for qa in asked}) == len(asked)
        kinds.update(qa.kind for qa in asked)
        answers.update(qa.answer for qa in asked if qa.kind == "exists")
        for qa in asked:
            assert 1 <= len(qa.answer.split()) <= 3
            assert qa in possible(scene, qa.kind, nouns=world.words)
    assert set(kinds) == set(KINDS)
    assert min(kinds.values()) > 150, kinds
    assert kinds["count"] == kinds["color"] == kinds["exists"] == len(scenes)
    assert 0.42 < answers["yes"] / len(scenes) < 0.58


def test_ambiguous_questions_are_not_asked() -> None:
    heart = Entity(noun="heart", size_name="small", size_px=24, x=0, y=40)
    scene = Scene(height=64, width=64, background=BLUE, entities=(APPLE, DOG, heart))
    sides = {qa.question: qa.answer for qa in possible(scene, "side")}
    assert sides == {
        "what is in the top left": "apple",
        "what is on the right": "dog",
        "what is in the top right": "dog",
        "what is at the bottom": "heart",
        "what is in the bottom left": "heart",
    }
    relations = {qa.question for qa in possible(scene, "relation")}
    assert "what is left of the dog" not in relations  # the apple, and the heart a little
    assert "what is above the heart" not in relations  # the apple, and the dog a little
    assert "what is right of the apple" in relations
    twins = Scene(
        height=64, width=64, background=BLUE,
        entities=(APPLE, Entity(noun="apple", size_name="big", size_px=32, x=32, y=32)),
    )  # fmt: skip
    assert possible(twins, "where") == []
    assert possible(twins, "relation") == []


def test_only_nouns_of_the_world_are_asked_for() -> None:
    scene = Scene(height=64, width=64, background=BLUE, entities=(APPLE,))
    asked = {qa.question for qa in possible(scene, "exists", nouns=("apple", "moon"))}
    assert asked == {"is there an apple", "is there a moon"}


@pytest.mark.parametrize("color", PALETTE)
def test_colours_go_with_the_article_a(color: str) -> None:
    assert color[0] not in "aeiou"
