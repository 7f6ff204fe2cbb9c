from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dimoo.core.rng import generator
from dimoo.tokenizers.image import nearest
from dimoo.tokenizers.image.finite_scalar import FiniteScalarQuantizer
from dimoo.tokenizers.image.vector_quantizer import VectorQuantizer

LEVELS = st.lists(st.integers(2, 9), min_size=1, max_size=4)


def _vq(size: int = 6, dim: int = 3, ema: float | None = 0.9, revive: int | None = None) -> VectorQuantizer:
    vq = VectorQuantizer(size=size, dim=dim, commitment=0.25, ema_decay=ema, revive_after=revive)
    with torch.no_grad():
        vq.codebook.copy_(torch.randn(size, dim, generator=generator(0, "codebook")))
        if ema is not None:
            vq.sums.copy_(vq.codebook)
    return vq


def _latents(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "latents"))


@given(LEVELS)
@settings(max_examples=25, deadline=None)
def test_fsq_codes_are_bijective(levels: list[int]) -> None:
    fsq = FiniteScalarQuantizer(levels=levels)
    codes = torch.arange(fsq.codebook_size).view(1, 1, -1)
    values = fsq.lookup(codes)
    assert len(torch.unique(values[0, :, 0].T, dim=0)) == math.prod(levels)
    assert values.abs().max() == 1
    # atanh of the (shrunk, for the ends) values are latents that round back to the same code
    assert torch.equal(fsq(torch.atanh(values * 0.999)).codes, codes)


@given(LEVELS, st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_fsq_equals_a_digit_by_digit_oracle(levels: list[int], seed: int) -> None:
    fsq = FiniteScalarQuantizer(levels=levels)
    latents = 2 * _latents(2, len(levels), 2, 2, seed=seed)
    made = fsq(latents)
    for place in ((b, y, x) for b in range(2) for y in range(2) for x in range(2)):
        b, y, x = place
        code, weight = 0, 1
        for channel, level in enumerate(levels):
            bounded = math.tanh(latents[b, channel, y, x].item())
            grid = [2 * digit / (level - 1) - 1 for digit in range(level)]
            digit = min(range(level), key=lambda d, grid=grid, v=bounded: abs(grid[d] - v))
            assert made.latents[b, channel, y, x].item() == pytest.approx(grid[digit], abs=1e-6)
            code, weight = code + digit * weight, weight * level
        assert made.codes[place].item() == code


def test_fsq_with_two_levels_is_lookup_free() -> None:
    fsq = FiniteScalarQuantizer(levels=[2] * 5)
    latents = _latents(1, 5, 3, 3)
    made = fsq(latents)
    torch.testing.assert_close(made.latents, latents.sign())
    bits = (latents > 0).long() * torch.tensor([1, 2, 4, 8, 16])[:, None, None]
    assert torch.equal(made.codes, bits.sum(dim=1))


def test_fsq_gradient_is_that_of_tanh() -> None:
    latents = _latents(1, 2, 3, 3).requires_grad_()
    weight = _latents(1, 2, 3, 3, seed=2)
    (FiniteScalarQuantizer(levels=[4, 5])(latents).latents * weight).sum().backward()
    torch.testing.assert_close(latents.grad, weight * (1 - latents.detach().tanh() ** 2))


def test_fsq_has_no_state_and_survives_half_precision() -> None:
    fsq = FiniteScalarQuantizer(levels=[1000, 3]).bfloat16()
    assert not fsq.state_dict()
    codes = torch.arange(3000).view(1, 30, 100)
    assert torch.equal(fsq(torch.atanh(fsq.lookup(codes) * 0.9999)).codes, codes)


def test_vq_is_the_nearest_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "_ROWS", 7)  # several blocks, the last one ragged
    vq, latents = _vq(), _latents(2, 3, 4, 5)
    made = vq(latents)
    for b in range(2):
        for y in range(4):
            for x in range(5):
                distances = [(latents[b, :, y, x] - code).square().sum() for code in vq.codebook]
                best = min(range(6), key=lambda k, d=distances: float(d[k]))
                assert made.codes[b, y, x] == best
                torch.testing.assert_close(made.latents[b, :, y, x], vq.codebook[best].detach())
    torch.testing.assert_close(vq.lookup(made.codes), made.latents)


