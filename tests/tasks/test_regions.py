from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from task_cases import box, equal, picture

from dimoo.core.errors import RequestError
from dimoo.tasks.regions import GREY, Box, Mark, Polygon, bright, composite, enlarged, feather, region_of, touched

HEIGHT, WIDTH = 12, 17
SIZE = (HEIGHT, WIDTH)

unhurried = settings(deadline=None)
"""An example may be the first that imports scikit-image or SciPy."""

regions = arrays.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    left, top = draw(st.integers(0, WIDTH - 1)), draw(st.integers(0, HEIGHT - 1))
    return Box(left, top, draw(st.integers(left + 1, WIDTH)), draw(st.integers(top + 1, HEIGHT)))


@st.composite
def masks(draw: st.DrawFn) -> Image.Image:
    values = draw(arrays.arrays(np.uint8, SIZE))
    values[draw(st.integers(0, HEIGHT - 1)), draw(st.integers(0, WIDTH - 1))] = 255
    return Image.fromarray(values)


def corners(b: Box) -> Polygon:
    """The same region as an outline."""
    return Polygon(((b.left, b.top), (b.right, b.top), (b.right, b.bottom), (b.left, b.bottom)))


marks = st.lists(boxes() | masks() | boxes().map(corners), min_size=1, max_size=4)


def crosses(x: float, y: float, points: list[tuple[float, float]]) -> bool:
    """Even-odd rule: a ray to the right meets the outline an odd number of times."""
    hits = 0
    for (x0, y0), (x1, y1) in pairwise([*points, points[0]]):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            hits += 1
    return hits % 2 == 1


# --- marks


@given(boxes())
@unhurried
def test_a_box_is_its_pixels(b: Box) -> None:
    expected = np.array(
        [[b.left <= x < b.right and b.top <= y < b.bottom for x in range(WIDTH)] for y in range(HEIGHT)]
    )
    assert np.array_equal(region_of(picture(*SIZE), [b]), expected)
    assert np.array_equal(region_of(picture(*SIZE), [corners(b)]), expected)


# Sevenths and a little: no side goes right through the centre of a pixel, where rounding decides.
@given(st.lists(st.tuples(st.integers(-20, 140), st.integers(-20, 100)), min_size=3, max_size=7))
@unhurried
def test_a_polygon_is_the_pixels_whose_centres_are_inside(corner: list[tuple[int, int]]) -> None:
    points = [(x / 7 + 0.0131, y / 7 + 0.0073) for x, y in corner]
    expected = np.array([[crosses(x + 0.5, y + 0.5, points) for x in range(WIDTH)] for y in range(HEIGHT)])
    if expected.any():
        assert np.array_equal(region_of(picture(*SIZE), [Polygon(points)]), expected)
    else:
        with pytest.raises(RequestError, match="selects no pixel"):
            region_of(picture(*SIZE), [Polygon(points)])


@given(masks())
@unhurried
def test_a_brush_selects_what_is_at_least_half_bright(mask: Image.Image) -> None:
    assert np.array_equal(region_of(picture(*SIZE), [mask]), np.asarray(mask) >= 128)


@given(marks)
@unhurried
def test_several_marks_are_their_union(several: list[Mark]) -> None:
    image = picture(*SIZE)
    before = image.tobytes()
    each = [region_of(image, [mark]) for mark in several]
    assert np.array_equal(region_of(image, several), np.logical_or.reduce(each))
    assert np.array_equal(region_of(image, several[::-1]), region_of(image, several))
    assert image.tobytes() == before


def test_boxes_are_upright_and_brushes_lie_as_the_picture_is_stored() -> None:
    upright, painted = picture(*SIZE), box(*SIZE, (2, 1, 9, 8))
    stored, mask = upright.rotate(90, expand=True), painted.rotate(90, expand=True)
    stored.getexif()[0x0112] = 6  # to be turned a quarter clockwise
    assert stored.size == mask.size == SIZE
    region = region_of(upright, [Box(2, 1, 9, 8)])
    assert np.array_equal(region_of(stored, [Box(2, 1, 9, 8)]), region)
    assert np.array_equal(region_of(stored, [mask]), region)
    assert np.array_equal(bright(mask, like=stored), region)
    assert 0x0112 not in mask.getexif()


