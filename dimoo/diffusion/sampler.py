"""The one sampler loop: ask for logits, fold the branches, draw, commit, yield. It knows no network and no cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from dimoo.core.device import Count, read
from dimoo.core.errors import ConfigError
from dimoo.diffusion.canvas import Canvas, Span
from dimoo.diffusion.turn import Outcome, Region, Track, Turn


@dataclass(frozen=True, kw_only=True, eq=False)
class Query:
    """Logits that a step wants: of some positions of one row, on some columns, for some branches."""

    row: int
    positions: Tensor
    """int64 [m]: canvas positions, ..."""
    region: Region
    """... all of them within this."""
    columns: tuple[int, int]
    branches: tuple[str, ...]
    step: int
    """The 0-based step of the span that asks ..."""
    steps: int
    """... and how many the plans of its row have at most, with rounds of remasking: caches may follow a timetable."""
    written: int
    """How many positions of the row, in all its spans, were written or masked again since the step before, at most:
    caches need not ask the device."""


class Denoiser(Protocol):
    """Predicts the tokens at masked positions."""

    def __call__(self, canvas: Canvas, queries: Sequence[Query]) -> list[Tensor]:
        """One tensor of logits [branches, m, columns] per query, the branches in the query's order."""


@runtime_checkable
class Inquiring(Protocol):
    """A denoiser that needs numbers for its next step which the device alone knows.

    The sampler reads them with its own, and so waits for the device once. Where nobody does, it reads them itself.
    """

    @property
    def open_counts(self) -> Sequence[Count]:
        """After a step, what it needs to know at the next; numbers once they are told."""

    def told(self, numbers: Sequence[int]) -> None:
        """Be told what `open_counts` are, in their order."""


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
    mask again what remasking takes back. A step reads from the device at most once, for all rows together, and not at
    all where counts are known beforehand.

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
    tracks = [Track.start(span, canvas) for span in canvas.spans]
    total = max(1, sum(track.left for track in tracks))
    steps = max((span.plan.most_steps for span in canvas.spans), default=0)
    going = _going_on(tracks, step=0)
    for step in range(steps):
        if not going:
            break
        # First the device, with no wait: also where it alone knows how many tokens are committed, or whether a span
        # stops, the canvas follows, by flags.
        for index in going:
            tracks[index], canvas = tracks[index].reopened(canvas)
        turns = {index: tracks[index].turn(canvas, step, generators[tracks[index].span.row]) for index in going}
        # Where an order idles (more steps than tokens) nothing is computed, and its row leaves the pack for the step.
        asked = {index: turn for index, turn in turns.items() if turn.candidates.numel()}
        rows = dict(zip(asked, denoiser(canvas, _queries(asked.values(), tracks, step)) if asked else (), strict=True))
        outcomes = {
            index: turn.taken(rows[index], generators[turn.track.span.row]) if index in rows else turn.idle()
            for index, turn in turns.items()
        }
        canvas = _written(canvas, outcomes.values())
        stops = {index: tracks[index].stops(canvas, step) for index in going}
        canvas = _filled(canvas, [(tracks[index].span, stop) for index, stop in stops.items() if stop is not False])
        # Then the host: it reads those numbers of all spans at once (none, if it knows them all), and counts along.
        inquiring = denoiser if isinstance(denoiser, Inquiring) else None
        open_counts = inquiring.open_counts if inquiring else ()
        *told, known = read([*((*outcomes[index].counts, stops[index]) for index in going), open_counts])
        if inquiring:
            inquiring.told(known)
        numbers = dict(zip(going, told, strict=True))
        tracks = [
            outcomes[index].counted(*numbers[index]) if index in numbers else replace(track, written=0)
            for index, track in enumerate(tracks)
        ]
        committed = [outcomes[index].written(count) for index, (count, *_) in numbers.items()]
        going = _going_on(tracks, step=step + 1)
        yield State(
            step=step + 1,
            steps=steps,
            canvas=canvas,
            committed=torch.cat([canvas.ids[:0], *committed]),
            share_done=1 - sum(track.left for track in tracks) / total,
        )
    for track in tracks:
        span = track.span
        if track.left and not span.may_draw(canvas.mask_id):
            raise ConfigError(
                f"{span.plan.order} left {track.left} of {span.positions.numel()} positions masked after its"
                f" {span.plan.steps} steps; give the plan more steps, or an order that commits all in them"
            )


def run(denoiser: Denoiser, canvas: Canvas, generators: Sequence[Generator]) -> Canvas:
    """Sample to the end and return the finished canvas."""
    for state in sample(denoiser, canvas, generators):
        canvas = state.canvas
    return canvas


def _written(canvas: Canvas, outcomes: Collection[Outcome]) -> Canvas:
    """The canvas after what some spans did."""
    positions, ids, flags, again = (
        torch.cat(parts)
        for parts in (
            [outcome.positions for outcome in outcomes],
            [outcome.ids for outcome in outcomes],
            [outcome.flags for outcome in outcomes],
            [outcome.again for outcome in outcomes],
        )
    )
    return canvas.commit(positions, torch.where(flags, ids, canvas.ids[positions])).mask(again)


def _filled(canvas: Canvas, stops: Sequence[tuple[Span, bool | Tensor]]) -> Canvas:
    """The canvas with what is still masked filled where a span stops."""
    if not stops:
        return canvas
    ids = [
        torch.where(canvas.masked[span.positions] & stop, span.fill, canvas.ids[span.positions]) for span, stop in stops
    ]
    return canvas.commit(torch.cat([span.positions for span, _ in stops]), torch.cat(ids))


def _queries(turns: Iterable[Turn], tracks: Sequence[Track], step: int) -> list[Query]:
    """The logits that turns need."""
    written, steps = Counter[int](), Counter[int]()
    for track in tracks:
        written[track.span.row] += track.written
        steps[track.span.row] = max(steps[track.span.row], track.span.plan.most_steps)
    return [
        Query(
            row=turn.track.span.row,
            positions=turn.track.span.positions[turn.candidates],
            region=turn.region(),
            columns=turn.track.span.columns,
            branches=turn.guidance.branches,
            step=step,
            steps=steps[turn.track.span.row],
            written=written[turn.track.span.row],
        )
        for turn in turns
    ]


def _going_on(tracks: Sequence[Track], *, step: int) -> list[int]:
    return [index for index, track in enumerate(tracks) if track.goes_on(step)]
