"""What the host knows of places and counts without asking the device, against what is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from cached_rows import Row, mixture, picture, requests_of, start_of, text
from restless_rows import COSINE, changed, drawing_masks, restless, with_order
from torch import Tensor

from dimoo.backbone.model import Backbone
from dimoo.cache.blocks import BlockCache
from dimoo.cache.max_logit import MaxLogit, Timetable
from dimoo.cache.policy import Look, Policy
from dimoo.cache.stored import StoredCache
from dimoo.core.rng import generator
from dimoo.denoise import NoCache
from dimoo.diffusion.canvas import Canvas
from dimoo.diffusion.orders import BlockOrder, Order
from dimoo.diffusion.parallel import AdaptiveOrder, Threshold
from dimoo.diffusion.progress import Progress
from dimoo.diffusion.remasking import Refinement, ReMDM
from dimoo.diffusion.sampler import Query, sample
from dimoo.diffusion.settled import SettledOrder
from dimoo.diffusion.spread import HaltonOrder

EARLY = Timetable(warmup=0.0, refresh=4)


@pytest.mark.parametrize("masks", [False, True])
def test_what_queries_say_of_their_places_is_true(backbone: Backbone, masks: bool) -> None:
    """Caches act on it, unseen by the device."""
    settling = SettledOrder(order=BlockOrder(block=2), steps=1)
    rows = [*mixture(), *restless(looks_back=True), *wandering(), backwards()]
    rows.append(changed(text(steps=12, length=8, block=2, seed=12), order=settling))
    start = drawing_masks(start_of(rows)) if masks else start_of(rows)
    network = NoCache().denoiser(backbone, start, requests_of(rows))
    seen: list[tuple[bool, bool]] = []
    before: list[Canvas] = [start]

    def checked(canvas: Canvas, queries: Sequence[Query]) -> list[Tensor]:
        for query in queries:
            span = next(span for span in start.spans if span.row == query.row and span.columns == query.columns)
            region, places = query.region, span.positions.sort().values
            inside = places[(places >= region.first) & (places <= region.last)]
            assert {*query.positions.tolist()} <= {*inside.tolist()}
            if region.complete:
                assert sorted(query.positions.tolist()) == inside[canvas.masked[inside]].tolist()
            own = slice(sum(start.lengths[: query.row]), sum(start.lengths[: query.row + 1]))
            assert query.written >= int((canvas.ids[own] != before[0].ids[own]).sum())
            seen.append((region.complete, inside.numel() < places.numel()))
        before[0] = canvas
        return network(canvas, queries)

    for _ in sample(checked, start, [generator(row.seed) for row in rows]):
        pass
    assert {(True, True), (True, False), (False, False)} <= {*seen}


LIKELY = Threshold(threshold=0.4)
IN_BLOCKS: dict[str, Order] = {
    "equal shares": BlockOrder(block=4),
    "adaptive": AdaptiveOrder(rule=LIKELY, block=4),
    "settled": SettledOrder(order=BlockOrder(block=4), steps=1),
    "settled adaptive": SettledOrder(order=AdaptiveOrder(rule=LIKELY, block=4), steps=1),
}


def regions(backbone: Backbone, row: Row, *, masks: bool = False) -> list[tuple[int, int, bool]]:
    """Those of each step, counted from the first token of the answer."""
    found: list[tuple[int, int, bool]] = []
    start = drawing_masks(start_of([row])) if masks else start_of([row])
    network = NoCache().denoiser(backbone, start, requests_of([row]))

    def noting(canvas: Canvas, queries: Sequence[Query]) -> list[Tensor]:
        found.extend((query.region.first, query.region.last, query.region.complete) for query in queries)
        return network(canvas, queries)

    for _ in sample(noting, start, [generator(row.seed)]):
        pass
    return found


@pytest.mark.parametrize("order", IN_BLOCKS.values(), ids=IN_BLOCKS)
def test_a_region_is_the_block_whatever_of_it_is_made(backbone: Backbone, order: Order) -> None:
    """10 positions after one that is given, and of those the second and the last are given as well."""
    row = changed(text(steps=9, length=10, seed=3), order=order)
    known = list(row.ids)
    known[2] = known[10] = 7
    found = regions(backbone, replace(row, ids=tuple(known)))
    assert {*found} == {(1, 4, True), (5, 8, True), (9, 9, True)}
    assert found == sorted(found)


def test_once_something_comes_back_a_region_begins_with_the_span(backbone: Backbone) -> None:
    refined = changed(text(steps=6, length=6, seed=3), remasking=Refinement(rounds=2, share=0.4))
    assert {*regions(backbone, refined)[-2:]} == {(1, 6, True)}
    assert {*regions(backbone, changed(picture(steps=6), remasking=ReMDM(eta=0.9)))} == {(0, 13, True)}
    drawn = regions(backbone, changed(text(steps=6, length=6, seed=3), draw=Masks()), masks=True)
    assert drawn == [(1, 3, True), *[(1, 3, False)] * 2, *[(1, 6, True)] * 3]


@dataclass(frozen=True)
class Masks:
    """Draws nothing but the mask."""

    def __call__(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        del generator
        return torch.zeros(len(logits), dtype=torch.int64)


def test_positions_in_any_order_are_found(backbone: Backbone) -> None:
    for policy in (BlockCache(scope="block"), BlockCache(scope="suffix"), MaxLogit(share=0.3, timetable=EARLY)):
        start, requests = start_of([backwards()]), requests_of([backwards()])
        *_, last = sample(StoredCache(policy=policy).denoiser(backbone, start, requests), start, [generator(0)])
        assert not last.canvas.masked.any()


def backwards() -> Row:
    """A picture whose span counts from its last code to its first."""
    row = picture(steps=5, seed=13)
    (places, columns, own) = row.parts[0]
    return replace(row, parts=((places[::-1], columns, own),))


def wandering() -> list[Row]:
    """Rows that predict some of what is masked, or mask again what was made."""
    halton = with_order(HaltonOrder(schedule=COSINE, grid=(2, 3)))
    return [
        halton,
        changed(halton, remasking=ReMDM(eta=0.5)),
        changed(picture(steps=7, seed=11), remasking=ReMDM(eta=0.5)),
        changed(picture(steps=6, seed=12), order=Halves(), remasking=ReMDM(eta=0.9)),
    ]


@dataclass(frozen=True)
class Halves:
    """The first half, then the second with what came back; two in each step, and all that is left in the last."""

    def validate(self, length: int, steps: int) -> None:
        del length, steps

    def block_at(self, progress: Progress) -> tuple[int, int]:
        middle = len(progress.masked) // 2
        return (0, middle) if 2 * progress.step < progress.steps else (middle, 2 * middle)

    def left(self, progress: Progress) -> int:
        return 0 if progress.step + 1 == progress.steps else progress.left - 2

    def candidates(self, progress: Progress) -> Tensor:
        return progress.masked[: self.block_at(progress)[1]].nonzero()[:, 0]

    def commit(self, progress: Progress, candidates: Tensor, confidence: Tensor, generator: torch.Generator) -> Tensor:
        del confidence, generator
        return candidates if self.left(progress) == 0 else candidates[: 2 + progress.remasked]


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The policy, which looks at what it is told first."""

    inner: MaxLogit
    exact: list[bool] = field(default_factory=list, compare=False)

    @property
    def keeps_logits(self) -> bool:
        return True

    def surveys(self, step: int, steps: int) -> bool:
        return self.inner.surveys(step, steps)

    def anew(self, look: Look) -> Tensor | None:
        unseen = int(((look.peaks == -torch.inf) & ~look.changed)[look.wanted].sum())
        assert unseen <= look.unseen <= look.wanted.numel()
        assert int(look.changed.sum()) <= look.written
        assert look.within[0] <= int(look.wanted[0])
        assert int(look.wanted[-1]) <= look.within[1]
        self.exact.append(unseen == look.unseen)
        return self.inner.anew(look)


def looks(backbone: Backbone, rows: list[Row], *, fixed: bool = False, masks: bool = False) -> list[bool]:
    """Of each look whether as many were unseen as it said."""
    checked = Checked(inner=MaxLogit(share=0.3, timetable=EARLY, fixed=fixed))
    policy: Policy = checked
    start = drawing_masks(start_of(rows)) if masks else start_of(rows)
    denoiser = StoredCache(policy=policy).denoiser(backbone, start, requests_of(rows))
    for _ in sample(denoiser, start, [generator(row.seed) for row in rows]):
        pass
    return checked.exact


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("masks", [False, True])
def test_no_more_is_unseen_than_the_host_says(backbone: Backbone, fixed: bool, masks: bool) -> None:
    rows = [*mixture(), *restless(looks_back=False), *wandering()]
    assert False in looks(backbone, rows, fixed=fixed, masks=masks)


def test_so_much_is_unseen_where_nothing_comes_back(backbone: Backbone) -> None:
    assert {*looks(backbone, mixture())} == {True}
    assert {*looks(backbone, [with_order(HaltonOrder(schedule=COSINE, grid=(2, 3)))])} == {True}
