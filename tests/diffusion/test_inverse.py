import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimoo.core.rng import generator
from dimoo.diffusion.draw import keep_top_k, keep_top_p
from dimoo.diffusion.inverse import CHUNK, invert, invert_ranked

LAST = 1 - 2.0**-53
"""The largest float64 below 1."""


def stretched(values, width):
    """The values at columns `width` apart, zeros between: several chunks."""
    row = torch.zeros(len(values) * width)
    row[width - 1 :: width] = torch.tensor(values, dtype=torch.float32)
    return row


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=40).filter(any),
    st.sampled_from([1, 5, CHUNK - 1, CHUNK, CHUNK + 1]),
)
def test_every_column_is_drawn_as_often_as_its_weight_says(values, width):
    """Whole weights of total n, and one u in the middle of each n-th of [0, 1)."""
    weights = stretched(values, width)
    total = sum(values)
    uniform = (torch.arange(total, dtype=torch.float64) + 0.5) / total
    drawn = invert(weights.expand(total, -1), uniform)
    assert torch.equal(drawn, torch.repeat_interleave(torch.arange(len(weights)), weights.long()))


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 1e-30, 0.3, 7.0]), min_size=1, max_size=9).filter(any),
    st.sampled_from([1, CHUNK - 1, CHUNK]),
)
def test_weight_zero_is_never_drawn_at_either_end(values, width):
    weights = stretched(values, width)
    ends = torch.tensor([0.0, 2.0**-53, 1e-12, 1 - 1e-12, 1 - 2.0**-24, LAST, 1.0], dtype=torch.float64)
    drawn = invert(weights.expand(len(ends), -1), ends)
    assert bool((weights[drawn] > 0).all())
    positive = weights.nonzero()[:, 0].tolist()
    assert drawn[0] == positive[0]
    # 1e-30 in sum is below what u can tell from 0 and 1.
    assert drawn[-1] in [column for column in positive if weights[column] >= 0.3][-1:] + positive[-1:]


def test_weight_zero_is_never_drawn_where_chunks_meet():
    """u at the ends of chunks, to the last bit either side, where each chunk begins and ends with zeros."""
    rng = generator(0)
    # Of magnitudes that float64 must round to add up.
    weights = torch.rand(400, CHUNK, generator=rng) * 10 ** (-12 * torch.rand(400, 1, generator=rng))
    weights[:, :9] = weights[:, -9:] = 0
    ends = weights.sum(-1).double().cumsum(0)
    meets = ends / ends[-1]
    uniform = torch.cat(
        [meets, meets.nextafter(torch.tensor(0.0).double()), meets.nextafter(torch.tensor(2.0).double())]
    )
    row = weights.flatten()
    assert bool((row[invert(row.expand(len(uniform), -1), uniform)] > 0).all())


@pytest.mark.parametrize("spread", [0.0, 3.0, 8.0])
def test_unlikely_columns_keep_their_share(spread):
    """The interval of u that draws a column, found by halving, is as wide as the column is probable, to 1e-5."""
    logits = spread * torch.randn(8192, generator=generator(0, "spread"))
    logits[[0, 127, 128, 4000, 8191]] = logits.logsumexp(0) + torch.tensor([1e-4, 1e-7, 1e-9, 1e-8, 1e-10]).log()
    weights, exact = logits.softmax(-1), logits.double().softmax(-1)
    columns = torch.tensor([0, 1, 127, 128, 129, 4000, 8190, 8191])

    def start_of(columns):
        low, high = torch.zeros(len(columns), dtype=torch.float64), torch.ones(len(columns), dtype=torch.float64)
        for _ in range(60):
            middle = (low + high) / 2
            reached = invert(weights.expand(len(columns), -1), middle) >= columns
            low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
        return high

    widths = start_of(columns + 1) - start_of(columns)
    seen = exact[columns]
    # u has 53 bits: the ends of an interval are known to 1e-16.
    torch.testing.assert_close(widths, seen, rtol=1e-5, atol=1e-15)
    assert seen.min() < 2e-10


@pytest.mark.parametrize("columns", [1, 100, CHUNK, 1000, 8200])
def test_against_one_cumulative_sum_in_float64(columns):
    rng = generator(columns)
    weights = (3 * torch.randn(500, columns, generator=rng)).softmax(-1)
    uniform = torch.rand(500, dtype=torch.float64, generator=rng)
    drawn = invert(weights, uniform)[:, None]
    ends = weights.double().cumsum(-1)
    target = uniform[:, None] * ends[:, -1:]
    after = ends.gather(-1, drawn)
    assert bool((after - weights.gather(-1, drawn) < target + 1e-6).all())
    assert bool((target < after + 1e-6).all())


def test_rows_without_numbers_give_column_0():
    nothing = torch.full((2, 300), -math.inf)
    uniform = torch.tensor([0.0, 0.9], dtype=torch.float64)
    assert invert(nothing.softmax(-1), uniform).tolist() == [0, 0]
    assert invert_ranked(nothing, uniform, top_k=4, top_p=0.5).tolist() == [0, 0]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([-math.inf, -2.0, -1.0, 0.0, 1.0]), min_size=1, max_size=24).filter(
        lambda row: max(row) > -math.inf
    ),
    st.sampled_from([1, 40]),
    st.integers(1, 30),
    st.none() | st.floats(0.02, 0.98),
)
def test_ranked_draws_are_those_of_the_filters(values, width, k, p):
    """By u the ranks come one after another, each with its probability; equal scores in order of index."""
    scores = torch.tensor(values).repeat_interleave(width)
    k = min(k, len(scores))
    kept = keep_top_k(scores[None], k)
    kept = (kept if p is None else keep_top_p(kept, p))[0].double()
    order = sorted((c for c in range(len(scores)) if kept[c] > -math.inf), key=lambda c: (-scores[c].item(), c))
    shares = kept.softmax(-1)[order]
    middles = shares.cumsum(-1) - shares / 2
    drawn = invert_ranked(scores.expand(len(order), -1), middles, top_k=k, top_p=p)
    assert drawn.tolist() == order
    ends = torch.tensor([0.0, LAST], dtype=torch.float64)
    assert invert_ranked(scores.expand(2, -1), ends, top_k=k, top_p=p).tolist() == [order[0], order[-1]]
