"""A moving average of the weights, which is what a run shows and exports; it lies in the optimiser's state.

So it is saved, and dealt to the processes of a sharded model, as AdamW's moments are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.optim import AdamW, Optimizer

AVERAGE = "average"


class AveragedAdamW(AdamW):
    """AdamW that keeps an average a of each weight w that it trains: a_k = d a_(k-1) + (1 - d) w_k, a_1 = w_1."""

    def __init__(self, groups: list[dict[str, Any]], *, decay: float, **settings: Any) -> None:
        """Make it.

        Args:
            groups: of parameters, as AdamW takes them.
            decay: d.
            settings: AdamW's.
        """
        super().__init__(groups, **settings)
        self._decay = decay

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """AdamW's step, and the averages'; what AdamW has not touched yet has none."""
        loss: float | None = super().step(closure)
        averages: list[Tensor] = []
        weights: list[Tensor] = []
        for weight in (weight for group in self.param_groups for weight in group["params"]):
            state = self.state.get(weight)
            if not state:
                continue
            if AVERAGE in state:
                averages.append(state[AVERAGE])
                weights.append(weight)
            else:
                state[AVERAGE] = weight.detach().clone()
        if weights:
            torch._foreach_lerp_(averages, weights, 1 - self._decay)
        return loss


@contextmanager
def averaged(module: nn.Module, optimizers: Iterable[Optimizer]) -> Iterator[None]:
    """The weights of a module that have an average are it for a while; they are given back as they were.

    Where each process holds a part of the module, what the others lent it of theirs is given up before and after: a
    forward without a backward leaves it there, and the next one would compute with it.
    """
    pairs = [
        (weight, state[AVERAGE])
        for optimizer in optimizers
        for weight, state in optimizer.state.items()
        if AVERAGE in state
    ]
    kept = [weight.detach().clone() for weight, _ in pairs]
    _give_up_lent(module)
    _copy([weight for weight, _ in pairs], [average for _, average in pairs])
    try:
        yield
    finally:
        _give_up_lent(module)
        _copy([weight for weight, _ in pairs], kept)


def load_averages(module: nn.Module, optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """Give a module the averages that a checkpoint has, in place, where it has some.

    Args:
        module: with the weights of the checkpoint.
        optimizer: a new one for it.
        saved: the optimiser's state in the checkpoint, by the numbers of weights, or by their names.
    """
    names = {weight: name for name, weight in module.named_parameters()}
    for group, kept in zip(optimizer.param_groups, saved["param_groups"], strict=True):
        for weight, key in zip(group["params"], kept["params"], strict=True):
            state = saved["state"].get(names[weight] if isinstance(key, str) else key, {})
            if AVERAGE in state:
                _copy([weight], [state[AVERAGE]])


def _give_up_lent(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


@torch.no_grad()
def _copy(weights: list[Tensor], values: list[Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)
