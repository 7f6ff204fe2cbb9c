from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dimoo.conditions import ESTIMATED, MAKERS, make
from dimoo.core.errors import RequestError
from dimoo.data.world import WorldConfig, render, sample_scene

INK, PAPER = (200, 40, 40), (230, 230, 60)


def square(left: int = 20, top: int = 12, size: int = 24) -> Image.Image:
    """A red square on yellow, 48 high and 64 wide."""
    picture = Image.new("RGB", (64, 48), PAPER)
    ImageDraw.Draw(picture).rectangle((left, top, left + size - 1, top + size - 1), fill=INK)
    return picture


def drawn(kind: str, picture: Image.Image) -> np.ndarray:
    """A map's brightness [H, W], once it is known to be a grey picture in RGB of the right size."""
    result = make(kind, picture)
    assert (result.mode, result.size) == ("RGB", picture.size)
    values = np.asarray(result)
    assert (values == values[..., :1]).all()
    return values[..., 0]


@pytest.mark.parametrize("kind", MAKERS)
def test_edges_are_along_the_outline_and_nowhere_else(kind: str) -> None:
    edges = drawn(kind, square()) > 0
    near = np.zeros_like(edges)
    near[10:38, 18:46] = True
    near[15:33, 23:41] = False  # within 3 pixels of the outline
    assert not edges[~near].any()
    rows, columns = edges[16:32], edges[:, 24:40]  # away from the corners
    assert rows[:, 18:23].any(axis=1).all()  # left
    assert rows[:, 41:46].any(axis=1).all()  # right
    assert columns[10:15].any(axis=0).all()  # top
    assert columns[33:38].any(axis=0).all()  # bottom


def test_canny_is_thin_and_either_black_or_white() -> None:
    edges = drawn("canny", square())
    assert set(np.unique(edges)) == {0, 255}
    for across in (np.count_nonzero(edges[16:32], axis=1), np.count_nonzero(edges[:, 24:40], axis=0)):
        assert across.min() >= 2  # two sides, each one pixel wide, or two as the step lies right between pixels
        assert across.max() <= 4


def test_canny_sees_colours_of_one_luminance() -> None:
    """A light grey animal on the world's yellow has next to no contrast in luminance."""
    picture = Image.new("RGB", (64, 48), (250, 228, 130))
    ImageDraw.Draw(picture).rectangle((20, 12, 43, 35), fill=(225, 225, 225))
    assert np.count_nonzero(drawn("canny", picture)) > 60


def test_soft_edges_are_scharr_gradients_over_their_maximum() -> None:
    """Against the filter written out: derivative (1, 0, -1) / 2 one way, (3, 10, 3) / 16 the other."""
    picture = square()
    ImageDraw.Draw(picture).ellipse((25, 16, 36, 30), fill=(20, 90, 250))
    colors = np.asarray(picture, dtype=np.float64) / 255
    height, width, _ = colors.shape
    steep = np.zeros((height, width))
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            patch = colors[y - 1 : y + 2, x - 1 : x + 2]
            smooth = np.array([3, 10, 3])[:, None] / 16
            down = ((patch[2] - patch[0]) / 2 * smooth).sum(axis=0)
            across = ((patch[:, 2] - patch[:, 0]) / 2 * smooth).sum(axis=0)
            steep[y, x] = np.sqrt(np.mean(down**2 + across**2))
    expected = 255 * steep / steep.max()
    assert np.abs(drawn("soft_edges", picture) - expected).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (40, 3), (64, 64)])
def test_nothing_to_see_is_black(kind: str, size: tuple[int, int]) -> None:
    assert not drawn(kind, Image.new("RGB", size, PAPER)).any()


@pytest.mark.parametrize("kind", MAKERS)
def test_noise_in_flat_areas_is_faint(kind: str) -> None:
    """A camera's noise is no edge while there is a real one in the picture."""
    noise = np.random.default_rng(0).normal(0, 2, (48, 64, 3))
    noisy = Image.fromarray((np.asarray(square()) + noise).clip(0, 255).astype(np.uint8))
    assert drawn(kind, noisy)[:, :16].max() < 40


@pytest.mark.parametrize("kind", MAKERS)
def test_maps_move_with_the_picture(kind: str) -> None:
    assert np.array_equal(np.roll(drawn(kind, square()), (3, 5), axis=(0, 1)), drawn(kind, square(25, 15)))


