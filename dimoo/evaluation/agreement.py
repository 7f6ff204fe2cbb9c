"""How alike two pictures or two maps are, in numbers. Pictures and maps are uint8 [H, W, 3]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

LEVELS: Mapping[str, tuple[int, ...]] = MappingProxyType({"mask": (0, 255), "depth": (0, 128, 255), "pose": (0, 255)})
"""Brightness that a map of each kind can have; 0 is nothing."""
FAINT = 0.01
"""Variance of brightness in 0..1 below which a picture shows hardly more than one colour, as grey objects on grey."""


def explained(made: Picture, truth: Picture) -> float:
    """How much of a true picture another one explains: 1 - |made - truth|^2 / max(|truth - its mean|^2, FAINT).

    Squares are means over pixels and channels, its mean is its mean colour. 1 is a perfect copy, 0 as good as one plain
    colour. It is a signal-to-noise ratio, so that it asks for the objects also where they are small or pale.
    """
    signal = float(np.square(_shares(truth) - _shares(truth).mean((0, 1))).mean())
    return 1 - mean_squared_error(made, truth) / max(signal, FAINT)


def mean_squared_error(one: Picture, other: Picture) -> float:
    """Of brightness in 0..1."""
    return float(np.square(_shares(one) - _shares(other)).mean())


def is_nearest(made: Picture, truth: Picture, others: Sequence[Picture]) -> bool:
    """Whether a picture is at least as near to the truth as to any other candidate, by mean squared error.

    A candidate that equals the truth, as the mirror image of a symmetric object does, takes nothing from it.
    """
    error = mean_squared_error(made, truth)
    return all(error <= mean_squared_error(made, other) for other in others)


def agreement(kind: str, one: Picture, other: Picture) -> float:
    """How well two maps of a kind agree, 0..1: `edge_f1` of edges, `overlap` of all others."""
    return edge_f1(one, other) if kind == "canny" else overlap(one, other, LEVELS[kind])


def edge_f1(made: Picture, truth: Picture) -> float:
    """F1 = 2PR / (P + R) of edge pixels, where a pixel is right if the other map has one within 1 px, diagonals too.

    P is the share of made edges that are right, R the share of true edges that were made. Two empty maps agree.
    """
    from scipy.ndimage import binary_dilation

    found, wanted = (picture.mean(-1) >= 128 for picture in (made, truth))
    if not found.any() and not wanted.any():
        return 1.0
    if not found.any() or not wanted.any():
        return 0.0
    near = np.ones((3, 3), np.bool_)
    precision = float(binary_dilation(wanted, near)[found].mean())
    recall = float(binary_dilation(found, near)[wanted].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def overlap(one: Picture, other: Picture, levels: Sequence[int]) -> float:
    """Intersection over union: pixels where both show the same, among those where either shows something.

    Brightness counts as the nearest of `levels`. Two empty maps agree.
    """
    steps = np.asarray(levels, np.float64)
    first, second = (np.abs(picture.mean(-1)[..., None] - steps).argmin(-1) for picture in (one, other))
    union = (first > 0) | (second > 0)
    return float((first == second)[union].mean()) if union.any() else 1.0


def _shares(picture: Picture) -> NDArray[np.float64]:
    return picture.astype(np.float64) / 255
