"""What every recipe's module shares: its own count of optimiser steps, from which all its data follow."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger
from torch.utils.data import DataLoader, IterableDataset

from dimoo.core.errors import CheckpointError, DataError
from recipes.learning.feeding import Feed, Here
from recipes.learning.guard import SpikeGuard


class _Steps(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        step = 0
        while True:
            yield step
            step += 1


class StepModule(L.LightningModule):
    """A module that builds the batch of step k from (seed, k) alone.

    So a run that is resumed at any step goes on with exactly the examples, masks and noise that it would have had,
    and resuming needs no data state.
    """

    unit = "items"
    """What a step learns from, as it is called in the logs."""

    def __init__(self, *, data: Mapping[str, str | None] | None = None) -> None:
        """Begin at the first step.

        Args:
            data: digests of what it learns from, by the setting that names it; None: not known. A run goes on with
                none but the same.
        """
        super().__init__()
        self.data = {name: digest for name, digest in (data or {}).items() if digest is not None}
        self.automatic_optimization = False
        self.steps_done = 0
        self.items = 0
        """How many items, see `unit`, the last step learnt from."""
        self.operations = 0.0
        """What the last step computed on all processes: multiplications and additions; 0 where nobody counts them."""
        self.shown = False
        """Whether anyone will look at what the next step measures; `RunProgress` says so before each."""
        self.values: Mapping[str, float] = {}
        """What the last step that was to be shown measured, by name; among it `items` under the name of `unit`."""
        self.details: Mapping[str, float] = {}
        """More of it, for the logs alone."""
        self.guard = SpikeGuard()
        """Which steps are left out."""
        self.waited = 0.0
        """Seconds that the last step waited for its data."""
        self._feed: Feed[Any] = Here(make=self.made)

    @abstractmethod
    def made(self, step: int) -> Any:
        """What a step learns from, made here and now: a function of the seed and the step."""

    def taken(self, step: int) -> Any:
        """The same, by whoever makes it for this run."""
        begin = time.perf_counter()
        made = self._feed.take(step)
        self.waited = time.perf_counter() - begin
        return made

    def fed_by(self, feed: Feed[Any]) -> None:
        """Take what the steps learn from there."""
        self.close()
        self._feed = feed

    def close(self) -> None:
        """End the processes that work for this module, if there are some."""
        self._feed.close()
        self._feed = Here(make=self.made)

    def train_dataloader(self) -> DataLoader[int]:
        """An endless loader of nothing but ticks."""
        return DataLoader(_Steps(), batch_size=None, num_workers=0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the position in the data and what they are, and what the guard has seen."""
        checkpoint["steps_done"] = self.steps_done
        checkpoint["guard"] = self.guard.state()
        checkpoint["data"] = self.data

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on where the checkpoint was.

        Raises:
            CheckpointError: what it learnt from has changed since.
        """
        require_same_data(self.data, checkpoint.get("data", {}))
        self.steps_done = checkpoint["steps_done"]
        self.guard.load(checkpoint["guard"])


def require_same_data(data: Mapping[str, str], saved: Mapping[str, str]) -> None:
    """See that a run goes on with what it has learnt from; what one side does not know of is passed over.

    With other rows, examples that were held out would be learnt from.

    Args:
        data: digests of what there is, by setting.
        saved: those that the checkpoint has.

    Raises:
        CheckpointError: they differ.
    """
    changed = sorted(name for name in data.keys() & saved.keys() if data[name] != saved[name])
    if changed:
        raise CheckpointError(
            f"the run has learnt from another {' and '.join(changed)} than there is now under the same name; give back"
            " what was there, or start a new run under another run.name, which may begin with what --export makes of"
            " this one"
        )


def require_alike(every: Sequence[Mapping[str, str]]) -> None:
    """See that all processes of a run learn from the same.

    Args:
        every: the digests of each process.

    Raises:
        DataError: they differ.
    """
    names = sorted({name for data in every for name in data})
    differ = [name for name in names if len({data.get(name) for data in every}) > 1]
    if differ:
        raise DataError(
            f"the processes of this run do not find the same {' and '.join(differ)}; give every machine the same files"
        )


def log(loggers: Iterable[Logger], values: Mapping[str, float], step: int) -> None:
    """Write values to every logger, under the number of steps done, of which the last is theirs.

    Not through `LightningModule.log`, which repeats the last known value at steps that measured none.
    """
    for logger in loggers:
        logger.log_metrics(dict(values), step=step)
        logger.save()
