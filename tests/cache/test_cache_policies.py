"""Each policy by itself, on looks made by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from dimoo.cache.blocks import BlockCache
from dimoo.cache.frozen import FrozenContext
from dimoo.cache.max_logit import MaxLogit, PaperMaxLogit, Timetable
from dimoo.cache.policy import Foreseeing, Look, Policy
from dimoo.core.errors import ConfigError

NEVER = Timetable(warmup=0.0, refresh=10**6)
"""Whole at the first step alone."""


def look(length: int = 12, **changes: Any) -> Look:
    """Of 4 context tokens and a canvas of which all from 5 on is wanted; nothing changed, peaks rise."""
    values: dict[str, Any] = {
        "step": 3,
        "steps": 64,
        "since": 1,
        "context": 4,
        "wanted": torch.arange(5, length),
        "window": (5, length - 1),
        "changed": torch.zeros(length, dtype=torch.bool),
        "peaks": torch.arange(length, dtype=torch.float32),
    }
    given = {**values, **changes}
    wanted = given["wanted"]
    counted = {
        "written": int(given["changed"].sum()),
        "within": (int(wanted[0]), int(wanted[-1])),
        "unseen": int(((given["peaks"] == -math.inf) & ~given["changed"])[wanted].sum()),
        "told": (),
    }
    return Look(**{**counted, **given})


def chosen(policy: Policy, **changes: Any) -> list[int] | None:
    seen = look(**changes)
    told = policy.ahead(seen.step - 1, seen.steps, seen.peaks) if isinstance(policy, Foreseeing) else ()
    anew = policy.anew(replace(seen, told=tuple(map(int, told))))
    if anew is None:
        return None
    assert anew.dtype == torch.int64
    assert anew.tolist() == sorted({*anew.tolist()})
    return anew.tolist()


def at(length: int, *places: int) -> torch.Tensor:
    """bool [length], true there."""
    where = torch.zeros(length, dtype=torch.bool)
    where[list(places)] = True
    return where


def test_the_released_timetable() -> None:
    """Of 64 steps 28 are whole; the others compute a tenth: 31.6 whole steps in all."""
    policy = PaperMaxLogit()
    assert (policy.share, policy.timetable) == (0.1, Timetable(warmup=0.3, refresh=5))
    whole = [step for step in range(64) if chosen(policy, length=101, step=step) is None]
    assert whole == [*range(20), 24, 29, 34, 39, 44, 49, 54, 59]
    assert all(policy.timetable.whole(step, 64) == (step in whole) for step in range(64))
    parts = [chosen(policy, length=1001, step=step) for step in range(64) if step not in whole]
    cost = len(whole) + sum(len(part) / 1001 for part in parts if part is not None)
    assert cost == pytest.approx(31.6, abs=0.05)


@pytest.mark.parametrize(
    ("timetable", "steps", "whole"),
    [
        (Timetable(warmup=0.0, refresh=3), 8, [0, 3, 6]),
        (Timetable(warmup=0.0, refresh=1), 4, [0, 1, 2, 3]),
        (Timetable(warmup=1.0, refresh=9), 4, [0, 1, 2, 3]),
        (Timetable(warmup=0.5, refresh=2), 7, [0, 1, 2, 3, 5]),
        (Timetable(warmup=0.29, refresh=50), 100, [*range(29), 78]),  # int(28.999...) as the released code has it
        (Timetable(), 1, [0]),
    ],
)
def test_timetables(timetable: Timetable, steps: int, whole: list[int]) -> None:
    assert [step for step in range(steps) if timetable.whole(step, steps)] == whole


def test_the_paper_looks_everywhere_before_each_part() -> None:
    policy = PaperMaxLogit(timetable=Timetable(warmup=0.0, refresh=3))
    assert [policy.surveys(step, 6) for step in range(6)] == [True, True, False, True, True, False]
    assert [policy.surveys(step, 5) for step in range(5)] == [True, True, False, True, False]  # none follows the last


@pytest.mark.parametrize(
    ("share", "places"),
    [(0.5, range(6)), (0.1, range(2)), (0.09, range(1)), (1e-9, range(1)), (1.0, range(12)), (2 / 11, range(3))],
)
def test_the_papers_quantile(share: float, places: range) -> None:
    """Of peaks 0, 1, ... 11 it lies at 11 share; at and below it are floor(11 share) + 1, or all above as well."""
    assert chosen(PaperMaxLogit(share=share, timetable=NEVER)) == list(places)


def test_the_papers_quantile_has_prompt_and_ends_in_it_and_all_ties() -> None:
    peaks = torch.tensor([7.0, 1.0, 7.0, 1.0, 1.0, 9.0, 8.0, 8.0, 9.0, 8.0])
    assert chosen(PaperMaxLogit(share=0.1, timetable=NEVER), length=10, peaks=peaks) == [1, 3, 4]


def test_what_nobody_looked_at_is_computed_and_no_part_of_the_quantile() -> None:
    peaks = torch.tensor([3.0, -math.inf, 5.0, 4.0, -math.inf, 6.0])
    assert chosen(PaperMaxLogit(share=0.3, timetable=NEVER), length=6, peaks=peaks) == [0, 1, 4]
    peaks[[0, 2, 3]] = -math.inf
    assert chosen(PaperMaxLogit(share=0.3, timetable=NEVER), length=6, peaks=peaks) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 1 / 3, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("wanted", [1, 2, 3, 7, 10])
def test_max_logit_takes_exactly_its_share_and_what_changed(share: float, wanted: int) -> None:
    policy = MaxLogit(share=share, timetable=NEVER)
    places = torch.arange(20 - wanted, 20)
    expected = math.ceil(share * wanted)
    for peaks in (torch.randn(20, generator=torch.Generator().manual_seed(0)), torch.zeros(20)):
        found = chosen(policy, length=20, wanted=places, peaks=peaks, changed=at(20, 6, 9))
        assert found is not None
        assert found[:2] == [6, 9]
        assert len(found) == 2 + expected
        assert set(found[2:]) <= set(places.tolist())


def test_max_logit_takes_the_least_certain_of_the_wanted_alone() -> None:
    peaks = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 5.0, 2.0, 4.0, 1.0, 3.0])
    policy = MaxLogit(share=0.4, timetable=NEVER)
    assert chosen(policy, length=10, peaks=peaks) == [6, 8]
    assert chosen(policy, length=10, peaks=peaks, changed=at(10, 8, 5)) == [5, 6, 8, 9]  # besides those


def test_max_logit_takes_all_that_nobody_looked_at() -> None:
    """As of a text's next block: there are no logits of it to take instead."""
    peaks = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.5, -math.inf, -math.inf, -math.inf, -math.inf])
    policy = MaxLogit(share=0.2, timetable=NEVER)
    assert chosen(policy, length=10, peaks=peaks) == [6, 7, 8, 9]
    assert chosen(MaxLogit(share=0.9, timetable=NEVER), length=10, peaks=peaks) == [5, 6, 7, 8, 9]


