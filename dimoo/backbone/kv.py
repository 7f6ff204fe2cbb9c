"""Where attention takes keys and values from: the seam at which caches attach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class KV(Protocol):
    """A store of keys and values, given to one forward pass. Modules hold no such state themselves.

    Axes: Nq = tokens computed now, Nk = tokens attended to, H = key/value heads, D = head width.
    """

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Exchange the fresh rows of a layer for all rows to attend to.

        Args:
            layer: index of the block, from 0.
            key: the rotated keys computed now, [Nq, H, D].
            value: their values, [Nq, H, D].

        Returns:
            Keys and values [Nk, H, D], in the order of the layout's `key_lengths`.
        """


@dataclass(frozen=True)
class NoKV:
    """The null store: attend to what was computed now, keep nothing."""

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Give back the fresh keys and values."""
        del layer
        return key, value


NO_KV = NoKV()
