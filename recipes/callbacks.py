"""What a run shows while it trains: a progress line with speed and time left, and a stop at non-finite losses."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class RunProgress(L.Callback):
    """Loss, tokens (or pictures) per second and time left: a live bar on a terminal, plain lines elsewhere."""

    def __init__(self, *, steps: int, every: int, console: Console | None = None) -> None:
        super().__init__()
        self._steps, self._every = steps, every
        self._console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._since, self._items, self._first = 0.0, 0.0, 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock at the step that the run begins or resumes at."""
        self._first = int(pl_module.steps_done)  # type: ignore[arg-type]
        self._begin, self._since, self._items = time.monotonic(), time.monotonic(), 0.0
        if trainer.is_global_zero and self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                       TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
            self._bar = Progress(*columns, console=self._console)
            self._bar.start()
            self._task = self._bar.add_task("training", total=self._steps, completed=self._first, note="")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count, and report every so many steps."""
        del outputs, batch, batch_idx
        done, metrics = int(pl_module.steps_done), trainer.callback_metrics  # type: ignore[arg-type]
        self._items += float(metrics.get("tokens", metrics.get("pictures", 0)))
        if not trainer.is_global_zero or (done % self._every and done != self._steps):
            return
        now = time.monotonic()
        unit = "tokens/s" if "tokens" in metrics else "pictures/s"
        speed = self._items / max(now - self._since, 1e-9)
        left = (now - self._begin) / max(done - self._first, 1) * (self._steps - done)
        shown = [f"{name} {float(metrics[name]):.4g}" for name in metrics if name not in {"tokens", "pictures"}]
        note = f"{speed:,.0f} {unit}  " + "  ".join(shown)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=note)
        else:
            line = f"step {done}/{self._steps}  {timedelta(seconds=round(left))} left  {note}"
            self._console.print(line, highlight=False, soft_wrap=True)
        self._since, self._items = now, 0.0

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave the terminal as it was, after errors too."""
        del trainer, pl_module, stage
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
