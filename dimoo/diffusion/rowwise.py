"""Work on logits a few rows at a time, so that what it holds meanwhile does not grow with the picture."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

CACHED, LAUNCHED = 1 << 19, 1 << 22
"""Elements of a block: on a CPU few enough to stay in its cache, elsewhere enough to be worth the launches."""


def rowwise(compute: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """compute(*tensors), in blocks of rows.

    Args:
        compute: takes as many tensors, of some rows, and returns one value for each of these rows.
        tensors: all with the same rows; the first is [M, C]. A block has at most `CACHED` (CPU) or `LAUNCHED`
            (elsewhere) of its elements, or one row.

    Returns:
        [M].
    """
    rows, columns = tensors[0].shape
    size = max(1, (CACHED if tensors[0].device.type == "cpu" else LAUNCHED) // max(1, columns))
    if rows <= size:
        return compute(*tensors)
    return torch.cat(
        [compute(*block) for block in zip(*(torch.split(tensor, size) for tensor in tensors), strict=True)]
    )
