"""A row with its store alone equals the row in a batch, whatever comes, idles and leaves next to it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from cached_rows import (
    Row,
    Trace,
    assert_same,
    counted,
    edit,
    joint,
    partial_policies,
    picture,
    requests_of,
    some_row,
    start_of,
    text,
    traces,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from dimoo.backbone.model import Backbone
from dimoo.cache.frozen import FrozenContext
from dimoo.cache.policy import Policy
from dimoo.cache.stored import StoredCache
from dimoo.core.rng import generator
from dimoo.denoise import BackboneDenoiser
from dimoo.diffusion.sampler import run


def sampled(backbone: Backbone, rows: Sequence[Row], policy: Policy) -> list[Trace]:
    start = start_of(rows)
    return traces(StoredCache(policy=policy).denoiser(backbone, start, requests_of(rows)), start, rows)


BATCH = [
    picture(steps=3, seed=0),
    text(steps=12, length=6, block=2, scale=1.0, seed=1),  # idles in 6 of its steps
    picture(steps=10, size=(2, 5), during=(0.4, 0.9), seed=2),
    edit(steps=7, seed=3),
    joint(steps=(8, 5), seed=4),
]
"""Rows of 3 to 12 steps; one idles while the others go on, one is guided from its fifth step on."""


@pytest.mark.parametrize("policy", partial_policies(), ids=repr)
def test_alone_as_in_a_batch(exact: Backbone, policy: Policy) -> None:
    for row, together in zip(BATCH, sampled(exact, BATCH, policy), strict=True):
        (alone,) = sampled(exact, [row], policy)
        assert_same(together, alone, atol=1e-5)


@settings(deadline=None, max_examples=12)
@given(
    rows=st.lists(some_row(), min_size=2, max_size=3),
    policy=st.sampled_from(partial_policies()),
    order=st.randoms(use_true_random=False),
)
def test_any_rows_in_any_order(exact: Backbone, rows: list[Row], policy: Policy, order: Random) -> None:
    places = list(range(len(rows)))
    order.shuffle(places)
    together = sampled(exact, [rows[place] for place in places], policy)
    for place, theirs in zip(places, together, strict=True):
        (alone,) = sampled(exact, [rows[place]], policy)
        assert_same(theirs, alone, atol=1e-5)


def test_a_branch_that_comes_later_is_computed_whole_when_it_comes(exact: Backbone) -> None:
    rows = [picture(steps=6, size=(3, 4), prompt=5, during=(0.5, 1.0))]
    start, requests = start_of(rows), requests_of(rows)
    denoiser = StoredCache(policy=FrozenContext(refresh=99)).denoiser(exact, start, requests)
    with counted(exact) as tokens:
        run(denoiser, start, [generator(0)])
    canvas, prompt, nothing = 15, 5, 2
    assert tokens == [
        prompt + canvas,
        canvas,
        canvas,
        canvas + nothing + canvas,
        canvas + canvas,
        canvas + canvas,
    ]


def test_the_branch_has_then_what_no_cache_gives(exact: Backbone) -> None:
    rows = [picture(steps=6, during=(0.5, 1.0))]
    start, requests = start_of(rows), requests_of(rows)
    stored = StoredCache(policy=FrozenContext(refresh=99)).denoiser(exact, start, requests)
    compared = []

    def both(canvas, queries):  # type: ignore[no-untyped-def]
        answers = stored(canvas, queries)
        for logits, wanted in zip(answers, BackboneDenoiser(exact, start, requests)(canvas, queries), strict=True):
            compared.append([float((one - other).abs().max()) for one, other in zip(logits, wanted, strict=True)])
        return answers

    traces(both, start, rows)
    assert [len(gaps) for gaps in compared] == [1, 1, 1, 2, 2, 2]
    assert compared[0][0] == 0.0
    assert compared[3][0] > 1e-3
    assert compared[3][1] < 1e-5
    assert compared[4][1] > 1e-3
