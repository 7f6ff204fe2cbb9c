"""Curves as SVG that stands in a page by itself: no library, no script, the same bytes for the same values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, TOP, LOW, LINE = 480, 170, 76, 26, 24, 16
"""In CSS pixels: the picture without its legend, the room beside, above and below the curves, a line of the legend."""
COLORS = ("#2563eb", "#dc2626", "#16a34a", "#9333ea", "#ea580c", "#0891b2", "#ca8a04", "#475569")
POINTS = 500
"""Points of a curve that are drawn, at most."""
Points = Sequence[tuple[float, float]]


def plot(title: str, curves: Mapping[str, Points]) -> str:
    """Curves over steps, with a legend that says the last value of each.

    Args:
        title: plain text.
        curves: (step, value) by name, in plain text; values that are not finite are left out.
    """
    kept = {name: [(x, y) for x, y in points if math.isfinite(y)] for name, points in curves.items()}
    kept = {name: points for name, points in kept.items() if points}
    xs, ys = ([point[axis] for points in kept.values() for point in points] for axis in (0, 1))
    across, up = _Scale(xs, LEFT, WIDTH - 10), _Scale(ys, HEIGHT - LOW, TOP)
    parts = [f'<text x="{LEFT}" y="15" font-weight="600">{escape(title)}</text>']
    for value in up.ticks():
        y = up(value)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - 10}" y2="{y:.1f}" stroke="#e5e5e5"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#666">{_short(value)}</text>')
    for value in across.ticks():
        place = f'x="{across(value):.1f}" y="{HEIGHT - 6}"'
        parts.append(f'<text {place} text-anchor="middle" fill="#666">{value:,.0f}</text>')
    for number, (name, points) in enumerate(kept.items()):
        color, y = COLORS[number % len(COLORS)], HEIGHT + LINE * (number + 1) - 4
        line = " ".join(f"{across(x):.1f},{up(value):.1f}" for x, value in _thinned(points))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        parts.append(f'<circle cx="{across(points[-1][0]):.1f}" cy="{up(points[-1][1]):.1f}" r="2.5" fill="{color}"/>')
        parts.append(f'<text x="{LEFT}" y="{y}" fill="{color}">{escape(name)} {points[-1][1]:.4g}</text>')
    height = HEIGHT + LINE * len(kept) + 4
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        f' font-size="12" font-family="system-ui, sans-serif" role="img">{"".join(parts)}</svg>'
    )


class _Scale:
    """Values -> pixels, linear."""

    def __init__(self, values: Sequence[float], start: float, stop: float) -> None:
        self._low, self._high = min(values, default=0.0), max(values, default=0.0)
        self._start, self._stop = start, stop

    def __call__(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low) if self._high > self._low else 0.5
        return self._start + share * (self._stop - self._start)

    def ticks(self) -> list[float]:
        """The ends and the middle; one where all values are the same."""
        return sorted({self._low, (self._low + self._high) / 2, self._high})


def _short(value: float) -> str:
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"


def _thinned(points: Points) -> Points:
    """Every so many of them, counted from the last."""
    every = math.ceil(len(points) / POINTS)
    return points[::-1][::every][::-1]