def test_a_fixed_number_is_what_changed_and_the_least_certain() -> None:
    peaks = torch.tensor([0.0, 0.0, 0.0, 0.0, 9.0, 5.0, 2.0, 4.0, 1.0, 3.0])
    policy = MaxLogit(share=0.5, timetable=NEVER, fixed=True)  # of the 6 on the canvas, 3
    assert chosen(policy, length=10, peaks=peaks) == [6, 8, 9]
    assert chosen(policy, length=10, peaks=peaks, changed=at(10, 4, 5)) == [4, 5, 8]
    assert chosen(policy, length=10, peaks=peaks, changed=at(10, 4, 5, 7, 9)) == [4, 5, 7, 9]
    assert chosen(policy, length=10, peaks=peaks, wanted=torch.arange(8, 10), changed=at(10, 7)) == [7, 8, 9]


@pytest.mark.parametrize("policy", [PaperMaxLogit(), MaxLogit()], ids=repr)
def test_max_logits_follow_the_timetable(policy: Policy) -> None:
    for step, steps in ((19, 64), (24, 64), (0, 1), (3, 10), (8, 10)):
        assert chosen(policy, step=step, steps=steps) is None
    for step, steps in ((20, 64), (23, 64), (4, 10), (7, 10)):
        assert chosen(policy, step=step, steps=steps) is not None


SCOPES = [("suffix", [*range(6, 20)]), ("block", [*range(6, 10)]), ("masked", [4, 7, 9])]


@pytest.mark.parametrize(("scope", "places"), SCOPES)
def test_the_scopes_of_a_block(scope: Any, places: list[int]) -> None:
    block = {"length": 20, "window": (6, 9), "wanted": torch.tensor([7, 9]), "changed": at(20, 4)}
    assert chosen(BlockCache(scope=scope), **block) == places
    assert chosen(BlockCache(scope=scope), **{**block, "since": 10**6}) == places


@pytest.mark.parametrize("scope", ["suffix", "block", "masked"])
def test_what_lies_outside_the_block_makes_all_be_computed(scope: Any) -> None:
    for wanted in ([10], [7, 10, 12], [5], [5, 7]):
        assert chosen(BlockCache(scope=scope), length=20, window=(6, 9), wanted=torch.tensor(wanted)) is None
    for wanted in ([9], [6], [6, 9]):
        assert chosen(BlockCache(scope=scope), length=20, window=(6, 9), wanted=torch.tensor(wanted)) is not None


