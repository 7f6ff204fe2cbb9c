"""Edge maps, white on black, through scikit-image, which is imported at the first call."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIGMA = 1.0
"""Width of Canny's Gaussian, in pixels."""

LOW, HIGH = 0.04, 0.1
"""Canny's hysteresis, as gradients of a grey picture in [0, 1]: an edge has a pixel over HIGH and none under LOW."""


def canny(picture: Image.Image) -> Image.Image:
    """Thin edges, each pixel black or white (Canny 1986).

    The grey picture is smoothed, its gradient thinned to ridges, and the ridges kept that reach the higher threshold.
    They are one pixel wide, two where a sharp step lies between pixels; the outermost pixels are never edges.
    """
    from skimage import feature

    # The mean of the channels, not the luminance: that hardly sees blue, and loses a grey rabbit on yellow.
    grey = np.asarray(picture, dtype=np.float32).mean(axis=-1) / 255
    return _drawn(feature.canny(grey, sigma=SIGMA, low_threshold=LOW, high_threshold=HIGH).astype(np.float32))


def soft_edges(picture: Image.Image) -> Image.Image:
    """Edges in shades: the Scharr gradient of the colours, as bright as it is steep.

    Brightness is |g| / max |g| over the picture, |g| the root mean square over the three channels. It stands in for the
    maps of HED (Xie & Tu 2015), which needs a network. A picture of one colour is black.
    """
    from skimage import filters

    colors = np.asarray(picture, dtype=np.float32) / 255
    steepness = np.sqrt(np.mean([filters.scharr(channel) ** 2 for channel in np.moveaxis(colors, -1, 0)], axis=0))
    return _drawn(steepness / max(float(steepness.max()), 1e-6))


def _drawn(shares: NDArray[np.floating]) -> Image.Image:
    """Brightness in [0, 1], [H, W], as an RGB picture."""
    return Image.fromarray(np.round(shares * 255).astype(np.uint8)).convert("RGB")
