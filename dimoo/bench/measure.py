"""What a call costs: seconds, tokens through the network, forward passes, bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from dimoo.backbone.block import GatedMLP
from dimoo.backbone.model import Backbone
from dimoo.core.peak import peak_bytes


@dataclass(kw_only=True)
class Work:
    """What went through a network."""

    layers: int
    rows: int = 0
    """Tokens through an MLP, over all layers."""
    passes: int = 0
    """Calls of the first layer's MLP."""

    @property
    def tokens(self) -> float:
        """Tokens computed, on average over the layers: a layer that computes a part counts as that part."""
        return self.rows / self.layers


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of the answers of a call."""

    seconds: float
    """The least of the repeats."""
    tokens: float
    """Through the network."""
    passes: int
    peak_bytes: int
    """The most that tensors held at a time in the warm-up, weights aside."""
    results: list[Any] = field(repr=False)


@contextmanager
def counting(network: Backbone) -> Iterator[Work]:
    """Count what goes through a network while this lasts."""
    layers = [module for module in network.modules() if isinstance(module, GatedMLP)]
    work = Work(layers=len(layers))

    def count(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        work.rows += len(inputs[0])
        work.passes += module is layers[0]

    handles = [layer.register_forward_pre_hook(count) for layer in layers]
    try:
        yield work
    finally:
        for handle in handles:
            handle.remove()


def cost_of(call: Callable[[], list[Any]], network: Backbone, *, warm_up: Callable[[], object], repeats: int) -> Cost:
    """Measure a call that gives the same results each time.

    Args:
        call: makes the answers.
        network: through which.
        warm_up: made once before, not timed; its memory is the cost's. It may be the call, or a part of it.
        repeats: timed calls, of which the fastest counts.
    """
    peak = peak_bytes(warm_up)
    seconds = float("inf")
    for _ in range(repeats):
        with counting(network) as work:
            _wait(network.device)
            before = time.perf_counter()
            found = call()
            _wait(network.device)
            seconds = min(seconds, time.perf_counter() - before)
    return Cost(seconds=seconds, tokens=work.tokens, passes=work.passes, peak_bytes=peak, results=found)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
