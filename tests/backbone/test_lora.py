"""Low-rank adapters: nothing at first, then W + (alpha / r) B A, beside the weights or folded into them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dimoo.backbone.compiled import compiled
from dimoo.backbone.config import LoRAConfig, Target
from dimoo.backbone.layout import PackedLayout
from dimoo.backbone.lora import adapted, adapters, merged
from dimoo.backbone.model import Backbone
from dimoo.backbone.quantized import quantized
from dimoo.backbone.recompute import recomputed
from dimoo.core.config import parse
from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator

LENGTHS = (5, 3)
TARGETS = get_args(Target)


def logits(model: Backbone) -> Tensor:
    tokens = torch.randint(64, (sum(LENGTHS),), generator=generator(1))
    return model.head(model(tokens, PackedLayout.of(LENGTHS)))


def trained(model: Backbone, seed: int = 2) -> Backbone:
    """As after some steps: B and whole modules have values."""
    with torch.no_grad():
        for index, (name, weight) in enumerate(model.named_parameters()):
            if weight.requires_grad and not name.endswith(".A"):
                weight.add_(0.3 * torch.randn(weight.shape, generator=generator(seed, index)))
    return model


def adapt(model: Backbone, **changes: Any) -> Backbone:
    return adapted(model, LoRAConfig(**{"rank": 3, "alpha": 4.0, **changes}), generator(0, "adapters"))


def test_it_begins_as_its_base_bit_for_bit(model: Backbone) -> None:
    made = adapt(model)
    assert torch.equal(logits(made), logits(model))
    assert torch.equal(logits(merged(made)), logits(model))
    assert not torch.equal(logits(trained(made)), logits(model))


def test_the_first_values_are_uniform_up_to_one_over_the_root_of_the_inputs(
    make_model: Callable[..., Backbone],
) -> None:
    model = make_model(d_model=64, mlp_hidden=100)
    for layer in adapters(adapt(model, rank=40)).values():
        bound = layer.in_features**-0.5
        assert not layer.B.any()
        assert layer.A.abs().max() <= bound
        assert float(layer.A.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.05)
    one, same, other = (
        adapters(adapted(model, LoRAConfig(), generator(seed)))["blocks.0.mlp.up"].A for seed in (5, 5, 6)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@settings(deadline=None, max_examples=30)
@given(
    targets=st.sets(st.sampled_from(TARGETS), min_size=1),
    rank=st.integers(1, 40),
    alpha=st.floats(0.1, 50, allow_subnormal=False),
)
def test_a_network_with_other_weights_computes_the_same(
    model: Backbone, targets: set[Target], rank: int, alpha: float
) -> None:
    """W + (alpha / r) B A by hand, in float64, for just the layers that are named."""
    made = trained(adapt(model, targets=tuple(targets), rank=rank, alpha=alpha))
    by_hand = merged(made)
    for name, weight in by_hand.named_parameters():
        layer = adapters(made).get(name.removesuffix(".weight"))
        assert (layer is not None) == any(name.endswith(f".{target}.weight") for target in targets)
        wanted = model.get_parameter(name).double()
        if layer is not None:
            wanted = wanted + (alpha / rank) * (layer.B.double() @ layer.A.double())
        torch.testing.assert_close(weight, wanted.float(), rtol=1e-6, atol=1e-6 * float(wanted.detach().abs().max()))
    assert by_hand.state_dict().keys() == model.state_dict().keys()


def test_folded_in_or_beside_is_the_same(model: Backbone) -> None:
    made = trained(adapt(model))
    for name, layer in adapters(made).items():
        x = torch.randn(7, layer.in_features, generator=generator(3))
        torch.testing.assert_close(layer(x), merged(made).get_submodule(name)(x), rtol=1e-6, atol=1e-5)
    wanted = logits(made)
    torch.testing.assert_close(logits(merged(made)), wanted, rtol=1e-5, atol=1e-5 * float(wanted.detach().abs().max()))


def test_adapters_and_whole_modules_alone_are_trained_and_the_base_stays(make_model: Callable[..., Backbone]) -> None:
    base = make_model()
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    made = adapt(base, targets=("attention.value", "mlp.output"), modules_to_save=("embedding",))
    logits(trained(made)).square().sum().backward()
    learnt = {name for name, weight in made.named_parameters() if weight.grad is not None and bool(weight.grad.any())}
    layers = [f"blocks.{i}.{name}" for i in (0, 1) for name in ("attention.value", "mlp.output")]
    assert learnt == {"embedding.weight", *(f"{layer}.{part}" for layer in layers for part in "AB")}
    assert learnt == {name for name, weight in made.named_parameters() if weight.requires_grad}
    assert all(torch.equal(base.state_dict()[name], value) for name, value in before.items())
    assert all(weight.requires_grad and weight.grad is None for weight in base.parameters())
    assert made.unembedding.weight.data_ptr() == base.unembedding.weight.data_ptr()  # 8B are there once
    assert not torch.equal(made.embedding.weight, base.embedding.weight)


@pytest.mark.parametrize("kind", ["all", "selective"])
def test_recomputed_blocks_give_the_same_gradients(model: Backbone, kind: Any) -> None:
    plain, other = trained(adapt(model)), recomputed(trained(adapt(model)), kind)
    for each in (plain, other):
        logits(each).square().mean().backward()
    for (name, weight), again in zip(plain.named_parameters(), other.parameters(), strict=True):
        assert (weight.grad is None) == (name.rpartition(".")[2] not in "AB")
        if weight.grad is not None:
            torch.testing.assert_close(weight.grad, again.grad, rtol=1e-6, atol=1e-9)


def test_compiled_blocks_compute_the_same(model: Backbone) -> None:
    made = trained(adapt(model))
    wanted = logits(made)
    torch.testing.assert_close(logits(compiled(made, backend="eager")), wanted, rtol=1e-5, atol=1e-4)
    plain, unpacked = merged(made).state_dict(), merged(compiled(made, backend="eager")).state_dict()
    assert plain.keys() == unpacked.keys()
    assert all(torch.equal(unpacked[name], value) for name, value in plain.items())


def test_a_base_in_bfloat16_keeps_adapters_in_float32(make_model: Callable[..., Backbone]) -> None:
    base = make_model().bfloat16()
    made = adapt(base)
    assert torch.equal(logits(made), logits(base))
    layer = adapters(trained(made))["blocks.0.mlp.up"]
    assert (layer.weight.dtype, layer.A.dtype, layer.B.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    exact = layer.weight.float() + layer.scale * (layer.B @ layer.A)
    assert torch.equal(merged(made).blocks[0].mlp.up.weight, exact.bfloat16())  # type: ignore[union-attr]


def test_a_quantised_base_trains_and_is_not_folded(make_model: Callable[..., Backbone]) -> None:
    pytest.importorskip("torchao")
    base = quantized(make_model(), "int8")
    made = adapt(base)
    torch.testing.assert_close(logits(made), logits(base), rtol=0, atol=0)
    logits(trained(made)).square().mean().backward()
    assert all(layer.A.grad is not None and bool(layer.A.grad.any()) for layer in adapters(made).values())
    with pytest.raises(ConfigError, match="quantised to int8; adapt the network as it was"):
        merged(made)


def test_without_numbers_there_are_names_and_shapes(model: Backbone) -> None:
    nothing = adapt(copy.deepcopy(model).to("meta"))
    assert all(weight.is_meta for weight in nothing.parameters())
    assert {name: weight.shape for name, weight in nothing.state_dict().items()} == {
        name: weight.shape for name, weight in adapt(model).state_dict().items()
    }


def test_twice_and_nonsense_are_refused(model: Backbone) -> None:
    with pytest.raises(ConfigError, match="has adapters already"):
        adapt(adapt(model))
    for change, part in (
        ({"rank": 0}, "rank"),
        ({"alpha": 0.0}, "alpha"),
        ({"targets": []}, "targets"),
        ({"targets": ["attention.q"]}, "attention.query"),
        ({"targets": ["mlp.up", "mlp.up"]}, "name each once"),
        ({"modules_to_save": ["norm"]}, "embedding"),
    ):
        with pytest.raises(ConfigError, match=part):
            parse(LoRAConfig, change)
