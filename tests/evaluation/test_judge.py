from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from dimoo.core.errors import RequestError
from dimoo.data.world import Scene, WorldConfig, prompts, render, sample_scene
from dimoo.data.world.atlas import sprite
from dimoo.data.world.render import on_color
from dimoo.evaluation.criteria import CRITERIA, fulfils, same_background, same_nouns
from dimoo.evaluation.judge import Judge, match

WORLDS = (WorldConfig(nouns=24), WorldConfig(nouns=60, canvases=((48, 96),), align=4, small=20, big=28))


def pictures(scenes: list[Scene]) -> np.ndarray:
    return np.stack([render(scene) for scene in scenes])


def blurred(picture: np.ndarray, radius: float) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Every kind of scene: 1 to 4 objects, equal and different, plain and two-tone backgrounds."""
    rng = np.random.default_rng(0)
    return [sample_scene(WORLDS[0], rng, "any") for _ in range(200)]


@pytest.mark.parametrize("world", WORLDS)
def test_true_pictures_are_read_to_the_last_entity(world: WorldConfig) -> None:
    rng = np.random.default_rng(1)
    truths = [sample_scene(world, rng, "any") for _ in range(120)]
    seen = Judge(world=world).see(pictures(truths))
    exact = [
        set(one.scene.entities) == set(truth.entities) and one.scene.background == truth.background
        for one, truth in zip(seen, truths, strict=True)
    ]
    assert np.mean(exact) >= 0.98
    assert all(len(one.scores) == len(one.scene.entities) for one in seen)
    assert np.quantile([score for one in seen for score in one.scores], 0.05) > 0.99


@pytest.mark.parametrize("kind", list(CRITERIA))
def test_prompts_fit_their_own_pictures_and_not_each_others(kind: str) -> None:
    suite = prompts(WORLDS[0], kind, 80, 0)  # type: ignore[arg-type]
    truths = [scene for _, scene in suite]
    seen = [one.scene for one in Judge(world=WORLDS[0]).see(pictures(truths))]
    assert np.mean([fulfils(kind, a, b) for a, b in zip(truths, seen, strict=True)]) >= 0.98  # type: ignore[arg-type]
    shuffled = truths[40:] + truths[:40]
    for name, right in CRITERIA[kind].items():  # type: ignore[index]
        share = np.mean([right(a, b) for a, b in zip(shuffled, seen, strict=True)])
        assert share < 0.3, name


def test_tolerates_what_a_tokenizer_does(scenes: list[Scene]) -> None:
    rng = np.random.default_rng(2)
    soft = np.stack([blurred(picture, 1.0) for picture in pictures(scenes)])
    noisy = np.clip(soft + rng.normal(0, 12, soft.shape), 0, 255)
    coarse = (noisy // 24 * 24 + 12).clip(0, 255).astype(np.uint8)
    decibels = -10 * np.log10(np.mean((coarse / 255.0 - pictures(scenes) / 255.0) ** 2))
    assert 20 < decibels < 25
    seen = [one.scene for one in Judge(world=WORLDS[0]).see(coarse)]
    assert np.mean([same_nouns(a, b) for a, b in zip(scenes, seen, strict=True)]) >= 0.95
    assert np.mean([same_background(a, b) for a, b in zip(scenes, seen, strict=True)]) >= 0.98


def test_sees_nothing_where_nothing_is(scenes: list[Scene]) -> None:
    rng = np.random.default_rng(3)
    scrambled = pictures(scenes)
    for picture in scrambled:
        tiles = picture.reshape(8, 8, 8, 8, 3).swapaxes(1, 2).reshape(64, 8, 8, 3)[rng.permutation(64)]
        picture[:] = tiles.reshape(8, 8, 8, 8, 3).swapaxes(1, 2).reshape(64, 64, 3)
    seen = Judge(world=WORLDS[0]).see(scrambled)
    wrong = [bool(one.scene.counts() - truth.counts()) for one, truth in zip(seen, scenes, strict=True)]
    assert np.mean(wrong) < 0.05
    for color in WORLDS[0].colors:
        empty = np.full((1, 64, 64, 3), on_color("apple", 24, color)[0, 0], np.uint8)
        (one,) = Judge(world=WORLDS[0]).see(empty)
        assert one.scene.entities == ()
        assert one.scene.background.colors == (color,)


def test_pictures_are_judged_alone(scenes: list[Scene]) -> None:
    judge = Judge(world=WORLDS[0])
    together = judge.see(pictures(scenes[:12]))
    for one, picture in zip(together, pictures(scenes[:12]), strict=True):
        assert judge.see(picture[None])[0].scene == one.scene


def test_threshold_decides() -> None:
    scene = next(truth for _, truth in prompts(WORLDS[0], "one", 1, 0))
    smeared = blurred(render(scene), 3.0)[None]
    (lenient,) = Judge(world=WORLDS[0], accept=0.05).see(smeared)
    (strict,) = Judge(world=WORLDS[0], accept=0.99).see(smeared)
    assert lenient.scene.entities
    assert not strict.scene.entities


def test_match_equals_drawing_and_comparing() -> None:
    rng = np.random.default_rng(4)
    picture, ground = rng.random((2, 40, 48, 3)).astype(np.float32)
    names = ("apple", "frog")
    sprites = np.stack([sprite(name, 24) for name in names])
    gain, score = match(
        torch.from_numpy(picture - ground).permute(2, 0, 1)[None],
        torch.from_numpy(ground).permute(2, 0, 1)[None],
        torch.from_numpy(sprites).permute(0, 3, 1, 2),
        stride=8,
    )
    assert gain.shape == score.shape == (1, 2, 3, 4)
    for noun in range(2):
        for row in range(3):
            for column in range(4):
                here = slice(8 * row, 8 * row + 24), slice(8 * column, 8 * column + 24)
                below, shown = ground[here].astype(float), picture[here].astype(float)
                drawn = sprites[noun, ..., :3] + (1 - sprites[noun, ..., 3:]) * below
                bare, left = np.sum((shown - below) ** 2), np.sum((shown - drawn) ** 2)
                change = np.sum((drawn - below) ** 2)
                assert float(gain[0, noun, row, column]) == pytest.approx(bare - left, abs=2e-3)
                expected = 1 - left / max(bare, change)
                assert float(score[0, noun, row, column]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("bad", "fix"),
    [
        (np.zeros((1, 64, 64, 3), np.float32), "float32"),
        (np.zeros((64, 64, 3), np.uint8), r"\[64, 64, 3\]"),
        (np.zeros((1, 16, 64, 3), np.uint8), "16x64.*32 px"),
    ],
)
def test_refuses_what_is_no_batch_of_pictures(bad: np.ndarray, fix: str) -> None:
    with pytest.raises(RequestError, match=fix):
        Judge(world=WORLDS[0]).see(bad)
