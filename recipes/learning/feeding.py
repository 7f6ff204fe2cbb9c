"""What the steps of a run learn from, made as it is asked for, or ahead of time by worker processes."""

from __future__ import annotations

import io
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from dimoo.core.errors import DimooError, TrainingError

MadeT = TypeVar("MadeT")
MadeT_co = TypeVar("MadeT_co", covariant=True)

START = "fork" if sys.platform == "linux" else "spawn"
"""How workers begin. A fork shares the memory of what it reads and starts at once; it never asks for a device, which a
forked process could not use. Where forks are not safe, all that makes data is pickled."""


class Feed(Protocol[MadeT_co]):
    """Gives each step what it learns from."""

    def take(self, step: int) -> MadeT_co:
        """What a step learns from.

        Raises:
            DimooError: it cannot be made.
        """

    def close(self) -> None:
        """End what works for it."""


@dataclass(frozen=True, kw_only=True)
class Here(Generic[MadeT]):
    """Makes it in this process, when it is asked for."""

    make: Callable[[int], MadeT]

    def take(self, step: int) -> MadeT:
        """See `Feed.take`; of any step, in any order."""
        return self.make(step)

    def close(self) -> None:
        """Nothing works for it."""


class Ahead(Generic[MadeT]):
    """Has worker processes make it for the next steps, while this one computes.

    Worker w of n makes steps first + w, first + w + n, ...; they arrive in the order of the steps. A step's data are a
    function of its number alone, so that it does not matter who makes them.
    """

    def __init__(self, make: Callable[[int], MadeT], *, steps: range, workers: int) -> None:
        """Start the workers.

        Args:
            make: what a step learns from, by its number; uses no accelerator.
            steps: that will be asked for, in this order.
            workers: how many, at least 1.
        """
        loader = DataLoader(
            _Share(make, steps),
            batch_size=None,
            num_workers=workers,
            worker_init_fn=_ignore_signals,
            multiprocessing_context=START,
            generator=torch.Generator(),  # else one number of the global one is drawn
        )
        self._coming: Any = iter(loader)
        self._last: tuple[int, MadeT | DimooError] | None = None

    def take(self, step: int) -> MadeT:
        """See `Feed.take`; the steps one after the other, the last one again as often as is wanted."""
        if self._last is None or self._last[0] != step:
            self._last = pickle.loads(next(self._coming))
        number, made = self._last
        assert number == step, f"step {step} was asked for when {number} was next"
        if isinstance(made, DimooError):
            raise made
        return made

    def close(self) -> None:
        """End the workers."""
        # Torch does as the iterator is let go of; but an error that it raised holds it.
        self._coming._shutdown_workers()


@contextmanager
def lost_workers() -> Iterator[None]:
    """Where the death of a worker is noticed, which can be at any time.

    Raises:
        TrainingError: one was killed.
    """
    try:
        yield
    except Exception as error:
        lost = next((cause for cause in _causes(error) if str(cause).startswith("DataLoader worker")), None)
        if lost is None:
            raise
        raise TrainingError(
            f"a process that makes documents was ended: {' '.join(str(lost).split())}; if memory ran out, set"
            " run.workers lower; --resume goes on from the last checkpoint"
        ) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it was raised for, each once: torch tells of a worker wherever the program is, also where
    what happens there is caught and said in other words."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


class _Share(IterableDataset[bytes]):
    """The part of the steps that the worker which reads it makes."""

    def __init__(self, make: Callable[[int], Any], steps: range) -> None:
        self._make, self._steps = make, steps

    def __iter__(self) -> Iterator[bytes]:
        worker = get_worker_info()
        assert worker is not None
        for step in self._steps[worker.id :: worker.num_workers]:
            made: Any
            try:
                made = self._make(step)
            except DimooError as error:  # whole: the loader would put a traceback into its message
                made = error
            yield _pickled((step, made))


class _Pickler(pickle.Pickler):
    """Takes tensors as arrays, which is much faster than torch's own way.

    Left to the loader, each would be a file in shared memory, of which a process may hold but so many open.
    """

    def reducer_override(self, value: Any) -> Any:
        return (torch.from_numpy, (value.numpy(),)) if isinstance(value, Tensor) else NotImplemented


def _pickled(value: Any) -> bytes:
    out = io.BytesIO()
    _Pickler(out, pickle.HIGHEST_PROTOCOL).dump(value)
    return out.getvalue()


def _ignore_signals(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal, a scheduler's SIGTERM those of a job; the one that trains decides."""
    del worker
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
