from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import recipes.running.trainer
from recipes.config import OptimizerConfig
from recipes.learning.optimizer import adamw, rate
from recipes.running.trainer import precision


def test_the_rate_warms_up_stays_and_falls_to_a_tenth() -> None:
    config = OptimizerConfig(lr=1.0, warmup_steps=4, decay_share=0.25)
    rates = [rate(config, step, 40) for step in range(40)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[4:31] == [1.0] * 27
    assert rates[30:] == pytest.approx([1 - 0.09 * k for k in range(10)])
    assert rate(config, 40, 40) == pytest.approx(0.1)


@given(warmup=st.integers(0, 50), share=st.floats(0, 1), steps=st.integers(1, 200), step=st.integers(0, 199))
def test_the_rate_is_positive_and_at_most_one(warmup: int, share: float, steps: int, step: int) -> None:
    config = OptimizerConfig(lr=1.0, warmup_steps=warmup, decay_share=share)
    step = min(step, steps - 1)
    value = rate(config, step, steps)
    assert 0 < value <= 1
    if step >= warmup and share == 0:
        assert value == 1


def test_only_matrices_are_decayed_and_frozen_weights_are_left_out() -> None:
    module = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Conv2d(1, 2, 3))
    module[2].weight.requires_grad_(False)
    optimizer = adamw([module], OptimizerConfig(lr=0.25, betas=(0.8, 0.9), weight_decay=0.3))
    decayed, plain = optimizer.param_groups
    assert [id(p) for p in decayed["params"]] == [id(module[0].weight)]
    vectors = (module[0].bias, module[1].weight, module[1].bias, module[2].bias)
    assert {id(p) for p in plain["params"]} == {id(p) for p in vectors}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert {(group["lr"], group["betas"]) for group in optimizer.param_groups} == {(0.25, (0.8, 0.9))}


@pytest.mark.parametrize(
    ("choice", "fast", "wanted"),
    [
        ("auto", True, "bf16-mixed"),
        ("auto", False, "32-true"),
        ("fp32", True, "32-true"),
        ("bf16", False, "bf16-mixed"),
    ],
)
def test_auto_is_bf16_only_where_a_cpu_multiplies_it_fast(
    choice: str, fast: bool, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(recipes.running.trainer, "_has_amx", lambda: fast)
    assert precision(choice) == wanted  # type: ignore[arg-type]


@pytest.mark.parametrize("fast", [True, False])
def test_auto_on_a_gpu_asks_the_gpu(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or fast)
    monkeypatch.setattr(recipes.running.trainer, "_has_amx", lambda: not fast)
    assert precision("auto") == ("bf16-mixed" if fast else "32-true")


def test_a_torch_that_cannot_tell_has_no_fast_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for answer, wanted in ((lambda: True, "bf16-mixed"), (lambda: False, "32-true")):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", answer, raising=False)
        assert precision("auto") == wanted
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert precision("auto") == "32-true"
