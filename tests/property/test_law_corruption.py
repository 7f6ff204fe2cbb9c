import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimoo.core.rng import generator
from dimoo.diffusion.corruption import Bernoulli, ExactCount, group_sizes

MASK = 999
STREAMS = st.lists(st.integers(-1, 4), max_size=60).map(lambda values: torch.tensor(values, dtype=torch.int64))
SHARES = st.lists(st.floats(0, 1, width=32), min_size=5, max_size=5).map(torch.tensor)


@settings(deadline=None)
@given(STREAMS, SHARES, st.integers(0, 99), st.sampled_from([ExactCount(), Bernoulli()]))
def test_only_targets_are_touched_and_each_group_has_one(group, share, seed, corruption):
    ids = torch.arange(len(group))
    before = ids.clone(), group.clone(), share.clone()
    result = corruption(ids, group, share, MASK, generator(seed))
    again = corruption(ids, group, share, MASK, generator(seed))
    for tensor, old in zip((ids, group, share), before, strict=True):
        assert torch.equal(tensor, old)
    assert torch.equal(result.masked, again.masked)
    assert not result.masked[group < 0].any()
    assert torch.equal(result.ids, torch.where(result.masked, MASK, ids))
    for index in group.unique().tolist():
        assert index < 0 or result.masked[group == index].any()


@settings(deadline=None)
@given(STREAMS, SHARES, st.integers(0, 99))
def test_exact_counts(group, share, seed):
    masked = ExactCount()(torch.zeros_like(group), group, share, MASK, generator(seed)).masked
    sizes = group_sizes(group, 5).tolist()
    for index, (size, part) in enumerate(zip(sizes, share.tolist(), strict=True)):
        assert size == int((group == index).sum())
        # The product of floats of 24 and at most 6 bits is exact in float64, and rounded once in float32.
        count = math.floor(torch.tensor(size * part, dtype=torch.float64).float().item())
        assert int(masked[group == index].sum()) == min(max(count, 1), size)


@settings(deadline=None)
@given(STREAMS, st.integers(0, 99), st.sampled_from([ExactCount(), Bernoulli()]))
def test_share_one_masks_all_targets(group, seed, corruption):
    masked = corruption(torch.zeros_like(group), group, torch.ones(5), MASK, generator(seed)).masked
    assert torch.equal(masked, group >= 0)


@settings(deadline=None)
@given(STREAMS, SHARES, st.integers(0, 99))
def test_without_at_least_one_the_share_alone_decides(group, share, seed):
    result = Bernoulli(at_least_one=False)(torch.zeros_like(group), group, share, MASK, generator(seed))
    keys = torch.rand(len(group), generator=generator(seed))
    assert torch.equal(result.masked, (group >= 0) & (keys < share[group]))
    assert torch.equal(result.share, share)
