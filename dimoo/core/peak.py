"""How many bytes tensors hold: those of a module, and at most during a call."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dimoo.core.tensors import plain_tensors


def peak_bytes(call: Callable[[], object]) -> int:
    """The most bytes that tensors made inside `call` hold at one time, on all devices together, the meta device too.

    Every storage counts once, from its first tensor to its last, views and saved gradients included; tensors that
    exist before the call do not count, and neither does what a kernel holds within itself.
    """
    watch = _Watch()
    with watch:
        call()
    return watch.peak


def held(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers, on whatever device; of quantised ones those that they take."""
    tensors = (*module.parameters(), *module.buffers())
    return sum(part.nbytes for tensor in tensors for _, part in plain_tensors(tensor))


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Follows storages through every operation while it is on."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._live = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        # A storage that comes out and did not go in is new: views and writes in place give back what they were given.
        given, made = _storages((args, kwargs)), _storages(result)
        for key in made.keys() - given.keys():
            size = made[key].nbytes()
            self._live += size
            # Called when the last tensor on the storage is gone.
            weakref.finalize(made[key], self._free, size).atexit = False
        self.peak = max(self.peak, self._live)
        return result

    def _free(self, size: int) -> None:
        self._live -= size


def _storages(tree: Any) -> dict[int, torch.UntypedStorage]:
    leaves = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    found = [part.untyped_storage() for leaf in leaves for _, part in plain_tensors(leaf)]
    return {storage._cdata: storage for storage in found}
