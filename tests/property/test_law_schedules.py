import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimoo.diffusion.schedules import Arccos, Cosine, Linear, Power, remaining

SCHEDULES = st.one_of(
    st.sampled_from([Cosine(), Linear(), Arccos()]),
    st.floats(0.3, 5.0).map(lambda exponent: Power(exponent=exponent)),
)


@settings(deadline=None)
@given(SCHEDULES, st.sampled_from([torch.float32, torch.float64]))
def test_endpoints_and_range(schedule, dtype):
    grid = torch.linspace(0, 1, 513, dtype=dtype)
    share = schedule.share(grid)
    assert share.dtype == dtype
    assert share[0].item() == pytest.approx(1.0, abs=1e-6)
    assert share[-1].item() == pytest.approx(0.0, abs=1e-6)
    assert bool(((share >= 0) & (share <= 1)).all())
    assert bool((share.diff() <= 0).all())
    assert bool((schedule.derivative(grid) <= 0).all())


@settings(deadline=None)
@given(SCHEDULES, st.sampled_from([torch.float32, torch.float64]))
def test_no_draw_of_a_time_has_an_infinite_slope(schedule, dtype):
    """0 is one of them."""
    slopes = schedule.derivative(torch.tensor([0.0, 2.0**-24, 1.0 - 2.0**-24], dtype=dtype))
    assert bool(slopes.isfinite().all())
    assert slopes.dtype == dtype


@settings(deadline=None)
@given(SCHEDULES, st.floats(0.01, 0.99))
def test_derivative_equals_autograd(schedule, value):
    u = torch.tensor([value, 0.5], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(schedule.share(u).sum(), u)
    torch.testing.assert_close(schedule.derivative(u.detach()), slope, rtol=1e-9, atol=1e-12)


@settings(deadline=None)
@given(SCHEDULES, st.integers(0, 5000), st.integers(1, 100))
def test_remaining_never_grows_and_ends_at_none(schedule, total, steps):
    counts = [total] + [remaining(schedule, total, step, steps) for step in range(steps)]
    assert counts[-1] == 0
    assert all(before >= after >= 0 for before, after in itertools.pairwise(counts))
