"""Training data as a function of the step number: resuming needs no data state."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import DataLoader, IterableDataset


class _Steps(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        step = 0
        while True:
            yield step
            step += 1


def step_loader() -> DataLoader[int]:
    """An endless loader of nothing but ticks.

    Modules count their own optimiser steps and build the batch of step k from (seed, k) alone, so a run that is
    resumed at any step goes on with exactly the examples, masks and noise that it would have had.
    """
    return DataLoader(_Steps(), batch_size=None, num_workers=0)
