import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimoo.core.rng import generator
from dimoo.diffusion.draw import Categorical, keep_top_k, keep_top_p

# Few levels of logits: ties everywhere.
ROWS = st.lists(st.integers(-3, 3), min_size=1, max_size=24)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("noise", [torch.float32, torch.float64])
def test_frequencies_match_the_softmax(temperature, noise):
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0, 0.5])
    count = 60_000
    drawn = Categorical(temperature=temperature, noise=noise)(logits.expand(count, -1), generator(11))
    expected = count * (logits.double() / temperature).softmax(-1)
    chi_square = ((torch.bincount(drawn, minlength=6) - expected) ** 2 / expected).sum().item()
    assert chi_square < 20.5  # 5 degrees of freedom: exceeded once in a thousand seeds


@settings(deadline=None)
@given(ROWS, st.integers(1, 30))
def test_top_k_keeps_exactly_k_lowest_index_first(values, k):
    logits = torch.tensor([values, values[::-1]], dtype=torch.float32)
    kept = keep_top_k(logits, k)
    for row, result in zip(logits.tolist(), kept.tolist(), strict=True):
        best = sorted(range(len(row)), key=lambda i: (-row[i], i))[:k]
        assert result == [row[i] if i in best else -math.inf for i in range(len(row))]


@settings(deadline=None)
@given(ROWS, st.floats(0.02, 0.98))
def test_top_p_keeps_the_smallest_sufficient_set(values, p):
    logits = torch.tensor([values, values[::-1]], dtype=torch.float64)
    kept = keep_top_p(logits, p).isfinite()
    for row, flags in zip(logits, kept, strict=True):
        probability = row.softmax(-1)
        order = sorted(range(len(row)), key=lambda i: (-row[i].item(), i))
        size = int(flags.sum())
        assert sorted(order[:size]) == flags.nonzero()[:, 0].tolist()
        assert probability[order[:size]].sum() >= p - 1e-12
        assert size == 1 or probability[order[: size - 1]].sum() < p + 1e-12


@settings(deadline=None)
@given(ROWS, st.integers(1, 6), st.integers(0, 99))
def test_same_generator_same_draw_and_inputs_stay(values, k, seed):
    logits = torch.tensor([values] * 3, dtype=torch.float32)
    before = logits.clone()
    draw = Categorical(top_k=k, top_p=0.9)
    assert torch.equal(draw(logits, generator(seed)), draw(logits, generator(seed)))
    assert torch.equal(logits, before)
