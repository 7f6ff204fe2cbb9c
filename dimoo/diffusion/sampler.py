"""The one sampler loop: ask for logits, fold the branches, draw, commit, yield. It knows no network and no cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from dimoo.core.errors import ConfigError
from dimoo.diffusion.canvas import Canvas, Span
from dimoo.diffusion.guidance import Guidance
from dimoo.diffusion.progress import Progress


@dataclass(frozen=True, kw_only=True, eq=False)
class Query:
    """Logits that a step wants: of some positions of one row, on some columns, for some branches."""

    row: int
    positions: Tensor
    """int64 [m]: canvas positions."""
    columns: tuple[int, int]
    branches: tuple[str, ...]
    step: int
    """The 0-based step of the span's plan that asks ..."""
    steps: int
    """... and how many that plan has: caches may follow a timetable."""


class Denoiser(Protocol):
    """Predicts the tokens at masked positions."""

    def __call__(self, canvas: Canvas, queries: Sequence[Query]) -> list[Tensor]:
        """One tensor of logits [branches, m, columns] per query, the branches in the query's order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """What a step did; the loop yields one per step."""

    step: int
    """How many steps have been taken."""
    steps: int
    """How many there are at most, over all spans."""
    canvas: Canvas
    committed: Tensor
    """int64 [k]: the canvas positions drawn and written in this step, in the order of the spans; what an early stop
    fills is not among them."""
    share_done: float
    """Share of the initially masked positions that hold a token now."""


def sample(denoiser: Denoiser, canvas: Canvas, generators: Sequence[Generator]) -> Iterator[State]:
    """Denoise a canvas step by step (MaskGIT and LLaDA alike: the plans of the spans say how).

    At step s of S, for each span with masked positions left:
    g = guidance.at(s, S); l = g(denoiser's logits of g's branches); x = draw(l); c = confidence(l, x); commit order(c).

    Args:
        denoiser: the network, with or without caches.
        canvas: the start; it is not changed.
        generators: one per row, so that a row's result does not depend on its batch mates.

    Yields:
        A `State` after every step. Stop iterating to cancel; keep a state's canvas to fork from it.

    Raises:
        ConfigError: there is not one generator per row, or (after the last step) an order left positions masked.
    """
    if len(generators) != len(canvas.lengths):
        raise ConfigError(f"{len(canvas.lengths)} rows need as many generators, not {len(generators)}")
    start, total = canvas, max(1, int(canvas.masked.sum()))
    steps = max((span.plan.steps for span in canvas.spans), default=0)
    open_spans = _unfinished(canvas, canvas.spans, step=0)
    for step in range(steps):
        if not open_spans:
            return
        turns = _turns(canvas, start, open_spans, step)
        # Where an order idles (more steps than tokens) nothing is computed, and its row leaves the pack for the step.
        logits = denoiser(canvas, [turn.query for turn in turns]) if turns else []
        commits = [turn.commit(rows, generators[turn.span.row]) for turn, rows in zip(turns, logits, strict=True)]
        committed = torch.cat([canvas.ids[:0], *(positions for positions, _ in commits)])
        canvas = canvas.commit(committed, torch.cat([canvas.ids[:0], *(ids for _, ids in commits)]))
        canvas = _stop_early(canvas, start, open_spans, step)
        open_spans = _unfinished(canvas, open_spans, step=step + 1)
        left = int(canvas.masked.sum())
        yield State(step=step + 1, steps=steps, canvas=canvas, committed=committed, share_done=1 - left / total)
    for span in canvas.spans:
        left = int(canvas.masked[span.positions].sum())
        if left and not span.may_draw(canvas.mask_id):
            raise ConfigError(
                f"{span.plan.order} left {left} of {span.positions.numel()} positions masked after its"
                f" {span.plan.steps} steps; give the plan more steps, or an order that commits all in them"
            )


def run(denoiser: Denoiser, canvas: Canvas, generators: Sequence[Generator]) -> Canvas:
    """Sample to the end and return the finished canvas."""
    for state in sample(denoiser, canvas, generators):
        canvas = state.canvas
    return canvas


@dataclass(frozen=True, kw_only=True, eq=False)
class _Turn:
    """One span's part in one step."""

    span: Span
    progress: Progress
    candidates: Tensor
    """int64 [m], m > 0: offsets within the span."""
    guidance: Guidance
    """The plan's, at this step: the branches that it does not need now are not computed."""

    @property
    def query(self) -> Query:
        """The logits that it needs."""
        return Query(
            row=self.span.row,
            positions=self.span.positions[self.candidates],
            columns=self.span.columns,
            branches=self.guidance.branches,
            step=self.progress.step,
            steps=self.progress.steps,
        )

    def commit(self, logits: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Canvas positions int64 [k] to write now, and their ids int64 [k]."""
        plan, first = self.span.plan, self.span.columns[0]
        guided = self.guidance(logits)
        if self.span.forbidden:
            guided = guided.clone()
            guided[:, [index - first for index in self.span.forbidden]] = -torch.inf
        drawn = plan.draw(guided, generator)
        confidence = plan.confidence(guided, drawn, generator)
        chosen = plan.order.commit(self.progress, self.candidates, confidence, generator)
        ids = torch.empty_like(self.span.positions)
        ids[self.candidates] = drawn + first
        return self.span.positions[chosen], ids[chosen]


def _turns(canvas: Canvas, start: Canvas, spans: Sequence[Span], step: int) -> list[_Turn]:
    """The parts of the spans that want logits in this step."""
    turns = []
    for span in spans:
        progress = canvas.progress(span, start, step)
        candidates = span.plan.order.candidates(progress)
        if candidates.numel():
            guidance = span.plan.guidance.at(step, span.plan.steps)
            turns.append(_Turn(span=span, progress=progress, candidates=candidates, guidance=guidance))
    return turns


def _stop_early(canvas: Canvas, start: Canvas, spans: Sequence[Span], step: int) -> Canvas:
    """Fill what is left of the spans whose stopping rule says that they are done."""
    for span in spans:
        view = canvas.progress(span, start, step)
        if span.plan.stopping(canvas.ids[span.positions], view):
            rest = span.positions[view.masked]
            canvas = canvas.commit(rest, torch.full_like(rest, span.fill))
    return canvas


def _unfinished(canvas: Canvas, spans: Sequence[Span], *, step: int) -> tuple[Span, ...]:
    return tuple(span for span in spans if step < span.plan.steps and bool(canvas.masked[span.positions].any()))
