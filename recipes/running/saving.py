"""The checkpoint of a run: written every so many steps, at the last one, and when a signal asks the run to stop."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load

from dimoo.core.errors import CheckpointError, TrainingError
from recipes.learning.averaging import AVERAGE, load_averages
from recipes.learning.diffusion import DiffusionModule
from recipes.learning.kept import require_trained
from recipes.learning.steps import StepModule

NEW, OLD = ".writing", ".previous"
META = "meta.pt"
"""What Lightning calls the file of all but tensors in a checkpoint in parts."""
STATE = "optimizer_0.state"
"""And where it puts what the optimiser knows of each weight."""


class Beside(TorchCheckpointIO):
    """Writes a checkpoint's file where it is told to, through to the disk.

    Lightning's own makes it in memory, then in the folder for temporary files, and copies it from there where that is
    on another disk.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object | None = None
    ) -> None:
        """Write it.

        Raises:
            OSError: it cannot be written.
        """
        del storage_options
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with Path(path).open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # how torch says that writing failed
                raise OSError(str(error)) from error
            file.flush()
            os.fsync(file.fileno())


class Saving(Checkpoint):
    """Writes the one checkpoint that a run keeps, always between two steps, so that resuming is exact.

    The first Ctrl-C lets the step finish, saves and stops; a second one stops at once. SIGTERM, by which schedulers end
    a job, does the same however often it comes. All processes stop after the same step, whichever of them heard it.
    """

    def __init__(self, path: Path, *, steps: int, every: int) -> None:
        super().__init__()
        self._path, self._steps, self._every = path, steps, every
        self._asked = False
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen to signals, where that is possible."""
        del trainer, pl_module
        if threading.current_thread() is threading.main_thread():
            # Lightning's own SIGTERM tells the other processes within the handler, whatever they are exchanging then.
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask) or signal.SIG_DFL

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where a checkpoint is due, and stop if that was asked for.

        Lightning calls this after every other callback.

        Raises:
            TrainingError: the checkpoint cannot be written, or a signal has ended the run.
        """
        del outputs, batch, batch_idx
        assert isinstance(pl_module, StepModule)
        done = pl_module.steps_done
        # What comes later than this is for the next step: no process stops where another goes on.
        stop = self._asked or trainer.received_sigterm  # by a signal before `on_train_start`
        if trainer.world_size > 1:
            stop = bool(trainer.strategy.reduce_boolean_decision(stop, all=False))
        if done % self._every == 0 or done == self._steps or stop:
            self._save(trainer, done)
        if stop and done < self._steps:
            raise TrainingError(f"stopped after step {done} of {self._steps}; go on with --resume")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen no more."""
        del trainer, pl_module
        self._restore()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Listen no more."""
        del trainer, pl_module, exception
        self._restore()

    def _save(self, trainer: L.Trainer, done: int) -> None:
        new = self._path.with_suffix(NEW)
        if trainer.is_global_zero:
            _remove(new)
        trainer.strategy.barrier()
        try:
            trainer.save_checkpoint(new)
        except (OSError, CheckpointException) as error:
            if new.is_file():
                new.unlink()  # one in parts may still be written by others
            last = last_checkpoint(self._path.parents[1])
            kept = f"the one before is whole: {last}" if last.exists() else "there is none yet"
            raise TrainingError(
                f"the checkpoint of step {done} cannot be written: {error}; {kept}. Make room, then go on with --resume"
            ) from error
        if trainer.is_global_zero:
            exchange(new, self._path)
        trainer.strategy.barrier()  # it is in its place before anyone ends

    def _ask(self, number: int, frame: Any) -> None:
        del frame
        self._asked = True
        if number == signal.SIGINT:
            signal.signal(number, self._before[number])

    def _restore(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)


def checkpoint_path(folder: Path) -> Path:
    """Where a run writes its checkpoint."""
    return folder / "checkpoints" / "last.ckpt"


def last_checkpoint(folder: Path) -> Path:
    """The checkpoint to go on from: if a run was broken off as a new one took its place, the one before."""
    path = checkpoint_path(folder)
    before = path.with_suffix(OLD)
    return before if before.exists() and not path.exists() else path


def steps_of(path: Path) -> int:
    """How many steps were done when a checkpoint was written.

    Raises:
        CheckpointError: there is none, or it is corrupt.
    """
    return int(_read(path, whole=False)["steps_done"])


def check(module: StepModule, path: Path) -> None:
    """See that a checkpoint has every weight that a module trains, before Lightning reads it.

    Of a sharded module without the base of its adapters Lightning would pass over weights that are missing.

    Raises:
        CheckpointError: there is none, or it is corrupt, or lacks some.
    """
    require_trained(module.state_dict(), _read(path, whole=True).get("state_dict"))


def restore(module: StepModule, path: Path, *, average: bool) -> None:
    """Give a module that one process holds what `Saving` wrote, one tensor at a time, in place.

    Args:
        module: of the same recipe; weights that are frozen are there.
        path: of a checkpoint, whole or in parts.
        average: take the averaged weights, where there are some, in place of the last ones.

    Raises:
        CheckpointError: there is none, or it is corrupt or lacks weights, or its adapters belong to another base.
    """
    checkpoint = _read(path, whole=True)
    require_trained(module.state_dict(), checkpoint.get("state_dict"))
    module.on_load_checkpoint(checkpoint)
    if path.is_dir():
        _from_parts(module, path, average=average)
        return
    module.load_state_dict(checkpoint["state_dict"])
    if average and isinstance(module, DiffusionModule):
        load_averages(module, module.configure_optimizers(), checkpoint["optimizer_states"][0])


def _read(path: Path, *, whole: bool) -> dict[str, Any]:
    if not path.exists():
        raise CheckpointError(f"no checkpoint at {path}; start the run without --resume or --export")
    try:
        # Mapped, so that what is not looked at is not read.
        file, mapped = (path / META, False) if path.is_dir() else (path, True)
        checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
        checkpoint["steps_done"]
        if whole and mapped:
            checkpoint["state_dict"]
    except Exception as error:  # torch raises whatever the damage leads to
        raise _corrupt(path, error) from error
    if "guard" not in checkpoint:
        raise CheckpointError(
            f"{path} was written by an older dimoo, which kept other things in it; export it with that version,"
            " and start from the export"
        )
    return checkpoint


def _from_parts(module: StepModule, path: Path, *, average: bool) -> None:
    own = module.state_dict()  # what is read into it is in the module
    try:
        _read_parts({"state_dict": own}, path)
        saved = FileSystemReader(path).read_metadata().state_dict_metadata
        averages = {name: {AVERAGE: weight} for name, weight in own.items() if f"{STATE}.{name}.{AVERAGE}" in saved}
        if average and averages:
            _read_parts({STATE: averages}, path)
    except (Exception, CheckpointException) as error:  # as above; the latter is no Exception
        raise _corrupt(path, error) from error


def _read_parts(tensors: dict[str, Any], path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # one process is what is meant
        load(tensors, storage_reader=FileSystemReader(path), no_dist=True)


def _corrupt(path: Path, error: BaseException) -> CheckpointError:
    return CheckpointError(f"{path} is corrupt or no checkpoint of a recipe: {error}; start the run anew")


def exchange(new: Path, path: Path) -> None:
    """Put a checkpoint in the place of another; at every moment a whole one is there under a name that is looked for.

    A file takes the place of a file at once; where one of them is a folder, the one before is kept aside meanwhile.
    """
    old = path.with_suffix(OLD)
    if path.exists() and (path.is_dir() or new.is_dir()):
        _remove(old)
        path.rename(old)
    new.replace(path)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
