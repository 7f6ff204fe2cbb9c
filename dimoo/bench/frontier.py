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
    """Write a PNG: one panel per task, quality with its standard error over speed-up, the frontier joined by a line.

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
    figure = Figure(figsize=(5.2 * len(tasks), 5.4), layout="constrained")
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for task, panel in zip(tasks, panels, strict=True):
        _panel(panel, task, [row for (of, _), row in shown.items() if of == task])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def _panel(panel: Axes, task: str, rows: Sequence[Row]) -> None:
    best = frontier(rows)
    panel.plot([row.ratio for row in best], [row.quality or 0.0 for row in best], color="0.8", zorder=1)
    for index, row in enumerate(rows):
        right = row.quality or 0.0
        panel.errorbar(
            row.ratio,
            right,
            yerr=(right * (1 - right) / row.answers) ** 0.5,
            fmt="s" if row.method.startswith(REFERENCE) else "o",
            color=f"C{index % 10}",
            fillstyle="full" if index < 10 else "none",
            markersize=5,
            elinewidth=0.8,
            label=row.method.replace("_", " "),
        )
    panel.set(title=task, xlabel="times as fast as the released loop", ylabel="share right", xscale="log", ylim=(0, 1))
    ticks = [tick for tick in (0.5, 1, 2, 3, 5, 10, 20, 30, 50) if tick <= 1.5 * max(row.ratio for row in rows)]
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()
    panel.grid(alpha=0.3)
    panel.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)
