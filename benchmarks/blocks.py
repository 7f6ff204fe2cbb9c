"""A transformer block as written against the same block compiled; see benchmarks.attention."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from dimoo.backbone.build import build_backbone
from dimoo.backbone.compiled import compiled
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.init import initialise
from dimoo.backbone.kv import NO_KV
from dimoo.backbone.layout import PackedLayout
from dimoo.backbone.model import Backbone
from dimoo.backbone.rope import Rotation
from dimoo.core.rng import generator

Streams = Mapping[str, tuple[int, ...]]
"""Lengths of the sequences, by what they are."""
LENGTHS = (7, 64, 100, 101, 333, 512, 1000, 2000)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A block on a stream, in seconds per block without gradients."""

    stream: str
    tokens: int
    eager_seconds: float
    compiled_seconds: float
    error: float
    """The largest difference between both."""
    first_seconds: float
    """Wall time of the first compiled pass."""
    compilations: int
    """Of both halves for all blocks, over this stream and one of each of eight lengths."""

    @property
    def ratio(self) -> float:
        """How many times faster than as written."""
        return self.eager_seconds / self.compiled_seconds


@dataclass(frozen=True, kw_only=True)
class Pass:
    """All blocks on a stream."""

    model: Backbone
    layout: PackedLayout
    rotation: Rotation
    stream: Tensor = field(repr=False)

    @classmethod
    def of(cls, model: Backbone, lengths: tuple[int, ...]) -> Pass:
        """On a random stream, the same for every model of that width."""
        layout = PackedLayout.of(lengths, model.device)
        stream = torch.randn(layout.queries, model.width, generator=generator(0, "benchmark", *lengths))
        rotation = model.rope.rotation(layout.positions)
        return cls(model=model, layout=layout, rotation=rotation, stream=stream.to(model.embedding.weight))

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """What the last block gives."""
        stream = self.stream
        for block in self.model.blocks:
            stream = block(stream, self.rotation, self.layout, NO_KV)
        return stream


def compare(
    config: BackboneConfig, streams: Streams, device: torch.device, dtype: torch.dtype, *, repeats: int
) -> list[Compared]:
    """Two blocks of that shape on each stream."""
    two = config.model_copy(update={"layers": 2, "vocab_size": 8})
    plain = initialise(build_backbone(two), generator(0, "benchmark", "block")).to(device, dtype)
    return [_compare(plain, name, lengths, repeats=repeats) for name, lengths in streams.items()]


def _compare(plain: Backbone, name: str, lengths: tuple[int, ...], *, repeats: int) -> Compared:
    counter = CompileCounterWithBackend("inductor")
    fast = compiled(plain, backend=counter)
    passes = [Pass.of(model, lengths) for model in (plain, fast)]
    since = time.perf_counter()
    passes[1]()
    wait(plain.device)
    first = time.perf_counter() - since
    eager, other = passes[0](), passes[1]()
    seconds = [math.inf, math.inf]
    for _ in range(repeats):  # in turn, so that what else the machine does meets both alike
        seconds = [min(so_far, best(call, plain.device)) for so_far, call in zip(seconds, passes, strict=True)]
    for length in LENGTHS:
        Pass.of(fast, (length,))()
    return Compared(
        stream=name,
        tokens=sum(lengths),
        eager_seconds=seconds[0] / len(plain.blocks),
        compiled_seconds=seconds[1] / len(plain.blocks),
        error=(eager - other).abs().max().item(),
        first_seconds=first,
        compilations=counter.frame_count,
    )


def best(call: Callable[[], object], device: torch.device, *, repeats: int = 1) -> float:
    """The least seconds of several calls: of the processor on a CPU, else of the clock on the wall."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    least = math.inf
    for _ in range(repeats):
        wait(device)
        since = clock()
        call()
        wait(device)
        least = min(least, clock() - since)
    return least


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
