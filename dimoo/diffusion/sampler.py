"""The one sampler loop: ask for logits, fold the branches, draw, commit, yield. It knows no network and no cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from dimoo.core.errors import ConfigError
from dimoo.diffusion.canvas import Canvas
from dimoo.diffusion.turn import Track, Turn


@dataclass(frozen=True, kw_only=True, eq=False)
class Query:
    """Logits that a step wants: of some positions of one row, on some columns, for some branches."""

    row: int
    positions: Tensor
    """int64 [m]: canvas positions."""
    columns: tuple[int, int]
    branches: tuple[str, ...]
    step: int
    """The 0-based step of the span that asks ..."""
    steps: int
    """... and how many its plan has at most, rounds of remasking among them: caches may follow a timetable."""


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
    """int64 [k]: the canvas positions drawn and written in this step, in the order of the spans. What an early stop
    fills is not among them, nor what is masked again. A round of refinement writes positions that had a token: it masks
    them as it begins, so that the canvas between two rounds is whole."""
    share_done: float
    """Share of the initially masked positions that hold a token now."""


def sample(denoiser: Denoiser, canvas: Canvas, generators: Sequence[Generator]) -> Iterator[State]:
    """Denoise a canvas step by step (MaskGIT and LLaDA alike: the plans of the spans say how).

    At step s of S, for each span with masked positions left:
    g = guidance.at(s, S); l = g(denoiser's logits of g's branches); x = draw(l); c = confidence(l, x); commit order(c);
    mask again what remasking takes back.

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
    steps = max((span.plan.most_steps for span in canvas.spans), default=0)
    tracks = _going_on(dict(enumerate(map(Track.start, canvas.spans))), canvas, step=0)
    for step in range(steps):
        if not tracks:
            break
        for index, track in tracks.items():
            tracks[index], canvas = track.reopened(canvas)
        turns = _turns(tracks, canvas, start, generators, step)
        # Where an order idles (more steps than tokens) nothing is computed, and its row leaves the pack for the step.
        logits = denoiser(canvas, [_query(turn, step) for turn in turns.values()]) if turns else []
        outcomes = [
            turn.taken(rows, generators[turn.track.span.row]) for turn, rows in zip(turns.values(), logits, strict=True)
        ]
        committed, ids, again = (
            torch.cat([canvas.ids[:0], *parts])
            for parts in (
                [outcome.positions for outcome in outcomes],
                [outcome.ids for outcome in outcomes],
                [outcome.again for outcome in outcomes],
            )
        )
        canvas = canvas.commit(committed, ids).mask(again)
        tracks |= {index: outcome.track for index, outcome in zip(turns, outcomes, strict=True)}
        canvas = _stop_early(tracks, canvas, start, step)
        tracks = _going_on(tracks, canvas, step=step + 1)
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


def _turns(
    tracks: Mapping[int, Track], canvas: Canvas, start: Canvas, generators: Sequence[Generator], step: int
) -> dict[int, Turn]:
    """The parts of the spans that want logits in this step."""
    turns = {index: track.turn(canvas, start, step, generators[track.span.row]) for index, track in tracks.items()}
    return {index: turn for index, turn in turns.items() if turn.candidates.numel()}


def _query(turn: Turn, step: int) -> Query:
    """The logits that a turn needs."""
    span = turn.track.span
    return Query(
        row=span.row,
        positions=span.positions[turn.candidates],
        columns=span.columns,
        branches=turn.guidance.branches,
        step=step,
        steps=span.plan.most_steps,
    )


def _stop_early(tracks: Mapping[int, Track], canvas: Canvas, start: Canvas, step: int) -> Canvas:
    """Fill what is left of the spans whose stopping rule says that they are done."""
    for span in (track.span for track in tracks.values()):
        view = canvas.progress(span, start, step)
        if span.plan.stopping(canvas.ids[span.positions], view):
            rest = span.positions[view.masked]
            canvas = canvas.commit(rest, torch.full_like(rest, span.fill))
    return canvas


def _going_on(tracks: Mapping[int, Track], canvas: Canvas, *, step: int) -> dict[int, Track]:
    return {index: track for index, track in tracks.items() if track.goes_on(canvas, step)}
