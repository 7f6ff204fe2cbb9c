"""Where the sequences of a packed stream begin and end.

Axes: Nq = query tokens, Nk = key tokens, both of all sequences together; S = sequences; A = position axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, groupby
from typing import Any, TypeVar

import torch
from torch import Tensor

from dimoo.core.device import sent
from dimoo.core.errors import ConfigError

DerivedT = TypeVar("DerivedT")


@dataclass(frozen=True, kw_only=True)
class Run:
    """Adjacent sequences of equal lengths: `count` times `query_length` queries over `key_length` keys."""

    count: int
    query_length: int
    key_length: int

    @property
    def queries(self) -> int:
        """Query tokens of the run."""
        return self.count * self.query_length

    @property
    def keys(self) -> int:
        """Key tokens of the run."""
        return self.count * self.key_length


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedLayout:
    """The boundaries of S sequences in one flat stream, and the position of every query token.

    A sequence may have fewer queries than keys: in a cached step a few positions are computed anew and
    attend to the stored keys of all. What attention backends derive from the lengths is computed once per
    layout object and shared by all layers.

    Args:
        positions: int64 [Nq], or [Nq, A] with A position axes.
        query_lengths: query tokens per sequence, adding up to Nq.
        key_lengths: key tokens per sequence, adding up to Nk.

    Raises:
        ConfigError: lengths that are not positive, do not add up, or differ in number.
    """

    positions: Tensor
    query_lengths: tuple[int, ...]
    key_lengths: tuple[int, ...]
    _derived: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.positions.ndim not in (1, 2) or self.positions.dtype != torch.int64:
            raise ConfigError(
                f"positions must be int64 [Nq] or [Nq, A], not {self.positions.dtype} {list(self.positions.shape)}"
            )
        if len(self.query_lengths) != len(self.key_lengths):
            raise ConfigError(
                f"{len(self.query_lengths)} query lengths but {len(self.key_lengths)} key lengths; "
                "give one of each per sequence"
            )
        if min(self.query_lengths + self.key_lengths, default=0) < 1:
            raise ConfigError(
                f"lengths must be positive, got queries {self.query_lengths} and keys {self.key_lengths}; "
                "leave empty sequences out of the pack"
            )
        if self.queries != self.positions.shape[0]:
            raise ConfigError(
                f"query lengths add up to {self.queries}, but there are {self.positions.shape[0]} positions"
            )

    @classmethod
    def of(cls, lengths: Iterable[int], device: torch.device | str = "cpu") -> PackedLayout:
        """Whole sequences, positions 0, 1, ... in each; keys are the queries."""
        whole = tuple(lengths)
        rows = [torch.arange(length) for length in whole] or [torch.arange(0)]
        return cls(positions=sent(torch.cat(rows), torch.device(device)), query_lengths=whole, key_lengths=whole)

    @cached_property
    def queries(self) -> int:
        """Nq, the query tokens of all sequences."""
        return sum(self.query_lengths)

    @cached_property
    def keys(self) -> int:
        """Nk, the key tokens of all sequences."""
        return sum(self.key_lengths)

    @cached_property
    def query_bounds(self) -> Tensor:
        """Cumulative query lengths from 0 to Nq, int32 [S + 1]."""
        return self._bounds(self.query_lengths)

    @cached_property
    def key_bounds(self) -> Tensor:
        """Cumulative key lengths from 0 to Nk, int32 [S + 1]."""
        return self._bounds(self.key_lengths)

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The sequences in order, adjacent ones of equal (query, key) lengths joined to a rectangle."""
        pairs = zip(self.query_lengths, self.key_lengths, strict=True)
        return tuple(
            Run(count=len(list(same)), query_length=query_length, key_length=key_length)
            for (query_length, key_length), same in groupby(pairs)
        )

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Indices into `runs`, those of equal lengths together: a group is one batch for attention."""
        found: dict[tuple[int, int], list[int]] = {}
        for index, run in enumerate(self.runs):
            found.setdefault((run.query_length, run.key_length), []).append(index)
        return tuple(tuple(indices) for indices in found.values())

    def derived(self, name: str, make: Callable[[PackedLayout], DerivedT]) -> DerivedT:
        """What `make(self)` gives, kept under `name`: backends build their masks once, not once per layer."""
        if name not in self._derived:
            self._derived[name] = make(self)
        result: DerivedT = self._derived[name]
        return result

    def _bounds(self, lengths: Sequence[int]) -> Tensor:
        return sent(torch.tensor([0, *accumulate(lengths)], dtype=torch.int32), self.positions.device)
