import math

import pytest
import torch

from dimoo.core.errors import ConfigError
from dimoo.diffusion.schedules import Arccos, Cosine, Linear, Power, remaining


def test_values_at_two_thirds():
    u = torch.tensor([2 / 3], dtype=torch.float64)
    assert Cosine().share(u).item() == pytest.approx(0.5)
    assert Linear().share(u).item() == pytest.approx(1 / 3)
    assert Power(exponent=2.0).share(u).item() == pytest.approx(5 / 9)
    assert Arccos().share(u).item() == pytest.approx(math.acos(2 / 3) * 2 / math.pi)


def test_power_one_is_linear_and_arccos_inverts_cosine():
    u = torch.linspace(0, 1, 101, dtype=torch.float64)
    torch.testing.assert_close(Power(exponent=1.0).share(u), Linear().share(u))
    torch.testing.assert_close(Arccos().share(Cosine().share(u)), u, rtol=0, atol=1e-9)


def test_remaining_equals_the_released_float32_count():
    for total in (1, 2, 25, 36, 64, 100, 1024, 4096):
        for steps in (1, 2, 3, 6, 9, 27, 48, 64):
            for step in range(steps - 1):
                ratio = torch.cos(0.5 * math.pi * torch.tensor([(step + 1) / steps]))
                count = int((torch.tensor(float(total)) * ratio).floor())
                assert remaining(Cosine(), total, step, steps) == count
            assert remaining(Cosine(), total, steps - 1, steps) == 0


def test_the_float32_contract_matters():
    """At u = 2/3 float64 falls on the other side of the integer for some totals."""
    differing = [
        total
        for total in range(2, 200, 2)
        if remaining(Cosine(), total, 1, 3) != math.floor(total * math.cos(0.5 * math.pi * 2 / 3))
    ]
    assert differing


@pytest.mark.parametrize("exponent", [0.0, -1.0, math.inf, math.nan])
def test_power_refuses_bad_exponents(exponent):
    with pytest.raises(ConfigError, match="exponent"):
        Power(exponent=exponent)