def test_what_is_transparent_in_a_brush_is_not_selected() -> None:
    mask = Image.new("RGBA", SIZE[::-1], (255, 255, 255, 0))
    mask.paste((255, 255, 255, 255), (3, 4, 6, 7))
    assert np.array_equal(region_of(picture(*SIZE), [mask]), region_of(picture(*SIZE), [Box(3, 4, 6, 7)]))


@pytest.mark.parametrize(
    ("several", "message"),
    [
        ([], "there is no mark; give at least one"),
        ([Box(3, 3, 3, 8)], r"Box\(left=3, top=3, right=3, bottom=8\) is empty; left must be less"),
        ([Box(5, 3, 2, 8)], r"Box\(left=5, .*\) is empty"),
        ([Box(1, 8, 2, 3)], r"is empty; .* top less than bottom"),
        ([Box(0, 0, 18, 12)], "reaches out of the picture, which is 17 wide and 12 high"),
        ([Box(0, 0, 17, 13)], "reaches out of the picture"),
        ([Box(-1, 0, 17, 12)], "reaches out of the picture"),
        ([Box(0, -1, 17, 12)], "reaches out of the picture"),
        ([Box(0, 0, 4.5, 12)], "right of the box 4.5 must be a whole number"),
        ([Polygon(((0, 0), (9, 9)))], "has 2 points; an outline needs at least 3"),
        ([Polygon(())], "has 0 points"),
        ([Polygon(((0, 0), (9, 9), (0, float("nan"))))], r"points \(x, y\) of finite numbers"),
        ([Polygon(((0, 0), (9, 9), (0,)))], r"points \(x, y\) of finite numbers"),
        ([Polygon((0, 0, 9, 9, 0, 3))], r"points \(x, y\) of finite numbers"),
        ([Polygon(((0, 0), (9, 9), ("a", "b")))], r"points \(x, y\) of finite numbers"),
        ([Polygon(((-9, -9), (-1, -9), (-1, -1)))], "selects no pixel"),
        ([Image.new("L", SIZE, 255)], "the mask is 17x12 but the image is 12x17; make the mask as large"),
        ([Image.new("L", SIZE[::-1], 127)], "the mask selects no pixel; paint"),
        ([(1, 2, 3, 4)], "the mark, unless a Box or a Polygon, must be a Pillow image, not tuple"),
    ],
)
def test_bad_marks(several: list[Mark], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        region_of(picture(*SIZE), several)
    if several:  # and also beside good ones, unless it is only empty
        good: list[Mark] = [Box(0, 0, 2, 2), *several]
        if "selects no pixel" in message:
            assert region_of(picture(*SIZE), good).sum() == 4
        else:
            with pytest.raises(RequestError, match=message):
                region_of(picture(*SIZE), good)


# --- seams


@given(regions, st.integers(0, 5))
@unhurried
def test_alpha_grows_with_the_distance_to_the_outside(region: np.ndarray, width: int) -> None:
    alpha = feather(region, width)
    assert alpha.dtype == np.float32
    outside = np.argwhere(~region)
    for place in np.ndindex(*region.shape):
        distance = np.sqrt(((outside - place) ** 2).sum(axis=1)).min() if len(outside) else np.inf
        assert alpha[place] == pytest.approx(min(1.0, distance / (width + 1)), abs=1e-6)


@given(regions, st.integers(0, 5))
@unhurried
def test_alpha_is_nought_exactly_outside(region: np.ndarray, width: int) -> None:
    before = region.copy()
    assert np.array_equal(feather(region, width) > 0, region)
    assert np.array_equal(region, before)


@given(regions)
@unhurried
def test_no_width_is_the_region(region: np.ndarray) -> None:
    assert np.array_equal(feather(region, 0), region.astype(np.float32))


@given(regions, st.integers(0, 4))
@unhurried
def test_a_wider_seam_shows_less_of_the_new(region: np.ndarray, width: int) -> None:
    assert (feather(region, width + 1) <= feather(region, width)).all()


def test_a_seam_does_not_fade_at_the_border_of_the_picture() -> None:
    region = region_of(picture(4, 10), [Box(4, 0, 10, 4)])
    row = [0, 0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    np.testing.assert_allclose(feather(region, 3), [row] * 4, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("width", "message"), [(-1, "-1 is negative; 0 is a hard"), (1.5, "1.5 must be a whole")])
def test_bad_seams(width: int, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        feather(np.ones((2, 2), dtype=np.bool_), width)


@given(regions, st.integers(0, 5), st.integers(0, 2**32 - 1))
@unhurried
def test_a_composite_is_the_old_outside_and_the_formula_inside(region: np.ndarray, width: int, seed: int) -> None:
    new, old = picture(*region.shape, seed), picture(*region.shape, seed + 1)
    before = new.tobytes(), old.tobytes()
    alpha = feather(region, width)
    result = np.asarray(composite(new, old, alpha))
    assert np.array_equal(result[~region], np.asarray(old)[~region])
    assert np.array_equal(result[alpha == 1], np.asarray(new)[alpha == 1])
    a, n, o = alpha.astype(float)[..., None], np.asarray(new).astype(float), np.asarray(old).astype(float)
    assert np.abs(result - (o + a * (n - o))).max() <= 0.5 + 1e-9
    assert (new.tobytes(), old.tobytes()) == before


def test_a_composite_of_a_picture_with_itself_is_the_picture() -> None:
    old = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB")
    alpha = np.random.default_rng(0).random((16, 16), dtype=np.float32)
    assert equal(composite(old, old, alpha), old)


def test_a_composite_lays_both_upright() -> None:
    new, old = picture(*SIZE), picture(*SIZE, 1)
    stored = old.rotate(90, expand=True)
    stored.getexif()[0x0112] = 6
    alpha = feather(region_of(stored, [Box(2, 1, 9, 8)]), 2)
    assert equal(composite(new, stored, alpha), composite(new, old, alpha))


@pytest.mark.parametrize(
    ("new", "alpha"), [((12, 17), (17, 12)), ((17, 12), (12, 17)), ((17, 12), (17, 12)), ((12, 17), (12,))]
)
def test_composites_of_different_sizes_are_refused(new: tuple[int, int], alpha: tuple[int, ...]) -> None:
    with pytest.raises(RequestError, match=r"the old one 12x17.* and alpha 1"):
        composite(picture(*new), picture(*SIZE), np.ones(alpha, dtype=np.float32))


# --- larger canvases


@given(st.tuples(*[st.integers(0, 9)] * 4).filter(any))
@unhurried
def test_enlarged_and_cropped_is_the_original(margins: tuple[int, int, int, int]) -> None:
    left, right, top, bottom = margins
    image = picture(*SIZE)
    canvas, keep = enlarged(image, left, right, top, bottom)
    assert canvas.size == (left + WIDTH + right, top + HEIGHT + bottom)
    assert keep.shape == (canvas.height, canvas.width)
    assert equal(canvas.crop((left, top, left + WIDTH, top + HEIGHT)), image)
    assert np.array_equal(np.argwhere(keep)[[0, -1]], [(top, left), (top + HEIGHT - 1, left + WIDTH - 1)])
    assert keep.sum() == HEIGHT * WIDTH
    assert (np.asarray(canvas)[~keep] == GREY).all()


def test_what_is_enlarged_is_upright_rgb_and_not_changed() -> None:
    upright = picture(*SIZE)
    stored = upright.rotate(90, expand=True)
    stored.getexif()[0x0112] = 6
    before = stored.tobytes()
    canvas, _ = enlarged(stored, right=4)
    assert equal(canvas, enlarged(upright, right=4)[0])
    assert stored.tobytes() == before
    assert enlarged(Image.new("LA", (3, 2), (0, 0)), top=1)[0].getpixel((0, 1)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("margins", "message"),
    [
        ({}, "all margins are 0"),
        ({"left": -3, "right": 9}, "the left margin -3 is negative"),
        ({"right": -1}, "the right margin -1 is negative"),
        ({"top": -1}, "the top margin -1 is negative"),
        ({"bottom": -1}, "the bottom margin -1 is negative"),
        ({"bottom": 2.5}, "the bottom margin 2.5 must be a whole number"),
    ],
)
def test_bad_margins(margins: dict[str, int], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        enlarged(picture(*SIZE), **margins)


def test_importing_loads_neither_torch_nor_the_scientific_libraries() -> None:
    script = "import sys, dimoo.tasks.regions\nprint([n for n in ('torch', 'skimage', 'scipy') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@given(st.data(), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_a_code_is_touched_by_any_of_its_pixels(data, height, width, down, across):
    region = data.draw(arrays.arrays(np.bool_, (height * down, width * across)))
    found = touched(region, (down, across))
    assert found.shape == (height, width)
    for row in range(height):
        for column in range(width):
            pixels = [
                region[y, x]
                for y in range(row * down, (row + 1) * down)
                for x in range(column * across, (column + 1) * across)
            ]
            assert found[row, column] == any(pixels)