def test_canny_outlines_what_is_in_the_world() -> None:
    """Nearly all places where the colour jumps are within a pixel of an edge, and edges are few."""
    found = jumps = edges = 0
    for seed in range(20):
        scene = render(sample_scene(WorldConfig(), np.random.default_rng(seed)))
        values = scene.astype(np.int64)
        jump = np.zeros(values.shape[:2], dtype=bool)
        jump[:, 2:] |= np.abs(values[:, 2:] - values[:, :-2]).max(axis=-1) > 90
        jump[2:] |= np.abs(values[2:] - values[:-2]).max(axis=-1) > 90
        edge = drawn("canny", Image.fromarray(scene)) > 0
        padded = np.pad(edge, 2)
        near = np.zeros_like(edge)
        for down in range(5):
            for right in range(5):
                near |= padded[down : down + edge.shape[0], right : right + edge.shape[1]]
        found, jumps, edges = found + (jump & near).sum(), jumps + jump.sum(), edges + edge.mean() / 20
    assert found / jumps > 0.95
    assert edges < 0.12


@pytest.mark.parametrize("kind", MAKERS)
def test_the_picture_is_turned_upright_and_not_changed(kind: str) -> None:
    upright = square(8, 4, 20)
    stored = upright.rotate(90, expand=True)
    stored.getexif()[0x0112] = 6  # to be turned a quarter clockwise
    before = stored.tobytes()
    assert make(kind, stored).tobytes() == make(kind, upright).tobytes()
    assert stored.tobytes() == before


@pytest.mark.parametrize("kind", MAKERS)
def test_transparency_is_white(kind: str) -> None:
    clear = Image.new("RGBA", (64, 48), (0, 0, 0, 0))
    clear.paste((*INK, 255), (20, 12, 44, 36))
    laid = Image.new("RGB", (64, 48), "white")
    laid.paste(INK, (20, 12, 44, 36))
    assert make(kind, clear).tobytes() == make(kind, laid).tobytes()


@pytest.mark.parametrize("kind", ESTIMATED)
def test_what_needs_a_network_is_asked_for(kind: str) -> None:
    with pytest.raises(RequestError, match=rf"a {kind} map needs a network.*estimators=\{{'{kind}'"):
        make(kind, square())


def test_unknown_kinds_are_named() -> None:
    with pytest.raises(RequestError, match=r"'cany' is unknown; the kinds are canny, soft_edges, depth"):
        make("cany", square())


def test_what_is_no_picture_is_named() -> None:
    with pytest.raises(RequestError, match=r"the picture must be a Pillow image, not str 'photo.png'"):
        make("canny", "photo.png")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["depth", "canny", "my own"])
def test_an_estimator_gets_the_upright_picture_and_makes_the_map(kind: str) -> None:
    seen: list[Image.Image] = []

    def estimate(picture: Image.Image) -> Image.Image:
        seen.append(picture)
        return Image.new("L", picture.size, 77)

    stored = square().convert("RGBA").rotate(90, expand=True)
    stored.getexif()[0x0112] = 6
    result = make(kind, stored, estimators={kind: estimate})
    assert [(picture.mode, picture.tobytes()) for picture in seen] == [("RGB", square().tobytes())]
    assert (result.mode, result.tobytes()) == ("RGB", Image.new("RGB", (64, 48), (77, 77, 77)).tobytes())


def test_an_estimator_for_another_kind_changes_nothing() -> None:
    given = {"depth": lambda picture: picture}
    assert make("canny", square(), estimators=given).tobytes() == make("canny", square()).tobytes()
    with pytest.raises(RequestError, match="a pose map needs a network"):
        make("pose", square(), estimators=given)


def test_an_estimator_of_another_size_is_refused() -> None:
    with pytest.raises(RequestError, match="the depth estimator made a map of 24x32 for a picture of 48x64"):
        make("depth", square(), estimators={"depth": lambda picture: picture.resize((32, 24))})


def test_an_estimator_that_returns_no_picture_is_refused() -> None:
    with pytest.raises(RequestError, match="the depth estimator's map must be a Pillow image, not ndarray"):
        make("depth", square(), estimators={"depth": np.asarray})  # type: ignore[dict-item]


def test_importing_loads_nothing_heavy() -> None:
    script = "import sys, dimoo.conditions\nprint([n for n in ('torch', 'skimage', 'scipy') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