def test_vq_codes_do_not_change_under_autocast() -> None:
    vq, latents = _vq(size=64, dim=8), _latents(1, 8, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        under = vq(latents).codes
    assert torch.equal(under, vq(latents).codes)


def test_vq_gradient_passes_straight_through() -> None:
    latents, weight = _latents(1, 3, 2, 2).requires_grad_(), _latents(1, 3, 2, 2, seed=2)
    (_vq()(latents).latents * weight).sum().backward()
    torch.testing.assert_close(latents.grad, weight)


def test_vq_losses_reach_one_side_each() -> None:
    vq, latents = _vq(ema=None), _latents(1, 3, 2, 2).requires_grad_()
    made = vq(latents)
    mean_square = (latents - vq.lookup(made.codes)).square().mean().detach()
    torch.testing.assert_close(made.losses["commitment"].detach(), 0.25 * mean_square)
    torch.testing.assert_close(made.losses["codebook"].detach(), mean_square)
    made.losses["commitment"].backward(retain_graph=True)
    assert vq.codebook.grad is None
    assert latents.grad is not None
    latents.grad = None
    made.losses["codebook"].backward()
    assert vq.codebook.grad is not None
    assert latents.grad is None
    averaged = _vq(ema=0.9)
    assert set(averaged(latents).losses) == {"commitment"}
    assert not averaged.codebook.requires_grad


def test_ema_update_equals_a_loop() -> None:
    vq = _vq(ema=0.8)
    mass, sums = [1.0] * 6, [code.clone() for code in vq.codebook.detach()]
    for step in range(4):
        latents = _latents(1, 3, 3, 3, seed=step)
        codes = vq(latents).codes
        assert vq.update(latents, codes, generator(0)) == 0
        rows, picks = latents[0].flatten(1).T, codes.flatten().tolist()
        for k in range(6):
            mine = [row for row, pick in zip(rows, picks, strict=True) if pick == k]
            mass[k] = 0.8 * mass[k] + 0.2 * len(mine)
            sums[k] = 0.8 * sums[k] + 0.2 * sum(mine, torch.zeros(3))
        wanted = torch.stack([total / n for total, n in zip(sums, mass, strict=True)])
        torch.testing.assert_close(vq.codebook.detach(), wanted, atol=1e-6, rtol=1e-5)


def test_a_code_unused_for_ages_stays_put() -> None:
    vq = _vq(size=2, dim=1, ema=0.5)
    before = vq.codebook[1].clone()
    latents, codes = torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64)
    for _ in range(300):
        vq.update(latents, codes, generator(0))
    torch.testing.assert_close(vq.codebook[1], before)
    assert vq.codebook[0].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("ema", [None, 0.9])
def test_dead_codes_are_redrawn_from_the_batch(ema: float | None) -> None:
    def run(seed: int) -> tuple[VectorQuantizer, list[int]]:
        vq = _vq(ema=ema, revive=3)
        codes = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2]).view(1, 3, 3)
        latents = _latents(1, 3, 3, 3)
        return vq, [vq.update(latents, codes, generator(seed)) for _ in range(4)]

    vq, revived = run(5)
    assert revived == [0, 0, 3, 0]
    rows = _latents(1, 3, 3, 3)[0].flatten(1).T
    for code in vq.codebook[3:].detach():
        assert (rows - code).abs().sum(dim=1).min() < 1e-5
    assert len(torch.unique(vq.codebook[3:].detach(), dim=0)) == 3
    assert torch.equal(vq.codebook, run(5)[0].codebook)
    assert not torch.equal(vq.codebook, run(6)[0].codebook)


def test_calls_change_nothing() -> None:
    vq = _vq(revive=2)
    before = {name: tensor.clone() for name, tensor in vq.state_dict().items()}
    for _ in range(3):
        vq(_latents(1, 3, 4, 4))
    assert set(before) == {"codebook", "mass", "sums", "idle"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in vq.state_dict().items())


def test_initialise_finds_clusters() -> None:
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0], [5.0, 5.0]])
    noise = 0.01 * _latents(100, 2)
    rows = centres.repeat_interleave(25, dim=0) + noise
    vq = VectorQuantizer(size=8, dim=2, commitment=0.25, ema_decay=0.9, revive_after=2)
    latents = rows.T.view(1, 2, 10, 10)
    vq.initialise(latents, generator(3))
    assert torch.cdist(centres, vq.codebook.detach()).min(dim=1).values.max() < 0.05
    assert vq(latents).losses["commitment"] < 1e-3
    torch.testing.assert_close(vq.sums, vq.codebook.detach())


def test_more_codes_than_latents_is_fine() -> None:
    vq = VectorQuantizer(size=16, dim=2, commitment=0.25, ema_decay=None, revive_after=1)
    vq.initialise(_latents(1, 2, 2, 2), generator(0))
    assert torch.isfinite(vq.codebook).all()
