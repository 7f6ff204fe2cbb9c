"""A cache that computes everything at every step is no cache: the same logits and tokens, bit for bit."""

from __future__ import annotations

import pytest
from cached_rows import (
    Row,
    Trace,
    assert_same,
    mixture,
    partial_policies,
    requests_of,
    some_row,
    start_of,
    traces,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from dimoo.backbone.model import Backbone
from dimoo.cache.blocks import BlockCache
from dimoo.cache.frozen import FrozenContext
from dimoo.cache.max_logit import MaxLogit, PaperMaxLogit, Timetable
from dimoo.cache.policy import Policy
from dimoo.cache.stored import StoredCache
from dimoo.denoise import BackboneDenoiser

EVERY_STEP: list[Policy] = [
    PaperMaxLogit(timetable=Timetable(refresh=1)),
    PaperMaxLogit(timetable=Timetable(warmup=1.0)),
    MaxLogit(timetable=Timetable(warmup=0.0, refresh=1)),
    MaxLogit(timetable=Timetable(warmup=1.0)),
    BlockCache(scope="suffix", refresh=1),
    BlockCache(scope="block", refresh=1),
    BlockCache(scope="masked", refresh=1),
    FrozenContext(refresh=1),
]


def plain(backbone: Backbone, rows: list[Row]) -> list[Trace]:
    start = start_of(rows)
    return traces(BackboneDenoiser(backbone, start, requests_of(rows)), start, rows)


def cached(backbone: Backbone, rows: list[Row], policy: Policy) -> list[Trace]:
    start = start_of(rows)
    return traces(StoredCache(policy=policy).denoiser(backbone, start, requests_of(rows)), start, rows)


@pytest.mark.parametrize("policy", EVERY_STEP, ids=repr)
def test_every_kind_of_row_in_one_canvas(backbone: Backbone, policy: Policy) -> None:
    rows = mixture()
    for ours, theirs in zip(cached(backbone, rows, policy), plain(backbone, rows), strict=True):
        assert_same(ours, theirs, atol=0.0)


@settings(deadline=None, max_examples=12)
@given(rows=st.lists(some_row(), min_size=1, max_size=4), policy=st.sampled_from(EVERY_STEP))
def test_any_rows(backbone: Backbone, rows: list[Row], policy: Policy) -> None:
    for ours, theirs in zip(cached(backbone, rows, policy), plain(backbone, rows), strict=True):
        assert_same(ours, theirs, atol=0.0)


@pytest.mark.parametrize("policy", partial_policies(), ids=repr)
def test_a_cache_that_waits_differs(backbone: Backbone, policy: Policy) -> None:
    """So that the law says something: at the settings of the other tests, what is stored shows."""
    rows = mixture()
    pairs = zip(cached(backbone, rows, policy), plain(backbone, rows), strict=True)
    assert any(
        one.shape != other.shape or float((one - other).abs().max()) > 0.1
        for ours, theirs in pairs
        for one, other in zip(ours.logits, theirs.logits, strict=True)
    )
