"""From a scene to its picture."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dimoo.data.world.atlas import sprite
from dimoo.data.world.palette import PALETTE
from dimoo.data.world.scene import Scene


def render(scene: Scene) -> NDArray[np.uint8]:
    """Draw a scene: uint8 [height, width, 3].

    Each pixel is `sprite + (1 - alpha) * background`, rounded; since objects do not overlap, a sprite can be
    blended with each background colour once and then only be copied.
    """
    picture = np.empty((scene.height, scene.width, 3), np.uint8)
    for color, rows, columns in scene.background.areas(scene.height, scene.width):
        picture[rows, columns] = PALETTE[color]
        for entity in scene.entities:
            top, bottom = max(rows.start, entity.y), min(rows.stop, entity.y + entity.size_px)
            left, right = max(columns.start, entity.x), min(columns.stop, entity.x + entity.size_px)
            if top < bottom and left < right:
                blended = on_color(entity.noun, entity.size_px, color)
                x, y = entity.x, entity.y
                picture[top:bottom, left:right] = blended[top - y : bottom - y, left - x : right - x]
    return picture


@lru_cache(maxsize=4096)
def on_color(noun: str, size: int, color: str) -> NDArray[np.uint8]:
    """A sprite on a plain background: uint8 [size, size, 3], read-only."""
    pixels = sprite(noun, size)
    background = np.asarray(PALETTE[color], np.float32)
    blended = np.rint(255 * pixels[..., :3] + (1 - pixels[..., 3:]) * background).astype(np.uint8)
    blended.setflags(write=False)
    return blended
