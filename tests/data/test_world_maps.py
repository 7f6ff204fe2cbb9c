from __future__ import annotations

import numpy as np
import pytest

from dimoo.core.errors import ConfigError
from dimoo.data.world import Background, Entity, Scene, WorldConfig
from dimoo.data.world.atlas import sprite
from dimoo.data.world.maps import MAPS, map_of

CAT = Entity(noun="cat", size_name="small", size_px=24, x=0, y=8)
DOG = Entity(noun="dog", size_name="big", size_px=32, x=32, y=32)
BLUE = Background(colors=("blue",))
PAIR = Scene(height=64, width=72, background=BLUE, entities=(CAT, DOG))
EMPTY = Scene(height=32, width=40, background=BLUE, entities=())


def naive(scene: Scene, small: int, big: int) -> np.ndarray:
    """Silhouettes, pixel by pixel."""
    canvas = np.zeros((scene.height, scene.width, 3), np.uint8)
    for e in scene.entities:
        for j in range(e.size_px):
            for i in range(e.size_px):
                if sprite(e.noun, e.size_px)[j, i, 3] >= 0.5:
                    canvas[e.y + j, e.x + i] = big if e.size_name == "big" else small
    return canvas


def test_masks_and_depth_equal_the_naive_ones(scenes: list[tuple[WorldConfig, Scene]]) -> None:
    for scene in [PAIR, EMPTY, *(scene for _, scene in (*scenes[:4], *scenes[300:304], *scenes[600:603]))]:
        np.testing.assert_array_equal(map_of(scene, "mask"), naive(scene, 255, 255))
        np.testing.assert_array_equal(map_of(scene, "depth"), naive(scene, 128, 255))
    assert set(np.unique(map_of(PAIR, "depth"))) == {0, 128, 255}


def test_a_keypoint_by_hand() -> None:
    """The centre of the cat is the corner between pixels 11|12 and 19|20: 32 pixel centres lie within 3 px of it."""
    disc = map_of(PAIR, "pose")[16:24, 8:16, 0] // 255
    rows = ["00000000", "00111100", "01111110", "01111110", "01111110", "01111110", "00111100", "00000000"]
    assert ["".join(map(str, row)) for row in disc.tolist()] == rows
    assert (map_of(PAIR, "pose") > 0).all(-1).sum() == 64
    odd = Entity(noun="cat", size_name="small", size_px=25, x=0, y=0)
    point = map_of(Scene(height=32, width=32, background=BLUE, entities=(odd,)), "pose")[..., 0] > 0
    ys, xs = np.nonzero(point)
    assert {(y, x) for y, x in zip(ys.tolist(), xs.tolist(), strict=True)} == {
        (y, x) for y in range(32) for x in range(32) if (y - 12) ** 2 + (x - 12) ** 2 <= 9
    }


def test_edges_are_where_the_picture_changes() -> None:
    edges = map_of(PAIR, "canny")[..., 0]
    assert set(np.unique(edges)) == {0, 255}
    near = np.zeros((64, 72), bool)
    near[6:34, 0:26] = near[30:64, 30:66] = True
    assert not edges[~near].any()
    for e in PAIR.entities:
        outline = edges[e.y : e.y + e.size_px, e.x : e.x + e.size_px] > 0
        assert outline.sum() > 2 * e.size_px
    halves = Scene(height=32, width=32, background=Background(colors=("white", "purple"), edge=16), entities=())
    assert set(np.nonzero(map_of(halves, "canny")[4:28, :, 0])[1].tolist()) <= {15, 16}
    assert map_of(halves, "canny")[4:28, 15:17].any(axis=(1, 2)).all()


@pytest.mark.parametrize("kind", MAPS)
def test_maps_are_grey_pictures_of_the_scenes_size(kind: str) -> None:
    result = map_of(PAIR, kind)
    assert (result.dtype, result.shape) == (np.uint8, (64, 72, 3))
    assert (result == result[..., :1]).all()
    assert result.any()
    assert map_of(EMPTY, kind).shape == (32, 40, 3)
    assert not map_of(EMPTY, kind).any()


def test_an_unknown_map_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no map 'normals' of a scene; use one of canny, depth, mask, pose"):
        map_of(PAIR, "normals")
