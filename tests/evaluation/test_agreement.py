from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from dimoo.evaluation.agreement import FAINT, agreement, edge_f1, explained, is_nearest, overlap

BITS = arrays(np.bool_, (6, 7))


def drawn(bits: np.ndarray) -> np.ndarray:
    return np.repeat(np.where(bits, 255, 0).astype(np.uint8)[..., None], 3, axis=-1)


def naive_share(points: np.ndarray, others: np.ndarray) -> float:
    """Of the points, the share that has one of the others within one pixel."""
    hits = [
        any(
            0 <= y + dy < others.shape[0] and 0 <= x + dx < others.shape[1] and others[y + dy, x + dx]
            for dy, dx in product((-1, 0, 1), repeat=2)
        )
        for y, x in np.argwhere(points)
    ]
    return sum(hits) / len(hits)


@settings(deadline=None)  # the first call imports scipy
@given(BITS, BITS)
def test_edges_are_compared_with_a_pixel_of_tolerance(one: np.ndarray, other: np.ndarray) -> None:
    value = edge_f1(drawn(one), drawn(other))
    assert value == edge_f1(drawn(other), drawn(one))
    if not one.any() or not other.any():
        assert value == float(not one.any() and not other.any())
        return
    precision, recall = naive_share(one, other), naive_share(other, one)
    assert value == pytest.approx(2 * precision * recall / (precision + recall) if precision + recall else 0)


@given(arrays(np.uint8, (5, 5)), arrays(np.uint8, (5, 5)))
def test_overlap_counts_equal_levels_among_what_either_shows(one: np.ndarray, other: np.ndarray) -> None:
    levels = (0, 128, 255)

    def nearest(value: int) -> int:
        return min(levels, key=lambda level: abs(level - value))

    pairs = [(nearest(int(a)), nearest(int(b))) for a, b in zip(one.flat, other.flat, strict=True)]
    shown = [a == b for a, b in pairs if a or b]
    expected = sum(shown) / len(shown) if shown else 1.0
    stacked = [np.repeat(picture[..., None], 3, axis=-1) for picture in (one, other)]
    # Halfway between two levels either is the nearest.
    if not {64, 191} & {int(value) for value in (*one.flat, *other.flat)}:
        assert overlap(stacked[0], stacked[1], levels) == pytest.approx(expected)


def test_a_depth_map_must_have_the_depth_right() -> None:
    near, far = np.full((4, 4, 3), 255, np.uint8), np.full((4, 4, 3), 128, np.uint8)
    assert agreement("mask", near, far) == 1.0
    assert agreement("depth", near, far) == 0.0
    assert agreement("depth", np.full((4, 4, 3), 100, np.uint8), far) == 1.0


def test_explained_is_one_for_a_copy_and_nothing_for_one_colour() -> None:
    truth = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    plain = np.broadcast_to(np.rint(truth.mean((0, 1))).astype(np.uint8), truth.shape)
    assert explained(truth, truth) == 1.0
    assert explained(plain, truth) == pytest.approx(0, abs=1e-3)
    assert explained(255 - truth, truth) < 0


def test_a_faint_picture_is_not_judged_by_its_noise() -> None:
    truth = np.full((8, 8, 3), 100, np.uint8)
    made = truth + np.uint8(5)
    assert explained(made, truth) == pytest.approx(1 - (5 / 255) ** 2 / FAINT)


def test_the_nearest_candidate_wins_and_an_equal_one_takes_nothing() -> None:
    dark, grey, bright = (np.full((2, 2, 3), level, np.uint8) for level in (0, 100, 255))
    made = np.full((2, 2, 3), 90, np.uint8)
    assert is_nearest(made, grey, [dark, grey, bright])
    assert not is_nearest(made, dark, [grey, bright])
