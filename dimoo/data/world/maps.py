"""Maps of a scene that are true by construction: edges of its picture, depth, masks and keypoints of its objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dimoo import conditions
from dimoo.core.errors import ConfigError
from dimoo.data.world.atlas import sprite
from dimoo.data.world.render import render
from dimoo.data.world.scene import Scene

NEARNESS: Mapping[str, int] = MappingProxyType({"small": 128, "big": 255})
"""Brightness in a depth map, by the name of the size: what is big is near."""
RADIUS = 3
"""Of a keypoint, in pixels."""


def map_of(scene: Scene, kind: str) -> NDArray[np.uint8]:
    """A map of a scene: uint8 [height, width, 3], grey in three channels.

    "canny": edges of the picture, white on black. "mask": white where an object's alpha is at least a half. "depth":
    the same silhouettes, 255 for big objects and 128 for small ones, 0 behind them. "pose": one keypoint an object, a
    white disc of radius 3 px around its centre.

    Raises:
        ConfigError: there is no such kind.
    """
    if kind not in MAKERS:
        raise ConfigError(f"there is no map {kind!r} of a scene; use one of {', '.join(MAPS)}")
    return np.repeat(MAKERS[kind](scene)[..., None], 3, axis=-1)


def _canny(scene: Scene) -> NDArray[np.uint8]:
    return np.asarray(conditions.make("canny", Image.fromarray(render(scene))))[..., 0]


def _mask(scene: Scene) -> NDArray[np.uint8]:
    return _silhouettes(scene, {"small": 255, "big": 255})


def _depth(scene: Scene) -> NDArray[np.uint8]:
    return _silhouettes(scene, NEARNESS)


def _pose(scene: Scene) -> NDArray[np.uint8]:
    canvas = np.zeros((scene.height, scene.width), np.uint8)
    rows, columns = np.ogrid[: scene.height, : scene.width]
    for entity in scene.entities:
        x, y = entity.center
        canvas[(columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= RADIUS**2] = 255
    return canvas


def _silhouettes(scene: Scene, brightness: Mapping[str, int]) -> NDArray[np.uint8]:
    canvas = np.zeros((scene.height, scene.width), np.uint8)
    for entity in scene.entities:
        size = entity.size_px
        solid = sprite(entity.noun, size)[..., 3] >= 0.5
        canvas[entity.y : entity.y + size, entity.x : entity.x + size][solid] = brightness[entity.size_name]
    return canvas


MAKERS: Mapping[str, Callable[[Scene], NDArray[np.uint8]]] = MappingProxyType(
    {"canny": _canny, "depth": _depth, "mask": _mask, "pose": _pose}
)
"""Kind -> a function from a scene to brightness, uint8 [height, width]."""
MAPS = tuple(MAKERS)
"""The kinds of maps."""
