"""What the host knows of places and counts without asking the device, against what is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from cached_rows import Row, mixture, picture, requests_of, start_of, text
from restless_rows import COSINE, changed, drawing_masks, restless, with_order
from torch import Tensor

from dimoo.backbone.model import Backbone
from dimoo.cache.max_logit import MaxLogit, Timetable
from dimoo.cache.policy import Look, Policy
from dimoo.cache.stored import StoredCache
from dimoo.core.rng import generator
from dimoo.denoise import NoCache
from dimoo.diffusion.canvas import Canvas
from dimoo.diffusion.orders import BlockOrder
from dimoo.diffusion.remasking import ReMDM
from dimoo.diffusion.sampler import Query, sample
from dimoo.diffusion.settled import SettledOrder
from dimoo.diffusion.spread import HaltonOrder


@pytest.mark.parametrize("masks", [False, True])
def test_what_queries_say_of_their_places_is_true(backbone: Backbone, masks: bool) -> None:
    """Caches act on it, unseen by the device."""
    settling = SettledOrder(order=BlockOrder(block=2), steps=1)
    rows = [*mixture(), *restless(looks_back=True), *wandering()]
    rows.append(changed(text(steps=12, length=8, block=2, seed=12), order=settling))
    start = drawing_masks(start_of(rows)) if masks else start_of(rows)
    network = NoCache().denoiser(backbone, start, requests_of(rows))
    seen: list[tuple[bool, bool]] = []
    before: list[Canvas] = [start]

    def checked(canvas: Canvas, queries: Sequence[Query]) -> list[Tensor]:
        for query in queries:
            span = next(span for span in start.spans if span.row == query.row and span.columns == query.columns)
            first, last = query.within
            inside = span.positions[(span.positions >= first) & (span.positions <= last)]
            assert {*query.positions.tolist()} <= {*inside.tolist()}
            if query.complete:
                assert query.positions.tolist() == inside[canvas.masked[inside]].tolist()
            own = slice(sum(start.lengths[: query.row]), sum(start.lengths[: query.row + 1]))
            back = canvas.masked[own] & ~before[0].masked[own]
            assert query.again >= int(back.sum())
            assert query.written >= int((canvas.ids[own] != before[0].ids[own]).sum())
            seen.append((query.complete, inside.numel() < span.positions.numel()))
        before[0] = canvas
        return network(canvas, queries)

    for _ in sample(checked, start, [generator(row.seed) for row in rows]):
        pass
    assert {(True, True), (True, False), (False, False)} <= {*seen}


def wandering() -> list[Row]:
    """Rows that predict some of what is masked, or mask again what was made."""
    halton = with_order(HaltonOrder(schedule=COSINE, grid=(2, 3)))
    return [
        halton,
        changed(halton, remasking=ReMDM(eta=0.5)),
        changed(picture(steps=7, seed=11), remasking=ReMDM(eta=0.5)),
    ]


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
        unseen = int((look.peaks[look.wanted] == -torch.inf).sum())
        assert unseen <= look.unseen <= look.wanted.numel()
        assert int(look.changed.sum()) <= look.written
        assert look.within[0] <= int(look.wanted[0])
        assert int(look.wanted[-1]) <= look.within[1]
        self.exact.append(unseen == look.unseen)
        return self.inner.anew(look)


def looks(backbone: Backbone, rows: list[Row], *, fixed: bool = False, masks: bool = False) -> list[bool]:
    """Of each look whether as many were unseen as it said."""
    checked = Checked(inner=MaxLogit(share=0.3, timetable=Timetable(warmup=0.0, refresh=4), fixed=fixed))
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
