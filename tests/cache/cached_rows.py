"""Rows of every kind that a canvas may hold, and whole runs of them with all logits kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

import torch
from forwarding import Forwarding
from hypothesis import strategies as st
from torch import Tensor

from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.init import initialise
from dimoo.backbone.model import Backbone
from dimoo.cache.blocks import BlockCache
from dimoo.cache.frozen import FrozenContext
from dimoo.cache.max_logit import MaxLogit, PaperMaxLogit, Timetable
from dimoo.cache.policy import Policy
from dimoo.core.rng import generator
from dimoo.denoise import Branch, Branches
from dimoo.diffusion.canvas import Canvas, Plan, Span
from dimoo.diffusion.confidence import Confidence, GumbelConfidence, Probability
from dimoo.diffusion.draw import Categorical, Draw, Greedy
from dimoo.diffusion.guidance import ClassifierFree, Guidance, MultiCondition, NoGuidance
from dimoo.diffusion.guidance_steps import Interval
from dimoo.diffusion.orders import BlockOrder, MaskGITOrder, Order
from dimoo.diffusion.sampler import Denoiser, Query, sample
from dimoo.diffusion.schedules import Cosine
from dimoo.diffusion.stopping import NoStop

MASK, LINE, TEXT, CODES = 0, 3, (0, 20), (20, 36)
NOTHING = 0.0
"""A guidance scale that guides nothing."""


def toy() -> Backbone:
    """A network of 20 text ids and 16 image codes; its weights so large that every token shows in every logit."""
    config = BackboneConfig(d_model=32, layers=2, heads=4, kv_heads=2, mlp_hidden=48, vocab_size=36)
    model = initialise(build_backbone(config), generator(0, "cache"))
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(8.0)
    return model.eval()


@dataclass(frozen=True, kw_only=True)
class Row:
    """A request: its answer with masks, what is denoised of it, and its branches."""

    ids: tuple[int, ...]
    parts: tuple[tuple[tuple[int, ...], tuple[int, int], Plan], ...]
    """Positions within the answer, columns, plan."""
    branches: Branches
    seed: int = 0


def plan(
    steps: int, guidance: Guidance, order: Order, draw: Draw | None = None, sure: Confidence | None = None
) -> Plan:
    return Plan(
        steps=steps,
        order=order,
        draw=draw or Categorical(temperature=0.8),
        confidence=sure or GumbelConfidence(temperature=0.5),
        guidance=guidance,
        stopping=NoStop(),
    )


def words(count: int, seed: int) -> Tensor:
    """Text ids, int64 [count]."""
    random = Random(seed)
    return torch.tensor([random.randrange(9, 20) for _ in range(count)], dtype=torch.int64)


def codes(count: int, seed: int) -> Tensor:
    random = Random(seed)
    return torch.tensor([random.randrange(*CODES) for _ in range(count)], dtype=torch.int64)


def lines(height: int, width: int, kept: int = 0) -> tuple[int, ...]:
    """A picture to be made, with its row ends; the first `kept` codes are given."""
    known = codes(kept, 5).tolist()
    flat = [*known, *[MASK] * (height * width - kept)]
    return tuple(token for row in range(height) for token in (*flat[row * width : (row + 1) * width], LINE))


def places(ids: Sequence[int], start: int = 0) -> tuple[int, ...]:
    """Where a piece of an answer that begins at `start` is no row end."""
    return tuple(start + index for index, token in enumerate(ids) if token != LINE)


def picture(
    *,
    steps: int = 6,
    size: tuple[int, int] = (3, 4),
    prompt: int = 5,
    scale: float = 2.0,
    during: tuple[float, float] | None = None,
    kept: int = 0,
    seed: int = 0,
) -> Row:
    """Words to a picture, guided, perhaps within an interval; `kept` codes of it are given."""
    guidance: Guidance = ClassifierFree(scale=scale)
    if during is not None:
        guidance = Interval(guidance=guidance, start=during[0], stop=during[1])
    ids = lines(*size, kept)
    branches = {
        "condition": Branch(context=words(prompt, seed)),
        "unconditional": Branch(context=torch.tensor([4, 5])),
    }
    span = places(ids), CODES, plan(steps, guidance, MaskGITOrder(schedule=Cosine()))
    return Row(ids=ids, parts=(span,), branches=branches, seed=seed)


def edit(*, steps: int = 5, size: tuple[int, int] = (2, 3), prompt: int = 4, seed: int = 0) -> Row:
    """A picture and words to a picture: three branches."""
    ids, given, said = lines(*size), codes(6, seed), words(prompt, seed)
    branches = {
        "condition": Branch(context=torch.cat([given, said])),
        "no_text": Branch(context=given),
        "no_image": Branch(context=said),
    }
    guidance = MultiCondition(scales=(("no_text", 1.5), ("no_image", 2.0)))
    span = places(ids), CODES, plan(steps, guidance, MaskGITOrder(schedule=Cosine()))
    return Row(ids=ids, parts=(span,), branches=branches, seed=seed)


def text(*, steps: int = 6, length: int = 9, block: int = 3, prompt: int = 6, scale: float = 0.0, seed: int = 0) -> Row:
    """Words in blocks, between two given tokens; guided as LLaDA is, by a branch that shows masks for what is given."""
    ids = (5, *[MASK] * length, 6)
    branches = {"condition": Branch(context=words(prompt, seed))}
    guidance: Guidance = NoGuidance()
    if scale != NOTHING:
        branches["unconditional"] = Branch(context=torch.full((prompt,), MASK), hide_given=True)
        guidance = ClassifierFree(scale=scale)
    span = tuple(range(1, 1 + length)), TEXT, plan(steps, guidance, BlockOrder(block=block), Greedy(), Probability())
    return Row(ids=ids, parts=(span,), branches=branches, seed=seed)


def joint(
    *,
    steps: tuple[int, int] = (6, 4),
    length: int = 6,
    block: int = 3,
    size: tuple[int, int] = (2, 3),
    picture_first: bool = False,
    seed: int = 0,
) -> Row:
    """Words and a guided picture in one row, each with its own number of steps (words, picture)."""
    drawn, said = lines(*size), (5, *[MASK] * length, 6)
    pieces = (drawn, said) if picture_first else (said, drawn)
    at, begin = (0, len(drawn)) if picture_first else (len(said), 0)
    branches = {
        "condition": Branch(context=words(4, seed)),
        "unconditional": Branch(context=torch.tensor([4])),
    }
    spans = (
        (
            tuple(range(begin + 1, begin + 1 + length)),
            TEXT,
            plan(steps[0], NoGuidance(), BlockOrder(block=block), Greedy(), Probability()),
        ),
        (
            places(drawn, at),
            CODES,
            plan(steps[1], ClassifierFree(scale=1.5), MaskGITOrder(schedule=Cosine())),
        ),
    )
    return Row(ids=pieces[0] + pieces[1], parts=spans, branches=branches, seed=seed)


def twins(*, steps: tuple[int, int] = (8, 8), size: tuple[int, int] = (2, 3), seed: int = 0) -> Row:
    """Two pictures in one answer, of the same codes, each with a plan of its own."""
    drawn = lines(*size)
    branches = {
        "condition": Branch(context=words(4, seed)),
        "unconditional": Branch(context=torch.tensor([4])),
    }
    spans = tuple(
        (places(drawn, at), CODES, plan(own, ClassifierFree(scale=1.5), MaskGITOrder(schedule=Cosine())))
        for at, own in zip((0, len(drawn)), steps, strict=True)
    )
    return Row(ids=drawn + drawn, parts=spans, branches=branches, seed=seed)


def mixture() -> list[Row]:
    """One of each kind, of different lengths and numbers of steps."""
    return [
        picture(steps=6, seed=1),
        edit(steps=5, seed=2),
        text(steps=6, scale=1.0, seed=3),
        text(steps=8, length=8, block=4, prompt=3, seed=4),
        joint(steps=(6, 4), seed=5),
        picture(steps=8, size=(2, 5), during=(0.3, 0.8), kept=3, seed=6),
    ]


def start_of(rows: Sequence[Row]) -> Canvas:
    """The rows, one below the other."""
    spans, offset = [], 0
    for index, row in enumerate(rows):
        for positions, columns, own in row.parts:
            spans.append(
                Span(
                    row=index,
                    positions=torch.tensor(positions) + offset,
                    columns=columns,
                    plan=own,
                    forbidden=(MASK,) if columns[0] <= MASK < columns[1] else (),
                    fill=1,
                )
            )
        offset += len(row.ids)
    return Canvas.start(
        ids=torch.tensor([token for row in rows for token in row.ids]),
        lengths=tuple(len(row.ids) for row in rows),
        spans=tuple(spans),
        mask_id=MASK,
    )


def requests_of(rows: Sequence[Row]) -> dict[int, Branches]:
    return dict(enumerate(row.branches for row in rows))


@dataclass(kw_only=True)
class Trace:
    """A row's run."""

    asked: list[tuple[int, tuple[str, ...], tuple[int, int], list[int]]] = field(default_factory=list)
    """Of each query: step, branches, columns and positions within the row."""
    logits: list[Tensor] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    """At the end."""


