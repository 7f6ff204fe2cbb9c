import math

import pytest
import torch

from dimoo.core.errors import ConfigError
from dimoo.core.peak import peak_bytes
from dimoo.core.rng import generator
from dimoo.diffusion import rowwise
from dimoo.diffusion.draw import Categorical, Greedy, gumbel, keep_top_k, keep_top_p


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


FILTERS = [{}, {"temperature": 0.7}, {"top_k": 20}, {"top_p": 0.8}, {"top_k": 40, "top_p": 0.8, "temperature": 1.5}]
CUT = [torch.bfloat16, torch.float16, torch.float64]


@pytest.mark.parametrize("settings", FILTERS)
@pytest.mark.parametrize("noise", CUT)
def test_noise_of_other_dtypes_is_gumbel_max_of_all_columns(noise, settings, monkeypatch):
    """The released draw, bit for bit: written out, on all positions at once."""
    monkeypatch.setattr(rowwise, "CACHED", 500)
    logits = 3 * torch.randn(50, 150, generator=generator(0))
    scores = logits.to(torch.promote_types(noise, torch.float32)) / settings.get("temperature", 1.0)
    scores = keep_top_k(scores, settings.get("top_k", 150))
    scores = keep_top_p(scores, settings["top_p"]) if "top_p" in settings else scores
    g = gumbel(scores.shape, dtype=noise, generator=generator(7), device=scores.device)
    wanted = (scores.to(noise) + g).argmax(-1)
    assert torch.equal(Categorical(noise=noise, **settings)(logits, generator(7)), wanted)


@pytest.mark.parametrize("settings", FILTERS)
def test_blocks_and_batch_mates_change_no_draw(settings, monkeypatch):
    """One uniform number a position, in order: one at a time is all at once."""
    logits = 3 * torch.randn(60, 300, generator=generator(0))
    draw, one, rng = Categorical(**settings), generator(5), generator(5)
    whole = draw(logits, rng)
    assert torch.equal(torch.cat([draw(row[None], one) for row in logits]), whole)
    assert torch.equal(one.get_state(), rng.get_state())
    monkeypatch.setattr(rowwise, "CACHED", 1000)
    assert torch.equal(draw(logits, generator(5)), whole)


@pytest.mark.parametrize("settings", [{}, {"temperature": 2.0}, {"top_k": 60}, {"top_p": 0.9}])
def test_frequencies_over_several_chunks_match_the_softmax(settings):
    """Columns of probability 1e-1 to 1e-6; the unlikely ones are counted together."""
    scores = torch.linspace(0, 11, 300)[torch.randperm(300, generator=generator(0))] / settings.get("temperature", 1.0)
    kept = keep_top_k(scores[None], settings.get("top_k", 300))
    kept = keep_top_p(kept, settings["top_p"]) if "top_p" in settings else kept
    probability, count = kept[0].double().softmax(-1), 60_000
    logits = (scores * settings.get("temperature", 1.0)).expand(count, -1)
    counts = torch.bincount(Categorical(**settings)(logits, generator(3)), minlength=300)
    assert counts[probability == 0].sum() == 0
    common = probability * count > 10
    expected = torch.cat([probability[common], probability[~common].sum()[None]]) * count
    seen = torch.cat([counts[common], counts[~common].sum()[None]])
    bins = (expected > 0).sum().item()
    chi_square = ((seen - expected)[expected > 0] ** 2 / expected[expected > 0]).sum().item()
    # Mean bins - 1, deviation sqrt(2 bins): exceeded about once in a thousand seeds.
    assert chi_square < bins + 3.3 * math.sqrt(2 * bins)


@pytest.mark.parametrize("settings", FILTERS)
def test_what_a_draw_holds_does_not_grow_with_the_positions(settings, monkeypatch):
    monkeypatch.setattr(rowwise, "CACHED", 1 << 13)
    block, columns = 4 * (1 << 13), 512
    for rows in (64, 1024):
        logits = torch.randn(rows, columns, generator=generator(0))
        peak = peak_bytes(lambda logits=logits: Categorical(**settings)(logits, generator(0)))
        # A few float32 blocks (a sort has ids beside its values), and a few numbers per position.
        assert peak < 5 * block + 40 * rows
    assert logits.nbytes > 10 * 5 * block


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
