from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimoo.evaluation.score import Z95, proportion


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [  # roots of (1 + z^2/n) q^2 - (2p + z^2/n) q + p^2, found in 40 decimal digits
        (8, 10, 0.490162, 0.943318),
        (0, 10, 0.0, 0.277533),
        (10, 10, 0.722467, 1.0),
        (50, 100, 0.403832, 0.596169),
        (1, 1, 0.206549, 1.0),
        (400, 500, 0.762711, 0.832715),
    ],
)
def test_known_values(right: int, n: int, low: float, high: float) -> None:
    score = proportion([True] * right + [False] * (n - right))
    assert (score.score, score.n) == (right / n, n)
    assert score.low == pytest.approx(low, abs=1e-6)
    assert score.high == pytest.approx(high, abs=1e-6)


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_bounds_solve_the_equation_that_defines_them(rights: list[bool]) -> None:
    """The bounds are the shares q for which (p - q)^2 = z^2 q (1 - q) / n."""
    score = proportion(rights)
    assert 0 <= score.low <= score.score <= score.high <= 1
    for q in (score.low, score.high):
        assert (score.score - q) ** 2 == pytest.approx(Z95**2 * q * (1 - q) / len(rights), abs=1e-12)


def test_no_case_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        proportion([])


def test_the_score_lies_in_its_interval_also_where_rounding_would_put_it_out() -> None:
    for n in range(1, 400):
        for right in (0, n):
            score = proportion([index < right for index in range(n)])
            assert 0 <= score.low <= score.score <= score.high <= 1
