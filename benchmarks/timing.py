"""A clock whose every moment belongs to exactly one part, and hooks that tell it which: nothing in the library."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from dimoo.backbone.block import Attention, GatedMLP
from dimoo.backbone.model import Backbone

REST = "rest"
PARTS: Mapping[type[nn.Module], str] = {Attention: "attention", GatedMLP: "mlp"}


class Clock:
    """Seconds by part. Parts nest; the time inside a part is not counted for the one around it."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._since = 0.0
        self._device = device

    def start(self, part: str) -> None:
        """Enter a part."""
        self._book()
        self._open.append(part)

    def stop(self) -> None:
        """Leave the innermost part."""
        self._book()
        self._open.pop()

    def turn(self, part: str) -> None:
        """The innermost part is another one from here on."""
        self._book()
        self._open[-1] = part

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Everything inside belongs to the part."""
        self.start(name)
        try:
            yield
        finally:
            self.stop()

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, counted as a part."""

        def run(*arguments: Any, **named: Any) -> Any:
            with self.part(name):
                return call(*arguments, **named)

        return run

    def _book(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._since
        self._since = now


@dataclass
class Logits:
    """How many logits the head computed, and how many it would have computed for every token and every id."""

    rows: int = 0
    computed: int = 0
    stream: int = 0
    full: int = 0
    ids: int = 0
    columns: set[int] = field(default_factory=set)

    @property
    def share(self) -> float:
        """Computed over full."""
        return self.computed / max(self.full, 1)

    def report(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "rows": self.rows,
            "columns": sorted(self.columns),
            "computed": self.computed,
            "stream_tokens": self.stream,
            "ids": self.ids,
            "full": self.full,
            "share": self.share,
        }


def watch(backbone: Backbone, clock: Clock) -> list[RemovableHandle]:
    """Count the attention and the MLP of every block as parts, forward and backward, until the hooks are removed."""
    hooks: list[RemovableHandle] = []
    for module in backbone.modules():
        name = PARTS.get(type(module))
        if name is not None:
            hooks += [
                module.register_forward_pre_hook(lambda *_, name=name: clock.start(name)),
                module.register_forward_hook(lambda *_: clock.stop()),
                module.register_full_backward_pre_hook(lambda *_, name=name: clock.start(name)),
                module.register_full_backward_hook(lambda *_: clock.stop()),
            ]
    return hooks


@contextmanager
def counted() -> Iterator[Logits]:
    """Count the logits of every backbone while this lasts."""
    seen = Logits()
    head, encode = Backbone.head, Backbone.encode

    def counting_head(self: Backbone, hidden_rows: torch.Tensor, columns: slice | None = None) -> torch.Tensor:
        logits = head(self, hidden_rows, columns)
        seen.rows += logits.shape[0]
        seen.columns.add(logits.shape[1])
        seen.computed += logits.numel()
        return logits

    def counting_encode(self: Backbone, embeddings: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.stream += len(embeddings)
        seen.ids = self.vocab_size
        seen.full += len(embeddings) * self.vocab_size
        return encode(self, embeddings, *rest)

    with ExitStack() as stack:
        stack.enter_context(patch.object(Backbone, "head", counting_head))
        stack.enter_context(patch.object(Backbone, "encode", counting_encode))
        yield seen
