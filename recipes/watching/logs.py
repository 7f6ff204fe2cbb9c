"""The CSV logs of a run: what it learnt, which is the same however it was broken off, and how fast, which is not."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger

LEARNT, SPEED = Path("csv"), Path("csv/speed")
"""Folders of the two in that of the run."""
FILE = "metrics.csv"


class _Part(CSVLogger):
    """Keeps the values that are of the speed, or the others."""

    def __init__(self, folder: Path, part: Path) -> None:
        super().__init__(folder / part.parent, name="", version=part.name)
        self._speed = part == SPEED

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Keep those of the part, if there are some."""
        own = {name: value for name, value in metrics.items() if _of_speed(name) == self._speed}
        if own:
            super().log_metrics(own, step)


def csv_loggers(folder: Path, done: int) -> list[CSVLogger]:
    """Loggers of both parts that keep the rows of the first `done` steps; Lightning's own drops them."""
    loggers: list[CSVLogger] = []
    for part in (LEARNT, SPEED):
        kept = [row for row in read_rows(folder / part / FILE) if row["step"] <= done]
        logger = _Part(folder, part)
        for row in kept:
            logger.log_metrics({name: value for name, value in row.items() if name != "step"}, step=int(row["step"]))
        logger.save()
        loggers.append(logger)
    return loggers


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a log, each with "step" and the values that it has; none where there is no file.

    A last row that was cut off with the run is left out.
    """
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    whole = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    rows = [{name: float(value) for name, value in row.items() if value} for row in whole]
    return [row for row in rows if "step" in row]


def _of_speed(name: str) -> bool:
    return name.endswith("/s") or name in ("memory_gb", "mfu", "waiting")
