from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dimoo.data.world
from dimoo.core.errors import ConfigError
from dimoo.data.world import Scene, WorldConfig, render
from dimoo.data.world.atlas import lexicon, names, sprite
from dimoo.data.world.palette import PALETTE

ASSETS = Path(dimoo.data.world.__file__).resolve().parents[2] / "assets" / "world"


def naive(scene: Scene, atlas: Image.Image, order: list[str]) -> np.ndarray:
    """Pixel by pixel, in whole numbers, straight from the files."""
    picture = np.zeros((scene.height, scene.width, 3), int)
    background = scene.background
    for y in range(scene.height):
        for x in range(scene.width):
            second = len(background.colors) == 2 and (x if background.axis == "x" else y) >= background.edge
            picture[y, x] = PALETTE[background.colors[int(second)]]
    for e in scene.entities:
        cell = order.index(e.noun)
        left, top = cell % 10 * 96, cell // 10 * 96
        small = (
            atlas.crop((left, top, left + 96, top + 96))
            .convert("RGBa")
            .resize((e.size_px, e.size_px), Image.Resampling.HAMMING)
        )
        for j in range(e.size_px):
            for i in range(e.size_px):
                *color, alpha = small.getpixel((i, j))  # type: ignore[misc]
                for channel in range(3):
                    under = int(picture[e.y + j, e.x + i, channel])
                    exact = 2 * (255 * color[channel] + (255 - alpha) * under)
                    picture[e.y + j, e.x + i, channel] = (exact + 255) // 510
    return picture


def test_pictures_equal_the_naive_ones(scenes: list[tuple[WorldConfig, Scene]]) -> None:
    with Image.open(ASSETS / "atlas.png") as opened:
        atlas = opened.convert("RGBA")
    order = [row["noun"] for row in json.loads((ASSETS / "nouns.json").read_text(encoding="utf-8"))["nouns"]]
    for _, scene in [*scenes[:15], *scenes[300:320], *scenes[-2:]]:
        picture = render(scene)
        assert picture.dtype == np.uint8
        np.testing.assert_array_equal(picture, naive(scene, atlas, order))


def test_pictures_can_be_changed_without_harm(scenes: list[tuple[WorldConfig, Scene]]) -> None:
    scene = scenes[0][1]
    before = render(scene)
    render(scene)[:] = 0
    np.testing.assert_array_equal(render(scene), before)
    with pytest.raises(ValueError, match="read-only"):
        sprite("apple", 24)[:] = 0


def test_every_noun_is_drawn_in_its_cell_and_centred() -> None:
    for noun in names():
        rows, columns = np.nonzero(sprite(noun, 96)[..., 3] > 0.05)
        assert max(np.ptp(rows), np.ptp(columns)) >= 92, noun
        assert abs(rows.min() - (95 - rows.max())) <= 2, noun
        assert abs(columns.min() - (95 - columns.max())) <= 2, noun


def test_no_sprite_hides_the_background() -> None:
    for noun in names():
        for size in (16, 24, 32, 48):
            assert (sprite(noun, size)[..., 3] == 0).mean() > 0.05, (noun, size)


def test_the_first_nouns_can_be_told_apart_when_small() -> None:
    """At 12 px, so that blur is included; half the distance from an apple to a heart would fail."""
    small = {noun: sprite(noun, 12).astype(float) for noun in names(32)}
    distances = {(a, b): np.sqrt(((small[a] - small[b]) ** 2).mean()) for a, b in combinations(small, 2)}
    closest = min(distances, key=lambda pair: distances[pair])
    assert distances[closest] > 0.2, closest


def test_nouns_are_words_that_no_other_noun_contains() -> None:
    plurals = [noun.plural for noun in lexicon().values()]
    assert len(names()) == 100 == len(set(plurals))
    assert [lexicon()[noun].plural for noun in ("apple", "fox", "butterfly")] == [
        "apples",
        "foxes",
        "butterflies",
    ]
    for a in names():
        assert a == a.lower()
        assert len(a.split()) <= 2
        assert not any(a != b and a in b.split() for b in names()), a
    articles = {noun: entry.article for noun, entry in lexicon().items()}
    assert articles["apple"] == articles["hourglass"] == "an"
    assert articles["unicorn"] == articles["rabbit"] == "a"


def test_an_unknown_noun_is_named() -> None:
    with pytest.raises(ConfigError, match="no noun 'gryphon'"):
        sprite("gryphon", 24)


def test_background_colours_are_far_apart() -> None:
    for a, b in combinations(PALETTE.values(), 2):
        assert np.linalg.norm(np.subtract(a, b)) > 55, (a, b)
    for name, channel in (("blue", 2), ("green", 1), ("pink", 0)):
        assert int(np.argmax(PALETTE[name])) == channel
