import math

import pytest
import torch

from dimoo.core.errors import DataError
from dimoo.core.rng import generator
from dimoo.diffusion.corruption import Bernoulli, ExactCount, group_sizes, shares
from dimoo.diffusion.schedules import Cosine

MASK = 999


def test_exact_count_picks_every_subset_equally_often():
    """Two of four positions, interleaved with another group and with a prompt: six subsets."""
    group = torch.tensor([-1, 0, 1, 0, -1, 1, 0, 1, 0])
    ids, rng, tally = torch.arange(9), generator(0), {}
    for _ in range(3000):
        masked = ExactCount()(ids, group, torch.tensor([0.5, 0.4]), MASK, rng).masked
        assert masked[group == 1].sum() == 1
        key = tuple(masked[group == 0].tolist())
        tally[key] = tally.get(key, 0) + 1
    assert len(tally) == 6
    assert max(abs(count - 500) for count in tally.values()) < 100  # standard deviation 20


def test_bernoulli_is_independent_with_the_right_probability():
    group = torch.zeros(200_000, dtype=torch.int64)
    masked = Bernoulli()(torch.zeros_like(group), group, torch.tensor([0.3]), MASK, generator(0)).masked.double()
    assert abs(masked.mean() - 0.3) < 5e-3
    assert abs((masked[1:] * masked[:-1]).mean() - 0.09) < 5e-3


def test_bernoulli_falls_back_to_one_uniformly_chosen_position():
    group, rng = torch.tensor([0, -1, 0, 0, 0]), generator(0)
    hits = torch.zeros(5)
    for _ in range(2000):
        masked = Bernoulli()(torch.arange(5), group, torch.tensor([0.0]), MASK, rng).masked
        assert masked.sum() == 1
        hits += masked
    assert hits[1] == 0
    assert (hits[group == 0] - 500).abs().max() < 100


def test_short_groups_are_fully_masked():
    progress, sizes = torch.tensor([0.9, 0.9, 0.0, 0.5]), torch.tensor([5, 6, 100, 1])
    expected = [1.0, math.cos(0.45 * math.pi), 1.0, 1.0]
    torch.testing.assert_close(shares(Cosine(), progress, sizes, 5), torch.tensor(expected))
    assert shares(Cosine(), progress, sizes, 0)[0] < 0.2


def test_groups_without_a_share_are_refused():
    with pytest.raises(DataError, match="group 2 but there are shares for 2"):
        group_sizes(torch.tensor([0, 2, -1]), 2)


@pytest.mark.parametrize("corruption", [ExactCount(), Bernoulli(), Bernoulli(at_least_one=False)])
@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("given", [0.0, 0.1, 0.6, 1.0])
def test_the_share_reported_is_the_chance_of_each_position(corruption, size, given):
    groups = 20_000
    group = torch.arange(groups).repeat_interleave(size)
    share = torch.full((groups,), given)
    result = corruption(torch.zeros_like(group), group, share, MASK, generator(0))
    chance = float(result.share[0])
    spread = math.sqrt(max(chance * (1 - chance), 1e-9) / groups)
    assert (result.masked.view(groups, size).double().mean(0) - chance).abs().max() < 4.5 * spread + 1e-6
