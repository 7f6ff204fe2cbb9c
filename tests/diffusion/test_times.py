import pytest
import torch

from dimoo.core.rng import generator
from dimoo.diffusion.times import AntitheticTimes, UniformTimes


@pytest.mark.parametrize("times", [UniformTimes(), AntitheticTimes()])
def test_float32_in_range_and_reproducible(times):
    for count in (0, 1, 7, 1000):
        first, again = (times.sample(count, generator(3, "t")) for _ in range(2))
        assert first.shape == (count,)
        assert first.dtype == torch.float32
        assert bool(((first >= 0) & (first < 1)).all())
        assert torch.equal(first, again)
        assert count == 0 or not torch.equal(first, times.sample(count, generator(4, "t")))


def test_antithetic_has_one_time_per_stratum():
    count = 64
    drawn = AntitheticTimes().sample(count, generator(0)).double()
    gaps = drawn.sort().values.diff()
    torch.testing.assert_close(gaps, torch.full_like(gaps, 1 / count), rtol=0, atol=1e-6)


def test_antithetic_deals_strata_in_random_order_but_each_group_is_uniform():
    rng = generator(1)
    drawn = torch.stack([AntitheticTimes().sample(4, rng) for _ in range(4000)])
    # A quarter of all draws of each group lies in each quarter: standard deviation of a cell is about 27.
    for column in drawn.T:
        assert (torch.histc(column, bins=4, min=0, max=1) - 1000).abs().max() < 140
    neighbours = ((drawn[:, 1] - drawn[:, 0]) % 1.0 * 4).round()
    assert set(neighbours.tolist()) == {1.0, 2.0, 3.0}
