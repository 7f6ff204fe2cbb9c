from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dimoo.backbone.layout import PackedLayout, Run
from dimoo.core.errors import ConfigError

PAIRS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=9)


def layout_of(pairs: list[tuple[int, int]]) -> PackedLayout:
    queries, keys = zip(*pairs, strict=True)
    return PackedLayout(positions=torch.arange(sum(queries)), query_lengths=queries, key_lengths=keys)


def test_of_counts_positions_from_zero_in_each_sequence() -> None:
    layout = PackedLayout.of([3, 1, 2])
    assert layout.positions.tolist() == [0, 1, 2, 0, 0, 1]
    assert layout.query_lengths == layout.key_lengths == (3, 1, 2)
    assert (layout.queries, layout.keys) == (6, 6)


def test_bounds_are_cumulative_int32() -> None:
    layout = layout_of([(2, 5), (1, 3)])
    assert layout.query_bounds.tolist() == [0, 2, 3]
    assert layout.key_bounds.tolist() == [0, 5, 8]
    assert layout.query_bounds.dtype == layout.key_bounds.dtype == torch.int32
    assert layout.query_bounds is layout.query_bounds


def test_runs_join_adjacent_and_groups_join_all_equal_lengths() -> None:
    layout = layout_of([(2, 5), (2, 5), (1, 5), (2, 5)])
    twice = Run(count=2, query_length=2, key_length=5)
    assert layout.runs[0] == twice
    assert [run.count for run in layout.runs] == [2, 1, 1]
    assert layout.groups == ((0, 2), (1,))
    assert (twice.queries, twice.keys) == (4, 10)


@given(PAIRS)
def test_runs_and_groups_cover_every_sequence_once(pairs: list[tuple[int, int]]) -> None:
    layout = layout_of(pairs)
    spelled_out = [(run.query_length, run.key_length) for run in layout.runs for _ in range(run.count)]
    assert spelled_out == pairs
    assert sorted(index for group in layout.groups for index in group) == list(range(len(layout.runs)))
    kinds = [{(layout.runs[i].query_length, layout.runs[i].key_length) for i in group} for group in layout.groups]
    assert all(len(kind) == 1 for kind in kinds)
    assert len(kinds) == len(set(pairs))


def test_derived_is_made_once_per_layout() -> None:
    calls: list[PackedLayout] = []
    layout, other = PackedLayout.of([2]), PackedLayout.of([2])
    for which in (layout, layout, other):
        which.derived("name", calls.append)
    assert calls == [layout, other]


@pytest.mark.parametrize(
    ("positions", "queries", "keys", "message"),
    [
        (torch.arange(3), (1, 1), (1, 1), "add up to 2, but there are 3"),
        (torch.arange(2), (1, 1), (1,), "2 query lengths but 1 key"),
        (torch.arange(2), (2, 0), (2, 1), "must be positive"),
        (torch.arange(2), (2,), (0,), "must be positive"),
        (torch.arange(0), (), (), "must be positive"),
        (torch.arange(2.0), (2,), (2,), "int64"),
        (torch.zeros(2, 1, 1, dtype=torch.int64), (2,), (2,), "int64"),
    ],
)
def test_impossible_layouts_are_refused(
    positions: torch.Tensor, queries: tuple[int, ...], keys: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        PackedLayout(positions=positions, query_lengths=queries, key_lengths=keys)
