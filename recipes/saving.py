"""The checkpoint of a run: written every so many steps, at the last one, and when Ctrl-C asks the run to stop."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint

from dimoo.core.errors import CheckpointError, TrainingError
from recipes.steps import StepModule


class Saving(Checkpoint):
    """Writes the one checkpoint that a run keeps, always between two steps, so that resuming is exact.

    The first Ctrl-C lets the step finish, saves and stops; a second one stops at once.
    """

    def __init__(self, path: Path, *, steps: int, every: int) -> None:
        super().__init__()
        self._path, self._steps, self._every = path, steps, every
        self._stop = False
        self._before: Any = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen to Ctrl-C, where that is possible."""
        del trainer, pl_module
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._ask)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop before this step if that was asked for.

        Raises:
            TrainingError: Ctrl-C was pressed.
        """
        del trainer, batch, batch_idx
        if self._stop:
            assert isinstance(pl_module, StepModule)
            raise TrainingError(f"stopped after step {pl_module.steps_done} of {self._steps}; go on with --resume")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where a checkpoint is due. Lightning calls this after every other callback.

        Raises:
            TrainingError: the checkpoint cannot be written.
        """
        del outputs, batch, batch_idx
        assert isinstance(pl_module, StepModule)
        done = pl_module.steps_done
        if trainer.world_size > 1:  # whom Ctrl-C reached: all stop after the same step
            self._stop = bool(trainer.strategy.reduce_boolean_decision(self._stop, all=False))
        if done % self._every == 0 or done == self._steps or self._stop:
            self._save(trainer, done)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give Ctrl-C back."""
        del trainer, pl_module
        self._restore()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give Ctrl-C back."""
        del trainer, pl_module, exception
        self._restore()

    def _save(self, trainer: L.Trainer, done: int) -> None:
        # Lightning writes beside the file and then renames, so that a checkpoint is whole or not there.
        try:
            trainer.save_checkpoint(self._path)
        except OSError as error:
            kept = f"the one before is whole: {self._path}" if self._path.is_file() else "there is none yet"
            raise TrainingError(
                f"the checkpoint of step {done} cannot be written: {error}; {kept}. Make room, then go on with --resume"
            ) from error

    def _ask(self, *_: Any) -> None:
        self._stop = True
        self._restore()

    def _restore(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint that `Saving` wrote, on the CPU.

    Raises:
        CheckpointError: there is none, or it is corrupt.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}; start the run without --resume or --export")
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint["steps_done"], checkpoint["state_dict"]
    except Exception as error:  # torch raises whatever the damage leads to
        raise CheckpointError(f"{path} is corrupt or no checkpoint of a recipe: {error}; start the run anew") from error
    return checkpoint
