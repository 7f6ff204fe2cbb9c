import math

import pytest
import torch

from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.diffusion.confidence import GumbelConfidence, Margin, NegativeEntropy, Probability

LOGITS = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]]))
IDS = torch.tensor([1, 1])


def test_values_by_hand():
    rng = generator(0)
    before = rng.get_state()
    torch.testing.assert_close(Probability()(LOGITS, IDS, rng), torch.tensor([0.3, 0.8]))
    torch.testing.assert_close(Margin()(LOGITS, IDS, rng), torch.tensor([0.2, 0.7]))
    entropy = [sum(p * math.log(p) for p in row) for row in ([0.5, 0.3, 0.2], [0.1, 0.8, 0.1])]
    torch.testing.assert_close(NegativeEntropy()(LOGITS, IDS, rng), torch.tensor(entropy))
    assert torch.equal(rng.get_state(), before)


def test_edge_shapes_and_suppressed_columns():
    rng, lone = generator(0), torch.zeros(2, 1)
    assert Margin()(lone, torch.zeros(2, dtype=torch.int64), rng).tolist() == [1.0, 1.0]
    suppressed = torch.tensor([[0.0, -math.inf, 0.0]])
    value = NegativeEntropy()(suppressed, torch.tensor([0]), rng)
    assert value.item() == pytest.approx(-math.log(2))
    empty = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    for confidence in (Probability(), Margin(), NegativeEntropy(), GumbelConfidence()):
        assert confidence(*empty, rng).shape == (0,)


def test_float64_tells_apart_what_float32_cannot():
    logits = torch.tensor([[20.0, 0.0], [20.0, 0.1]])
    ids = torch.tensor([0, 0])
    coarse, fine = (Probability(dtype=dtype)(logits, ids, generator(0)) for dtype in (torch.float32, torch.float64))
    assert coarse[0] == coarse[1]
    assert fine[0] > fine[1]


def test_gumbel_at_temperature_zero_draws_nothing_and_orders_as_probability():
    rng = generator(0)
    logits = 4 * torch.randn(500, 30, generator=rng)
    ids = torch.randint(30, (500,), generator=rng)
    before = rng.get_state()
    quiet = GumbelConfidence(temperature=0.0)(logits, ids, rng)
    assert torch.equal(rng.get_state(), before)
    sure = Probability()(logits, ids, rng)
    assert torch.equal(quiet.argsort(stable=True), sure.argsort(stable=True))


def test_gumbel_argmax_follows_the_tempered_probabilities():
    """argmax of log p + T g is a draw of p^(1/T)."""
    logits = torch.log(torch.tensor([[0.6, 0.4], [0.3, 0.7], [0.1, 0.9]]))
    ids = torch.zeros(3, dtype=torch.int64)
    rng, tally = generator(0), torch.zeros(3)
    confidence = GumbelConfidence(temperature=2.0)
    for _ in range(6000):
        tally[confidence(logits, ids, rng).argmax()] += 1
    expected = torch.tensor([0.6, 0.3, 0.1]).sqrt()
    torch.testing.assert_close(tally / 6000, expected / expected.sum(), rtol=0, atol=0.03)


def test_gumbel_noise_dtype_and_bad_settings():
    rng = generator(0)
    assert GumbelConfidence(noise=torch.bfloat16)(LOGITS, IDS, rng).dtype == torch.bfloat16
    with pytest.raises(ConfigError, match="temperature -1"):
        GumbelConfidence(temperature=-1.0)
    with pytest.raises(ConfigError, match="float32"):
        GumbelConfidence(noise=torch.int32)
