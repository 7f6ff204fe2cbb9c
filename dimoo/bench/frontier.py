"""The speed-quality frontier of each task as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dimoo.bench.methods import REFERENCE
from dimoo.bench.sampling import Row
from dimoo.core.errors import BackendError, DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def frontier(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other one is both faster and at least as good as, slowest first."""
    best: list[Row] = []
    for row in sorted(rows, key=lambda row: row.seconds):
        if row.quality is not None and all(row.quality > (other.quality or 0.0) for other in best):
            best.append(row)
    return best[::-1]


def draw_frontier(rows: Sequence[Row], path: Path) -> Path:
    """Write a PNG: one panel per task, quality over speed-up, the frontier joined by a line.

    Of several models the first that has qualities is drawn, of several batches the first.

    Raises:
        DataError: no row has a quality.
        BackendError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendError("a picture of the frontier needs matplotlib; pip install dimoo[plot]") from error
    known = [row for row in rows if row.quality is not None]
    if not known:
        raise DataError("no row has a quality to draw; measure a checkpoint, as --model mini")
    first = known[0].model
    shown: dict[tuple[str, str], Row] = {}
    for row in known:
        if row.model == first:
            shown.setdefault((row.task, row.method), row)
    tasks = list(dict.fromkeys(task for task, _ in shown))
    figure = Figure(figsize=(5.2 * len(tasks), 4.2), layout="constrained")
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for task, panel in zip(tasks, panels, strict=True):
        _panel(panel, task, [row for (of, _), row in shown.items() if of == task])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def _panel(panel: Axes, task: str, rows: Sequence[Row]) -> None:
    best = frontier(rows)
    panel.plot([row.ratio for row in best], [row.quality or 0.0 for row in best], color="0.7", zorder=1)
    for row in rows:
        color = "tab:red" if row.method.startswith(REFERENCE) else "tab:blue"
        panel.scatter(row.ratio, row.quality or 0.0, color=color, s=24, zorder=2)
        panel.annotate(
            row.method.replace("_", " "),
            (row.ratio, row.quality or 0.0),
            fontsize=7,
            xytext=(4, 4),
            textcoords="offset points",
        )
    panel.set(title=task, xlabel="times as fast as the released loop", ylabel="share right", xscale="log")
    panel.margins(x=0.15, y=0.12)
    panel.grid(alpha=0.3)
