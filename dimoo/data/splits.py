"""Parts of sources: what is trained on, over and over, and what never is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dimoo.core.errors import DataError
from dimoo.data.example import Example, Picture, Source, at


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Some examples of a source."""

    source: Source
    indices: Sequence[int]

    @property
    def size(self) -> int:
        """How many."""
        return len(self.indices)

    def example(self, index: int) -> Example[Picture]:
        """Example number `index` of them.

        Raises:
            IndexError: the index is out of range.
        """
        return self.source.example(self.indices[at(index, self.size)])


@dataclass(frozen=True, kw_only=True)
class Later:
    """An endless source from some index on."""

    source: Source
    first: int

    @property
    def size(self) -> int | None:
        """None: endless."""
        return None

    def example(self, index: int) -> Example[Picture]:
        """Example `first + index` of the source.

        Raises:
            IndexError: the index is negative.
        """
        if index < 0:
            raise IndexError(f"index {index} is negative; the source is endless, from 0 on")
        return self.source.example(self.first + index)


@dataclass(frozen=True, kw_only=True)
class Endless:
    """A finite source, shuffled for every pass; without those of its examples that are held out."""

    source: Source
    """What is trained on."""
    seed: int
    held_out: Source | None = None
    """What is not."""
    digest: str | None = None
    """Of what both are made of; None: it is not known."""

    @property
    def size(self) -> int | None:
        """None: endless."""
        return None

    def example(self, index: int) -> Example[Picture]:
        """Example `index`: pass `index // size`, at a random place of its own."""
        size = self.source.size
        assert size is not None
        epoch, place = divmod(index, size)
        return self.source.example(int(_order(self.seed, epoch, size)[place]))


def endless(source: Source, *, seed: int, held_out: int) -> Endless:
    """A finite source for training, without the last `held_out` examples of a fixed shuffle of it.

    That shuffle depends on nothing but the number of examples, so that runs with other seeds, on the files or on shards
    of them, hold out the same ones.

    Raises:
        DataError: nothing is left to train on.
    """
    size = source.size
    assert size is not None
    if held_out >= size:
        raise DataError(f"held_out {held_out} of {size} examples leaves none to train on; set it to less")
    if not held_out:
        return Endless(source=source, seed=seed)
    order = np.random.default_rng(size).permutation(size)
    learnt, held = (Subset(source=source, indices=sorted(part.tolist())) for part in np.split(order, [size - held_out]))
    return Endless(source=learnt, seed=seed, held_out=held)


@lru_cache(maxsize=4)  # examples are read pass by pass; a permutation costs as much as a whole pass of lookups
def _order(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    """The shuffle of one pass."""
    return np.random.default_rng([seed, epoch]).permutation(size)
