from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from world_oracle import check_caption

from dimoo.core.errors import ConfigError
from dimoo.data import Example
from dimoo.data.world import (
    KINDS,
    PROMPT_KINDS,
    WorldConfig,
    WorldSource,
    prompts,
    qa_suite,
    region,
    relation,
    render,
)
from dimoo.data.world.holdout import unseen_colors, unseen_relations
from dimoo.data.world.questions import possible

CONFIG = WorldConfig(nouns=20, canvases=((64, 64), (48, 96)))


def same(a: Example, b: Example) -> bool:
    assert a.image is not None
    assert b.image is not None
    return bool(np.array_equal(a.image, b.image)) and (a.caption, a.qa) == (b.caption, b.qa)


def test_any_order_gives_the_same_examples() -> None:
    forward = [WorldSource(CONFIG, 5).example(i) for i in range(30)]
    other = WorldSource(CONFIG, 5)
    backward = [other.example(i) for i in reversed(range(30))][::-1]
    assert all(map(same, forward, backward))
    assert not same(forward[0], WorldSource(CONFIG, 6).example(0))
    assert not same(forward[0], WorldSource(CONFIG, 5, "heldout").example(0))
    assert other.size is None
    assert other.example(10**12).caption
    with pytest.raises(IndexError, match="-1"):
        other.example(-1)


def test_an_example_fits_its_scene() -> None:
    source = WorldSource(CONFIG, 1)
    for i in range(50):
        scene, example = source.scene(i), source.example(i)
        np.testing.assert_array_equal(example.image, render(scene))
        assert example.caption is not None
        check_caption(example.caption, scene)
        true = {(q.question, q.answer) for kind in KINDS for q in possible(scene, kind, nouns=CONFIG.words)}
        assert set(example.qa) <= true
        assert len(example.qa) >= 4


def test_another_process_gives_the_same_example_without_torch() -> None:
    code = (
        "import sys; from dimoo.data.world import *;"
        "e = WorldSource(WorldConfig(), 3).example(7);"
        "assert 'torch' not in sys.modules;"
        "print(e.caption, e.qa, int(e.image.astype(int).sum()))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": hashing},
            capture_output=True, text=True, check=True,
        ).stdout
        for hashing in ("1", "2")
    }  # fmt: skip
    here = WorldSource(WorldConfig(), 3).example(7)
    assert here.image is not None
    assert outputs == {f"{here.caption} {here.qa} {int(here.image.astype(int).sum())}\n"}


@pytest.mark.parametrize("kind", PROMPT_KINDS)
def test_prompts_are_held_out_true_and_say_what_is_scored(kind: str) -> None:
    suite = prompts(CONFIG, kind, 40, 0, canvas=(64, 64))  # type: ignore[arg-type]
    assert suite == prompts(CONFIG, kind, 40, 0, canvas=(64, 64))  # type: ignore[arg-type]
    assert suite != prompts(CONFIG, kind, 40, 1, canvas=(64, 64))  # type: ignore[arg-type]
    assert len(suite) == 40
    assert len({text for text, _ in suite}) > 30
    for text, scene in suite:
        assert (scene.height, scene.width) == (64, 64)
        spoken = check_caption(text, scene)
        assert "background" in spoken
        wanted = {"two": {"relation"}, "count": {"count"}, "place": {"place"}, "size": {"size"}}
        if kind == "one":  # any words of the training captions that name the background
            assert spoken <= {"background", "place", "size"}
        else:
            assert spoken == {"background"} | wanted[kind]
        if kind == "two":
            assert unseen_relations(scene, CONFIG.holdout)
            assert relation(*scene.entities) is not None
        else:
            assert unseen_colors(scene, CONFIG.holdout)
        if kind == "place":
            assert region(scene.entities[0], scene) is not None
        assert len(scene.counts()) == (2 if kind == "two" else 1)
        assert (len(scene.entities) > 1) == (kind in ("two", "count"))


def test_more_prompts_than_captions_repeat_rather_than_hang() -> None:
    tiny = WorldConfig(nouns=4, colors=("white", "blue"), two_tone=0.0, holdout=0.3)
    suite = prompts(tiny, "size", 30, 0)
    texts = Counter(text for text, _ in suite)
    assert len(suite) == 30 > len(texts)
    assert len({scene for _, scene in suite}) > len(texts)


def test_prompts_that_cannot_be_are_refused() -> None:
    small = WorldConfig(canvases=((32, 32),), two_tone=0.0)
    with pytest.raises(ConfigError, match="2 objects do not fit"):
        prompts(small, "two", 4, 0)
    with pytest.raises(ConfigError, match="prompts of kind 'count'"):
        prompts(small, "count", 4, 0)
    with pytest.raises(ConfigError, match="question of kind 'relation'"):
        qa_suite(small, 4, 0, kinds=("relation",))


def test_the_question_suite_is_balanced_and_held_out() -> None:
    suite = qa_suite(CONFIG, 10 * len(KINDS), 0)
    assert Counter(qa.kind for _, qa in suite) == dict.fromkeys(KINDS, 10)
    yes_no = [qa.answer for _, qa in suite if qa.kind == "exists"]
    assert yes_no.count("yes") == yes_no.count("no") == 5
    for scene, qa in suite:
        assert qa in possible(scene, qa.kind, nouns=CONFIG.words)
        assert unseen_colors(scene, CONFIG.holdout) or unseen_relations(scene, CONFIG.holdout)
    assert {qa.kind for _, qa in qa_suite(CONFIG, 6, 0, kinds=("where", "color"))} == {"where", "color"}
