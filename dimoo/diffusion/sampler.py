"""The one sampler loop: ask for logits, fold the branches, draw, commit, yield. It knows no network and no cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from dimoo.core.errors import ConfigError
from dimoo.diffusion.canvas import Canvas, Span
from dimoo.diffusion.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Query:
    """Logits that a step wants: of some positions of one row, on some columns, for some branches."""

    row: int
    positions: Tensor
    """int64 [m]: canvas positions."""
    columns: tuple[int, int]
    branches: tuple[str, ...]


class Denoiser(Protocol):
    """Predicts the tokens at masked positions."""

    def __call__(self, canvas: Canvas, queries: Sequence[Query]) -> list[Tensor]:
        """One tensor of logits [branches, m, columns] per query, the branches in the query's order."""


@dataclass(frozen=True, kw_only=True)
class State:
    """What a step did; the loop yields one per step."""

    step: int
    """How many steps have been taken."""
    steps: int
    """How many there are at most, over all spans."""
    canvas: Canvas
    committed: Tensor
    """int64 [k]: the canvas positions written in this step, in the order of the spans."""
    share_done: float
    """Share of the initially masked positions that hold a token now."""


def sample(denoiser: Denoiser, canvas: Canvas, generators: Sequence[Generator]) -> Iterator[State]:
    """Denoise a canvas step by step (MaskGIT and LLaDA alike: the plans of the spans say how).

    At step s, for each span with masked positions left:
    logits = denoiser; l = guidance(logits); x = draw(l); c = confidence(l, x); commit order(c).

    Args:
        denoiser: the network, with or without caches.
        canvas: the start; it is not changed.
        generators: one per row, so that a row's result does not depend on its batch mates.

    Yields:
        A `State` after every step. Stop iterating to cancel; keep a state's canvas to fork from it.

    Raises:
        ConfigError: there is not one generator per row.
    """
    if len(generators) != len(canvas.lengths):
        raise ConfigError(f"{len(canvas.lengths)} rows need as many generators, not {len(generators)}")
    start, total = canvas, max(1, int(canvas.masked.sum()))
    steps = max((span.plan.steps for span in canvas.spans), default=0)
    open_spans = _unfinished(canvas, canvas.spans, step=0)
    for step in range(steps):
        if not open_spans:
            return
        views = [canvas.progress(span, start, step) for span in open_spans]
        offsets = [span.plan.order.candidates(view) for span, view in zip(open_spans, views, strict=True)]
        queries = [_query(span, offset) for span, offset in zip(open_spans, offsets, strict=True)]
        positions, ids = [], []
        for span, view, offset, logits in zip(open_spans, views, offsets, denoiser(canvas, queries), strict=True):
            chosen, drawn = _step(span, view, offset, logits, generators[span.row])
            positions.append(span.positions[chosen])
            ids.append(drawn)
        committed = torch.cat(positions)
        canvas = canvas.commit(committed, torch.cat(ids))
        canvas = _stop_early(canvas, start, open_spans, step)
        open_spans = _unfinished(canvas, open_spans, step=step + 1)
        left = int(canvas.masked.sum())
        yield State(step=step + 1, steps=steps, canvas=canvas, committed=committed, share_done=1 - left / total)


def run(denoiser: Denoiser, canvas: Canvas, generators: Sequence[Generator]) -> Canvas:
    """Sample to the end and return the finished canvas."""
    for state in sample(denoiser, canvas, generators):
        canvas = state.canvas
    return canvas


def _query(span: Span, offsets: Tensor) -> Query:
    return Query(
        row=span.row,
        positions=span.positions[offsets],
        columns=span.columns,
        branches=span.plan.guidance.branches,
    )


def _step(
    span: Span, view: Progress, candidates: Tensor, logits: Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Offsets [k] that the span commits now, and their ids [k]."""
    plan, first = span.plan, span.columns[0]
    guided = plan.guidance(logits)
    if span.forbidden:
        guided = guided.clone()
        guided[:, [index - first for index in span.forbidden]] = -torch.inf
    drawn = plan.draw(guided, generator)
    confidence = plan.confidence(guided, drawn, generator)
    chosen = plan.order.commit(view, candidates, confidence, generator)
    ids = torch.empty_like(view.masked, dtype=torch.int64)
    ids[candidates] = drawn + first
    return chosen, ids[chosen]


def _stop_early(canvas: Canvas, start: Canvas, spans: Sequence[Span], step: int) -> Canvas:
    """Fill what is left of the spans whose stopping rule says that they are done."""
    for span in spans:
        view = canvas.progress(span, start, step)
        if span.plan.stopping(canvas.ids[span.positions], view):
            rest = span.positions[view.masked]
            canvas = canvas.commit(rest, torch.full_like(rest, span.fill))
    return canvas


def _unfinished(canvas: Canvas, spans: Sequence[Span], *, step: int) -> tuple[Span, ...]:
    return tuple(
        span for span in spans if step < span.plan.steps and bool(canvas.masked[span.positions].any())
    )
