"""A share of right answers, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

Z95 = 1.959963984540054
"""Two-sided 95% quantile of the standard normal distribution."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """The share of `n` cases that were right, with a 95% interval."""

    score: float
    n: int
    low: float
    high: float


def proportion(rights: Sequence[bool]) -> Score:
    """Score right and wrong cases with Wilson's interval.

    For k right of n, p = k/n: (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n). It stays within 0..1 and is
    honest where p is near either end, as the scores of a good judge are.

    Raises:
        ValueError: there is no case.
    """
    n = len(rights)
    if not n:
        raise ValueError("no cases to score; give at least one")
    p, z2 = sum(rights) / n, Z95**2 / n
    middle, half = p + z2 / 2, sqrt(p * (1 - p) * z2 + z2**2 / 4)
    # At the ends the interval touches p; rounding must not put p outside.
    low, high = (middle - half) / (1 + z2), (middle + half) / (1 + z2)
    return Score(score=p, n=n, low=min(p, max(0.0, low)), high=max(p, min(1.0, high)))