class Watched(Forwarding):
    """A denoiser that keeps what it answers, by row."""

    def __init__(self, denoiser: Denoiser, rows: int) -> None:
        self.denoiser, self.traces = denoiser, [Trace() for _ in range(rows)]

    def __call__(self, canvas: Canvas, queries: Sequence[Query]) -> list[Tensor]:
        answers = self.denoiser(canvas, queries)
        for query, logits in zip(queries, answers, strict=True):
            first = sum(canvas.lengths[: query.row])
            trace = self.traces[query.row]
            trace.asked.append((query.step, query.branches, query.columns, (query.positions - first).tolist()))
            trace.logits.append(logits.clone())
        return answers


def traces(denoiser: Denoiser, start: Canvas, rows: Sequence[Row]) -> list[Trace]:
    """Sample the rows to the end."""
    watched, canvas = Watched(denoiser, len(rows)), start
    for state in sample(watched, start, [generator(row.seed) for row in rows]):
        canvas = state.canvas
    for index, trace in enumerate(watched.traces):
        trace.ids = canvas.row(index).tolist()
        assert MASK not in trace.ids
    return watched.traces


def assert_same(ours: Trace, theirs: Trace, *, atol: float) -> None:
    """Two runs of a row were asked the same and answered the same at every step, and made the same."""
    assert ours.asked == theirs.asked
    for step, (one, other) in enumerate(zip(ours.logits, theirs.logits, strict=True)):
        torch.testing.assert_close(one, other, atol=atol, rtol=0, msg=lambda text, at=step: f"query {at}: {text}")
    assert ours.ids == theirs.ids


