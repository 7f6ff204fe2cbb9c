"""Devices and precisions, checked before anything large is put there; what is sent to them and read from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from dimoo.core.errors import BackendError

Count: TypeAlias = int | Tensor
"""A whole number that the host knows; or a tensor without axes, of integers or flags, that the device alone knows."""

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def precision(dtype: torch.dtype | str) -> torch.dtype:
    """A precision of weights, by itself or by its name.

    Raises:
        BackendError: weights cannot be of that type.
    """
    found = PRECISIONS.get(dtype) if isinstance(dtype, str) else dtype
    if found is None or found not in PRECISIONS.values():
        raise BackendError(f"{dtype!r} is no precision of weights; use one of {', '.join(PRECISIONS)}")
    return found


def usable(device: torch.device | str, dtype: torch.dtype) -> torch.device:
    """The device, if it is there and multiplies matrices of that dtype.

    Raises:
        BackendError: this machine or its torch has no such device, or the device has no arithmetic of that dtype.
    """
    try:
        found = torch.device(device)
        probe = torch.ones(1, 1, device=found, dtype=dtype)
        (probe @ probe).item()
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BackendError(
            f"cannot compute in {dtype} on device {str(device)!r} (torch {torch.__version__}): {reason};"
            " use device='cpu', or another dtype"
        ) from error
    return found


def sent(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor on a device. From the CPU to another device the host does not wait for it to arrive, as work that is
    given to the device later comes after it; the other way round it must."""
    return tensor.to(device, dtype, non_blocking=tensor.device.type == "cpu")


def read(rows: Sequence[Sequence[Count]]) -> list[list[int]]:
    """The numbers of counts, row by row.

    A read makes the host wait for all that the device was given. So all that the device alone knows are read at once;
    where there are none, nothing is read.
    """
    asked = [count.long() for row in rows for count in row if isinstance(count, Tensor)]
    told: Iterator[int] = iter(torch.stack(asked).tolist() if asked else ())
    return [[next(told) if isinstance(count, Tensor) else count for count in row] for row in rows]
