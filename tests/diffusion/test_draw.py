import math

import pytest
import torch

from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.diffusion.draw import Categorical, Greedy, gumbel


def test_greedy_takes_the_first_of_ties_and_draws_nothing():
    rng = generator(0)
    before = rng.get_state()
    assert Greedy()(torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 0.0]]), rng).tolist() == [1, 0]
    assert torch.equal(rng.get_state(), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_gumbel_is_finite_and_has_its_moments(dtype):
    noise = gumbel(torch.Size([400_000]), dtype=dtype, generator=generator(0), device=torch.device("cpu"))
    assert noise.dtype == dtype
    assert bool(noise.isfinite().all())
    if dtype != torch.bfloat16:
        assert noise.double().mean().item() == pytest.approx(0.5772, abs=0.01)
        assert noise.double().var().item() == pytest.approx(math.pi**2 / 6, abs=0.03)


def test_the_noise_trap():
    """bfloat16 noise cannot exceed about 5.5, so the tail of a wide distribution is never drawn."""
    rng = generator(0)
    noise = gumbel(torch.Size([100_000]), dtype=torch.bfloat16, generator=rng, device=torch.device("cpu"))
    assert noise.max() < 5.6
    logits = 3 * torch.randn(200, 8192, generator=rng)
    top = logits.topk(64).indices
    mass = logits.softmax(-1).gather(1, top).sum(-1).mean().item()

    def drawn_from_top(dtype):
        return (Categorical(noise=dtype)(logits, rng)[:, None] == top).any(-1).float().mean().item()

    assert mass == pytest.approx(0.69, abs=0.05)
    assert drawn_from_top(torch.float32) == pytest.approx(mass, abs=0.1)
    assert drawn_from_top(torch.bfloat16) > 0.88


def test_filtered_columns_are_never_drawn():
    logits = torch.log(torch.tensor([[0.4, 0.3, 0.2, 0.1]])).expand(3000, 4)
    rng = generator(0)
    assert set(Categorical(top_k=2)(logits, rng).tolist()) == {0, 1}
    assert set(Categorical(top_p=0.65)(logits, rng).tolist()) == {0, 1}
    assert set(Categorical(top_p=0.75)(logits, rng).tolist()) == {0, 1, 2}
    # top_p is taken of what top_k left: 0.4/0.7 = 0.57 alone reaches 0.5.
    assert set(Categorical(top_k=2, top_p=0.5)(logits, rng).tolist()) == {0}
    assert set(Categorical()(logits, rng).tolist()) == {0, 1, 2, 3}


def test_rounding_to_the_noise_dtype_does_not_change_the_filter():
    """1.001 and 1.0 are equal in bfloat16; the larger one must be kept all the same."""
    logits = torch.tensor([[1.0, 1.001]]).expand(50, 2)
    assert set(Categorical(top_k=1, noise=torch.bfloat16)(logits, generator(0)).tolist()) == {1}


def test_suppressed_columns_and_empty_input():
    logits = torch.tensor([[0.0, -math.inf, 0.0]]).expand(500, 3)
    assert set(Categorical(top_k=3, top_p=0.99)(logits, generator(0)).tolist()) == {0, 2}
    assert Categorical(top_k=2, top_p=0.5)(torch.zeros(0, 5), generator(0)).shape == (0,)


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"temperature": 0.0}, "Greedy"),
        ({"temperature": -1.0}, "positive"),
        ({"temperature": math.nan}, "positive"),
        ({"top_k": 0}, "top_k 0"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.0}, "None"),
        ({"noise": torch.int64}, "float32"),
    ],
)
def test_bad_settings_name_the_fix(settings, hint):
    with pytest.raises(ConfigError, match=hint):
        Categorical(**settings)
