"""Filling weights of which each process may hold but a part (FSDP2), without ever making them whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from typing_extensions import TypeIs

from dimoo.core.errors import ConfigError

if TYPE_CHECKING:  # half a second, and not in every build of torch
    from torch.distributed.tensor import DTensor


@torch.no_grad()
def fill(weight: Tensor, values: Tensor, start: int = 0) -> None:
    """Copy values into a weight in place: weight[start : start + n] = values.

    Of a sharded weight each process copies what it holds, and no more of the values than that is looked at; all of them
    must have the same values. Nothing is exchanged.

    Args:
        weight: [N, ...]; if it is sharded, along the first axis alone, as `fully_shard` does.
        values: [n, ...], in any precision and on any device.
        start: first row that they are for.

    Raises:
        ConfigError: the weight has not as many rows.
    """
    if start + len(values) > len(weight):
        raise ConfigError(f"rows {start}..{start + len(values) - 1} do not fit in a weight of {len(weight)} rows")
    own, first = (weight.to_local(), _first_row(weight)) if _is_sharded(weight) else (weight, 0)
    begin, end = max(first, start), min(first + len(own), start + len(values))
    if begin < end:
        own[begin - first : end - first].copy_(values[begin - start : end - start])


def _is_sharded(weight: Tensor) -> TypeIs[DTensor]:
    return hasattr(weight, "to_local")


def _first_row(weight: DTensor) -> int:
    """Where the part of this process begins: rows are dealt as `torch.chunk` does."""
    first, count = 0, len(weight)
    for axis, placement in enumerate(weight.placements):
        if placement.is_shard():
            size = -(-count // weight.device_mesh.size(axis))
            before = min(size * weight.device_mesh.get_local_rank(axis), count)
            first, count = first + before, min(size, count - before)
    return first