@pytest.mark.parametrize("scope", ["suffix", "block", "masked"])
def test_where_it_may_lie_counts_and_not_where_it_lies(scope: Any) -> None:
    """The host knows no more: a block whose edges are made already is still that block."""
    known: dict[str, Any] = {"length": 20, "window": (6, 9), "wanted": torch.tensor([8])}
    assert chosen(BlockCache(scope=scope), **known, within=(6, 9)) is not None
    assert chosen(BlockCache(scope=scope), **known, within=(5, 9)) is None
    assert chosen(BlockCache(scope=scope), **known, within=(6, 10)) is None


def test_masks_that_came_back_are_counted_at_most() -> None:
    """Of what was written some hold masks again, and are wanted: others are computed in their place, none left out."""
    live = chosen(BlockCache(scope="masked"), length=20, window=(6, 9), wanted=torch.tensor([7, 9]), written=2)
    assert live is not None
    assert {7, 9} <= {*live}
    assert len(live) == 4


def test_a_mask_that_came_back_takes_no_place_of_the_share() -> None:
    """It is computed as what has changed is, whether somebody looked at it or not."""
    peaks = torch.tensor([0.0] * 5 + [3.0, 2.0, -math.inf, 1.0, 4.0])
    policy = MaxLogit(share=0.4, timetable=NEVER)
    assert chosen(policy, length=10, peaks=peaks, changed=at(10, 7)) == [6, 7, 8]


def test_a_step_ahead_of_a_whole_one_nothing_is_asked() -> None:
    policy = PaperMaxLogit(timetable=Timetable(warmup=0.0, refresh=3))
    assert [len(policy.ahead(step, 6, torch.zeros(3))) for step in range(6)] == [1, 1, 0, 1, 1, 0]


def test_a_policy_that_is_not_told_says_so() -> None:
    with pytest.raises(ConfigError, match="was not told what it asked for ahead; let a policy around it forward"):
        PaperMaxLogit(timetable=NEVER).anew(look())


@pytest.mark.parametrize("policy", [BlockCache(refresh=3), FrozenContext(refresh=3)], ids=repr)
def test_a_refresh_computes_all_every_so_many_steps(policy: Policy) -> None:
    assert [chosen(policy, since=since) is None for since in (1, 2, 3, 4)] == [False, False, True, True]


def test_a_frozen_context_computes_the_canvas() -> None:
    assert chosen(FrozenContext(), context=4) == [*range(4, 12)]
    assert chosen(FrozenContext(), context=0) == [*range(12)]


POLICIES: list[Policy] = [
    PaperMaxLogit(timetable=NEVER),
    MaxLogit(timetable=NEVER),
    *(BlockCache(scope=scope) for scope in ("suffix", "block", "masked")),
    FrozenContext(),
]


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_looks_are_left_as_they_are(policy: Policy) -> None:
    seen = look(changed=at(12, 4, 6))
    before = {name: value.clone() for name, value in vars(seen).items() if isinstance(value, torch.Tensor)}
    told = policy.ahead(seen.step - 1, seen.steps, seen.peaks) if isinstance(policy, Foreseeing) else ()
    anew = policy.anew(replace(seen, told=tuple(map(int, told))))
    assert anew is not None
    anew.fill_(99)  # nor is what comes of it a part of them
    assert all(torch.equal(value, getattr(seen, name)) for name, value in before.items())
    assert set(before) == {"wanted", "changed", "peaks"}


def test_only_what_leaves_out_wanted_positions_keeps_logits() -> None:
    assert [policy.keeps_logits for policy in POLICIES] == [True, True, False, False, False, False]
    for policy in POLICIES[2:]:
        wanted = torch.arange(5, 12, 2)
        anew = chosen(policy, wanted=wanted, changed=at(12, 4, 6))
        assert anew is not None
        assert {*wanted.tolist()} <= {*anew}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Timetable(warmup=-0.1), "warmup -0.1 must be a share"),
        (lambda: Timetable(warmup=1.1), "warmup 1.1 must be a share"),
        (lambda: Timetable(warmup=math.nan), "warmup nan must be a share"),
        (lambda: Timetable(refresh=0), "refresh 0 must be at least 1"),
        (lambda: PaperMaxLogit(share=0.0), r"share 0.0 must lie in \(0, 1\]"),
        (lambda: PaperMaxLogit(share=1.5), "share 1.5 must lie"),
        (lambda: MaxLogit(share=0.0), "share 0.0 must lie"),
        (lambda: MaxLogit(share=math.nan), "share nan must lie"),
        (lambda: BlockCache(refresh=0), "refresh 0 must be at least 1, or None"),
        (lambda: FrozenContext(refresh=0), "refresh 0 must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
