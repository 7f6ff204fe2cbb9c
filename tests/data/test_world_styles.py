from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dimoo import conditions
from dimoo.core.errors import ConfigError
from dimoo.data.world import Scene, WorldConfig, render
from dimoo.data.world.styles import STYLES, stylise


def picture(*rows: list[tuple[int, int, int]]) -> np.ndarray:
    pixels = np.array(rows, np.uint8)
    pixels.setflags(write=False)
    return pixels


SIX = picture([(255, 0, 0), (0, 255, 0), (0, 0, 255)], [(0, 0, 0), (255, 255, 255), (10, 200, 100)])


def test_grey_by_hand() -> None:
    """0.299 * 255 = 76.2, 0.587 * 255 = 149.7, 0.114 * 255 = 29.1; 2.99 + 117.4 + 11.4 = 131.8."""
    assert stylise(SIX, "grey").tolist() == [[[76] * 3, [150] * 3, [29] * 3], [[0] * 3, [255] * 3, [132] * 3]]


def test_sepia_by_hand() -> None:
    """Luminance 131.8 is (131.8, 131.8 * 222 / 255, 131.8 * 173 / 255)."""
    toned = stylise(SIX, "sepia")
    assert toned[1].tolist() == [[0, 0, 0], [255, 222, 173], [132, 115, 89]]


def test_inverted_by_hand() -> None:
    assert stylise(SIX, "inverted")[1].tolist() == [[255] * 3, [0] * 3, [245, 55, 155]]


@pytest.mark.parametrize("shape", [(8, 8), (5, 6), (3, 9), (1, 1)])
def test_pixelated_equals_a_loop_over_blocks(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    expected = pixels.copy()
    for y in range(0, shape[0], 4):
        for x in range(0, shape[1], 4):
            expected[y : y + 4, x : x + 4] = np.rint(pixels[y : y + 4, x : x + 4].mean((0, 1)))
    np.testing.assert_array_equal(stylise(pixels, "pixelated"), expected)


def test_outlined_inks_edges_and_nothing_else() -> None:
    square = np.full((32, 32, 3), 240, np.uint8)
    square[8:24, 8:24] = (200, 40, 40)
    result = stylise(square, "outlined")
    inked = (result == (30, 30, 34)).all(-1)
    np.testing.assert_array_equal(result[~inked], square[~inked])
    np.testing.assert_array_equal(inked, np.asarray(conditions.make("canny", Image.fromarray(square)))[..., 0] > 0)
    assert not inked[11:21, 11:21].any()
    assert not inked[:5].any()
    assert inked[16, 6:10].any()
    assert inked[22:26, 16].any()


@pytest.mark.parametrize("style", STYLES)
def test_a_style_leaves_its_input_and_differs_from_the_others(
    style: str, scenes: list[tuple[WorldConfig, Scene]]
) -> None:
    original = render(scenes[0][1])
    original.setflags(write=False)
    kept = original.copy()
    result = stylise(original, style)
    assert result.dtype == np.uint8
    assert result.shape == original.shape
    np.testing.assert_array_equal(original, kept)
    assert not np.shares_memory(result, original)
    for other in STYLES:
        if other != style:
            assert (stylise(original, other) != result).any(), other
    assert (result != original).any()


def test_an_unknown_style_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no style 'cubist'; use one of grey, sepia, inverted, pixelated, outlined"):
        stylise(SIX, "cubist")
