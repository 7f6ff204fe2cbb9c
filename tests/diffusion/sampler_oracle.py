"""A denoiser without a network, and the sampler once more as plain Python loops, a row at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from dimoo.core.rng import generator
from dimoo.diffusion.canvas import Canvas, Span
from dimoo.diffusion.confidence import GumbelConfidence
from dimoo.diffusion.draw import Categorical
from dimoo.diffusion.orders import BlockOrder
from dimoo.diffusion.sampler import Query
from dimoo.diffusion.stopping import StopAtToken

IDS = 36
"""Text ids 0..19 (18 the stop token, 19 the mask), image codes 20..35."""
TEXT, CODES, STOP, MASK = (0, 20), (20, 36), 18, 19


def fake_logits(row: Sequence[int], position: int, branch: str) -> Tensor:
    """float32 [IDS]: any function of a row's tokens, the position in the row and the branch."""
    state = sum((place + 1) * (token + 1) for place, token in enumerate(row))
    return torch.randn(IDS, generator=generator(state, position, branch)) * 3


@dataclass
class FakeDenoiser:
    """Keeps the queries that it was asked."""

    asked: list[list[Query]] = field(default_factory=list)

    def __call__(self, canvas: Canvas, queries: Sequence[Query]) -> list[Tensor]:
        self.asked.append(list(queries))
        return [self._answer(canvas, query) for query in queries]

    def _answer(self, canvas: Canvas, query: Query) -> Tensor:
        row, first = canvas.row(query.row).tolist(), sum(canvas.lengths[: query.row])
        rows = [
            fake_logits(row, int(position) - first, branch) for branch in query.branches for position in query.positions
        ]
        shape = len(query.branches), len(query.positions), -1
        return torch.stack(rows).view(shape)[..., slice(*query.columns)]


def naive_rows(canvas: Canvas, seeds: Sequence[int]) -> list[list[list[int]]]:
    """The ids of every row after each of its steps, by loops over rows, steps, spans and positions."""
    return [_naive_row(canvas, index, generator(seed)) for index, seed in enumerate(seeds)]


def _naive_row(canvas: Canvas, index: int, rng: Generator) -> list[list[int]]:
    first = sum(canvas.lengths[:index])
    row = canvas.row(index).tolist()
    spans = [(span, [int(p) - first for p in span.positions]) for span in canvas.spans if span.row == index]
    totals = [[row[p] == canvas.mask_id for p in places] for _, places in spans]
    history = []
    for step in range(max(span.plan.steps for span, _ in spans)):
        before = list(row)  # all spans of a step see the same canvas
        for (span, places), initial in zip(spans, totals, strict=True):
            if step < span.plan.steps:
                for place, token in _naive_step(span, places, initial, before, step, rng):
                    row[place] = token
        for (span, places), initial in zip(spans, totals, strict=True):
            if step < span.plan.steps and _stops(span, [row[p] for p in places], initial, canvas.mask_id):
                for place in places:
                    row[place] = span.fill if row[place] == canvas.mask_id else row[place]
        history.append(list(row))
    return history


def _naive_step(
    span: Span, places: list[int], initial: list[bool], row: list[int], step: int, rng: Generator
) -> list[tuple[int, int]]:
    masked = [place for place in places if row[place] == MASK]
    order, count = span.plan.order, 0
    if isinstance(order, BlockOrder):
        blocks = math.ceil(len(places) / order.block)
        per_block = span.plan.steps // blocks
        block, k = divmod(step, per_block)
        end = (block + 1) * order.block
        share, rest = divmod(sum(initial[end - order.block : end]), per_block)
        masked = [place for place in masked if places.index(place) < end]
        count = share + (1 if k < rest else 0)
        if not count:
            return []
    elif step + 1 == span.plan.steps:
        count = len(masked)
    else:
        cosine = torch.cos(0.5 * math.pi * torch.tensor([(step + 1) / span.plan.steps]))
        left = int((torch.tensor(float(sum(initial))) * cosine).floor())
        count = len(masked) - min(max(1, left), len(masked) - 1)
    if not masked:
        return []
    guided = torch.stack([_guide(span, row, place) for place in masked])
    for token in span.forbidden:
        guided[:, token - span.columns[0]] = -math.inf
    draws = [_draw(span.plan.draw, scores, rng) for scores in guided]
    sure = [float(scores.log_softmax(-1)[drawn]) for scores, drawn in zip(guided, draws, strict=True)]
    noise = _noise(span.plan.confidence, torch.Size([len(masked)]), rng).tolist()
    ranked = sorted(range(len(masked)), key=lambda i: (-(sure[i] + noise[i]), i))
    return [(masked[i], draws[i] + span.columns[0]) for i in ranked[:count]]


def _guide(span: Span, row: list[int], place: int) -> Tensor:
    columns = slice(*span.columns)
    condition = fake_logits(row, place, "condition")[columns]
    if len(span.plan.guidance.branches) == 1:
        return condition
    scale = span.plan.guidance.scale
    return (1 + scale) * condition - scale * fake_logits(row, place, "unconditional")[columns]


def _draw(strategy: object, scores: Tensor, rng: Generator) -> int:
    """The likeliest column, or that at which the summed probability passes a uniform number."""
    if not isinstance(strategy, Categorical):
        return int(scores.argmax())
    left = float(torch.rand((), dtype=torch.float64, generator=rng))
    shares = (scores.double() / strategy.temperature).softmax(-1).tolist()
    return next(column for column in range(len(shares)) if left < sum(shares[: column + 1]))


def _noise(strategy: object, shape: torch.Size, rng: Generator) -> Tensor:
    if not isinstance(strategy, GumbelConfidence):
        return torch.zeros(shape)
    return -(-torch.rand(shape, generator=rng).clamp(min=1e-38).log()).clamp(min=1e-38).log()


def _stops(span: Span, tokens: list[int], initial: list[bool], mask: int) -> bool:
    if not isinstance(span.plan.stopping, StopAtToken):
        return False
    for token, was_masked in zip(tokens, initial, strict=True):
        if token == mask:
            return False
        if was_masked and token == span.plan.stopping.token:
            return True
    return False