def partial_policies() -> list[Policy]:
    """Each that there is, with settings at which it computes parts of short runs."""
    timetable = Timetable(warmup=0.2, refresh=4)
    return [
        PaperMaxLogit(share=0.23, timetable=timetable),
        MaxLogit(share=0.3, timetable=timetable),
        MaxLogit(share=0.3, timetable=timetable, fixed=True),
        BlockCache(scope="suffix"),
        BlockCache(scope="block"),
        BlockCache(scope="masked", refresh=3),
        FrozenContext(refresh=3),
    ]


@contextmanager
def counted(backbone: Backbone) -> Iterator[list[int]]:
    """The tokens of each forward pass within."""
    tokens: list[int] = []
    hook = backbone.embedding.register_forward_hook(lambda module, inputs, output: tokens.append(len(output)))
    try:
        yield tokens
    finally:
        hook.remove()


@st.composite
def some_row(draw: st.DrawFn) -> Row:
    """A row of any kind, with any number of steps, which may be more than it has tokens to make."""
    seed = draw(st.integers(0, 999))
    steps, prompt = draw(st.integers(1, 7)), draw(st.integers(1, 6))
    size = draw(st.sampled_from([(1, 2), (2, 3), (3, 3)]))
    match draw(st.sampled_from(["picture", "interval", "edit", "text", "guided text", "joint"])):
        case "picture":
            return picture(steps=steps, size=size, prompt=prompt, kept=draw(st.integers(0, 1)), seed=seed)
        case "interval":
            start, stop = sorted(
                draw(st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda pair: len({*pair}) > 1))
            )
            return picture(steps=steps, size=size, prompt=prompt, during=(start / 9, stop / 9), seed=seed)
        case "edit":
            return edit(steps=steps, size=size, prompt=prompt, seed=seed)
        case "joint":
            first = draw(st.booleans())
            return joint(steps=(2 * steps, draw(st.integers(1, 7))), size=size, picture_first=first, seed=seed)
        case kind:
            scale = 1.0 if kind == "guided text" else NOTHING
            blocks, block = draw(st.integers(1, 3)), draw(st.integers(1, 4))
            return text(steps=blocks * steps, length=blocks * block, block=block, prompt=prompt, scale=scale, seed=seed)
