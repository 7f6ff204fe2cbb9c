import pytest
import torch

from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.diffusion.times import AntitheticTimes, ClippedTimes, LogitNormalTimes, UniformTimes

CLIPPED = ClippedTimes(times=AntitheticTimes(), low=0.2, high=0.7)
KINDS = [UniformTimes(), AntitheticTimes(), LogitNormalTimes(), LogitNormalTimes(mean=20.0), CLIPPED]


@pytest.mark.parametrize("times", KINDS, ids=repr)
def test_float32_in_range_and_reproducible(times):
    for count in (0, 1, 7, 1000):
        first, again = (times.sample(count, generator(3, "t")) for _ in range(2))
        assert first.shape == (count,)
        assert first.dtype == torch.float32
        assert bool(((first >= 0) & (first < 1)).all())
        assert torch.equal(first, again)
        if count and times != LogitNormalTimes(mean=20.0):  # which are all but 1
            assert not torch.equal(first, times.sample(count, generator(4, "t")))


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


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-1.0, 0.5)])
def test_the_logit_is_normal(mean, std):
    logits = LogitNormalTimes(mean=mean, std=std).sample(40_000, generator(2)).double().logit()
    assert float(logits.mean()) == pytest.approx(mean, abs=4 * std / 200)
    assert float(logits.std()) == pytest.approx(std, abs=4 * std / 280)
    assert float(((logits - mean).abs() < std).double().mean()) == pytest.approx(0.6827, abs=0.01)


def test_clipping_moves_the_inner_times():
    inner, moved = (times.sample(1000, generator(5)) for times in (AntitheticTimes(), CLIPPED))
    torch.testing.assert_close(moved, 0.2 + 0.5 * inner)
    assert ClippedTimes(times=UniformTimes(), low=0.0, high=1.0).sample(9, generator(1)).max() < 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogitNormalTimes(std=0.0), "std 0.0 must be a positive"),
        (lambda: LogitNormalTimes(mean=float("nan")), "mean nan must be a finite"),
        (lambda: ClippedTimes(times=UniformTimes(), low=0.5, high=0.5), "low 0.5 and high 0.5"),
        (lambda: ClippedTimes(times=UniformTimes(), low=0.1, high=1.5), "high 1.5"),
    ],
)
def test_bad_values_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
