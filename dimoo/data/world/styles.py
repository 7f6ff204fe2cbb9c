"""Styles of pictures: what each does to the pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dimoo import conditions
from dimoo.core.errors import ConfigError

Picture = NDArray[np.uint8]
"""uint8 [height, width, 3], red green blue."""

REC_601 = np.array((0.299, 0.587, 0.114))
"""Weights of red, green and blue in luminance (ITU-R BT.601)."""
SEPIA = np.array((255, 222, 173)) / 255
BLOCK = 4
"""Side of a block of `pixelated`, in pixels."""
INK = (30, 30, 34)


def stylise(picture: Picture, style: str) -> Picture:
    """A picture in a style, a new array of the same shape.

    Raises:
        ConfigError: there is no such style.
    """
    if style not in STYLES:
        raise ConfigError(f"there is no style {style!r}; use one of {', '.join(STYLES)}")
    return STYLES[style](picture)


def grey(picture: Picture) -> Picture:
    """Luminance in all three channels: `0.299 red + 0.587 green + 0.114 blue`, rounded."""
    return np.repeat(_rounded(picture @ REC_601)[..., None], 3, axis=-1)


def sepia(picture: Picture) -> Picture:
    """Luminance times a warm tint: white becomes (255, 222, 173), black stays."""
    return _rounded((picture @ REC_601)[..., None] * SEPIA)


def inverted(picture: Picture) -> Picture:
    """255 minus each channel."""
    return 255 - picture


def pixelated(picture: Picture) -> Picture:
    """Each block of 4x4 pixels in its mean colour, rounded; blocks at the right and bottom edge may be smaller."""
    high, wide = picture.shape[:2]
    rows, columns = np.arange(0, high, BLOCK), np.arange(0, wide, BLOCK)
    sums = np.add.reduceat(np.add.reduceat(picture.astype(np.float64), rows, axis=0), columns, axis=1)
    areas = np.diff(rows, append=high)[:, None] * np.diff(columns, append=wide)
    means = _rounded(sums / areas[..., None])
    return means.repeat(BLOCK, axis=0)[:high].repeat(BLOCK, axis=1)[:, :wide]


def outlined(picture: Picture) -> Picture:
    """The picture with its canny edges drawn in dark ink, (30, 30, 34)."""
    edges = np.asarray(conditions.make("canny", Image.fromarray(picture)))[..., 0] >= 128
    return np.where(edges[..., None], np.array(INK, np.uint8), picture)


def _rounded(values: NDArray[np.float64]) -> Picture:
    return np.rint(values).astype(np.uint8)


STYLES: Mapping[str, Callable[[Picture], Picture]] = MappingProxyType(
    {style.__name__: style for style in (grey, sepia, inverted, pixelated, outlined)}
)
"""All styles by name: uint8 [height, width, 3] -> uint8 [height, width, 3]."""
