"""Tensors from safetensors files, and into modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from dimoo.core.errors import CheckpointError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, by name.

    Raises:
        CheckpointError: the file is missing or corrupt.
    """
    if not path.is_file():
        raise CheckpointError(f"no weights at {path}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is corrupt or no safetensors file: {error}; download or copy it again"
        ) from error


def load_exact(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into a module's parameters and buffers (cast to their dtype and device), all or nothing.

    Raises:
        CheckpointError: lists every missing name, unknown name, wrong shape and dtype, or says that the module is on
            the meta device, where there is nothing to copy into. The module is then unchanged.
    """
    own = module.state_dict()
    wanted, given = ({name: tensor.shape for name, tensor in some.items()} for some in (own, tensors))
    problems = mismatches(wanted, given)
    problems += [
        f"wrong dtype: {name} is {tensors[name].dtype}, weights are floating-point numbers"
        for name, tensor in own.items()
        if name in tensors and tensor.is_floating_point() and not tensors[name].is_floating_point()
    ]
    raise_all(problems)
    if any(tensor.is_meta for tensor in own.values()):
        raise CheckpointError("the model is on the meta device; call model.to_empty(device=...) before loading")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def plain_tensors(tensor: Tensor, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors that hold a tensor's numbers, with their names: itself, or what a quantised or sharded one wraps.

    A wrapper has no memory of its own: bytes and bits are those of its parts, whose names are `name.part`.
    """
    if not is_traceable_wrapper_subclass(tensor):
        yield name, tensor
        return
    for part in tensor.__tensor_flatten__()[0]:
        inner = getattr(tensor, part)
        if isinstance(inner, Tensor):  # a sharded tensor also names its mesh
            yield from plain_tensors(inner, f"{name}.{part}")


def mismatches(wanted: Mapping[str, Sequence[int]], given: Mapping[str, Sequence[int]]) -> list[str]:
    """What keeps tensors of the `given` shapes from filling those of the `wanted` ones, one line per problem."""
    problems = [f"missing: {name}" for name in wanted if name not in given]
    problems += [f"unknown: {name}" for name in given if name not in wanted]
    return problems + [
        f"wrong shape: {name} is {tuple(given[name])}, the model wants {tuple(shape)}"
        for name, shape in wanted.items()
        if name in given and tuple(given[name]) != tuple(shape)
    ]


def raise_all(problems: list[str], what: str = "the tensors do not fit") -> None:
    """Raise one error that lists all problems, where there are some.

    Raises:
        CheckpointError: there are.
    """
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise CheckpointError(f"{what} ({count}); nothing was loaded:\n  " + "\n  ".join(problems))
