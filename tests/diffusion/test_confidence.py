import math

import pytest
import torch

from dimoo.core.errors import ConfigError
from dimoo.core.peak import peak_bytes
from dimoo.core.rng import generator
from dimoo.diffusion import rowwise
from dimoo.diffusion.confidence import GumbelConfidence, Margin, NegativeEntropy, Probability
from dimoo.diffusion.draw import gumbel

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


def whole(logits, ids, dtype):
    """(softmax, log-softmax, both at the drawn columns) of everything at once."""
    share, log = logits.to(dtype).softmax(-1), logits.to(dtype).log_softmax(-1)
    return share, log, share.gather(-1, ids[:, None])[:, 0], log.gather(-1, ids[:, None])[:, 0]


@pytest.mark.parametrize("room", [1, 1000, 1 << 20])
@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0])
def test_in_blocks_of_rows_as_of_all_rows(room, spread, monkeypatch):
    """Probabilities to the last bit, in any dtype; the entropy, which is summed otherwise, to float32 rounding."""
    monkeypatch.setattr(rowwise, "CACHED", room)
    logits = spread * torch.randn(70, 90, generator=generator(0))
    ids = torch.randint(90, (70,), generator=generator(1))
    rng = generator(2)
    for dtype in (torch.float32, torch.float64):
        assert torch.equal(Probability(dtype=dtype)(logits, ids, rng), whole(logits, ids, dtype)[2])
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        noise = gumbel(ids.shape, dtype=dtype, generator=generator(3), device=logits.device)
        wanted = whole(logits, ids, dtype)[3] + 0.7 * noise
        assert torch.equal(GumbelConfidence(temperature=0.7, noise=dtype)(logits, ids, generator(3)), wanted)
    share, log, *_ = whole(logits, ids, torch.float64)
    best = share.sort(-1, descending=True).values
    torch.testing.assert_close(Margin()(logits, ids, rng).double(), best[:, 0] - best[:, 1], rtol=0, atol=2e-6)
    entropy = NegativeEntropy()(logits, ids, rng).double()
    torch.testing.assert_close(entropy, (share * log).sum(-1), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("confidence", "blocks"),
    [
        (Probability(), 1),
        (Probability(dtype=torch.float64), 4),
        (Margin(), 1),
        (NegativeEntropy(), 2),
        (GumbelConfidence(), 1),
    ],
)
def test_what_it_holds_does_not_grow_with_the_positions(confidence, blocks, monkeypatch):
    monkeypatch.setattr(rowwise, "CACHED", 1 << 13)
    for rows in (64, 1024):
        logits, ids = torch.randn(rows, 512, generator=generator(0)), torch.zeros(rows, dtype=torch.int64)
        peak = peak_bytes(lambda logits=logits, ids=ids: confidence(logits, ids, generator(0)))
        # In float32 blocks of 2^13 logits (1024 rows are 64 of them), and a few numbers per position.
        assert peak < (blocks + 0.1) * 4 * (1 << 13) + 40 * rows


def test_edge_shapes_and_suppressed_columns():
    rng, lone = generator(0), torch.zeros(2, 1)
    assert Margin()(lone, torch.zeros(2, dtype=torch.int64), rng).tolist() == [1.0, 1.0]
    suppressed = torch.tensor([[0.0, -math.inf, 0.0]])
    value = NegativeEntropy()(suppressed, torch.tensor([0]), rng)
    assert NegativeEntropy()(torch.tensor([[-math.inf, 3.0]]), torch.tensor([1]), rng).item() == 0.0
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
