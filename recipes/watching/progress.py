"""What a run shows while it trains: a progress line with speed and time left, and its logs."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import lightning as L
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from recipes.learning.operations import peak_memory
from recipes.learning.steps import StepModule, log
from recipes.processes import first_process


def unknown(device: torch.device) -> float | None:
    """The operations per second that devices can do, where nobody asks for them."""
    del device
    return None


class RunProgress(L.Callback):
    """Every so many steps: the last step's values and the speed to the logs, and with the time left to the screen.

    Speed is that of all steps since the last time, with all that was done between them. MFU (model FLOPs utilisation)
    = operations of these steps / seconds / operations that the devices could do in a second.
    `waiting` = the share of these seconds in which this process waited for what the steps learn from.
    The screen shows a live bar on a terminal, plain lines elsewhere.
    """

    def __init__(
        self,
        *,
        steps: int,
        every: int,
        console: Console | None = None,
        peak: Callable[[torch.device], float | None] = unknown,
    ) -> None:
        """Show a run.

        Args:
            steps: of the run.
            every: how many steps are shown together.
            console: the screen.
            peak: operations that all devices of the run together can do in a second, by the device of this process.
        """
        super().__init__()
        self._steps, self._every, self._peak = steps, every, peak
        self._console = console or Console(stderr=True, quiet=not first_process())
        self._bar: Progress | None = None
        self._since, self._items, self._operations, self._waited, self._first = 0.0, 0, 0.0, 0.0, 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock at the step that the run begins or resumes at."""
        del trainer
        assert isinstance(pl_module, StepModule)
        self._first = pl_module.steps_done
        self._begin = time.monotonic()
        self._since, self._items, self._operations, self._waited = self._begin, 0, 0.0, 0.0
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._bar = Progress(*columns, console=self._console)
            self._bar.start()
            self._task = self._bar.add_task("training", total=self._steps, completed=self._first, note="")

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Have the step measured if it will be reported."""
        del trainer, batch, batch_idx
        assert isinstance(pl_module, StepModule)
        pl_module.shown = self._due(pl_module.steps_done + 1)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count, and report every so many steps."""
        del outputs, batch, batch_idx
        assert isinstance(pl_module, StepModule)
        done, values, unit = pl_module.steps_done, pl_module.values, pl_module.unit
        self._items += pl_module.items
        self._operations += pl_module.operations
        self._waited += pl_module.waited
        if not self._due(done):
            return
        now = time.monotonic()
        seconds = max(now - self._since, 1e-9)
        speed = self._items / seconds
        used = self._used(pl_module.device, seconds)
        took = {f"{unit}/s": speed, "waiting": self._waited / seconds, **used, **_memory(pl_module.device)}
        log(trainer.loggers, {**values, **pl_module.details, **took}, done)
        left = (now - self._begin) / max(done - self._first, 1) * (self._steps - done)
        # Scores that other callbacks measured now and then come after the step's own values.
        scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
        shown = [f"{name} {value:.4g}" for name, value in {**used, **values, **scores}.items() if name != unit]
        note = f"{speed:,.0f} {unit}/s  " + "  ".join(shown)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=note)
        else:
            line = f"step {done}/{self._steps}  {timedelta(seconds=round(left))} left  {note}"
            self._console.print(line, highlight=False, soft_wrap=True)
        self._since, self._items, self._operations, self._waited = now, 0, 0.0, 0.0

    def _used(self, device: torch.device, seconds: float) -> dict[str, float]:
        peak = self._peak(device)
        return {"mfu": self._operations / seconds / peak} if peak and self._operations else {}

    def _due(self, done: int) -> bool:
        return done % self._every == 0 or done == self._steps

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was, after errors too (Lightning does not call `teardown` then)."""
        del exception
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave the terminal as it was."""
        del trainer, pl_module, stage
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _memory(device: torch.device) -> dict[str, float]:
    held = peak_memory(device)
    return {} if held is None else {"memory_gb": held / 1e9}
