"""Less is kept between the passes, and the gradients are the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.init import initialise
from dimoo.backbone.layout import PackedLayout
from dimoo.backbone.model import Backbone
from dimoo.backbone.recompute import recomputed
from dimoo.core.peak import peak_bytes
from dimoo.core.rng import generator

LENGTHS = (70, 40, 70)


def network() -> Backbone:
    config = BackboneConfig(d_model=32, layers=6, heads=4, kv_heads=2, mlp_hidden=96, vocab_size=50)
    return initialise(build_backbone(config), generator(0, "recompute"))


def step(backbone: Backbone) -> torch.Tensor:
    tokens = torch.randint(50, (sum(LENGTHS),), generator=generator(1))
    loss = backbone.head(backbone(tokens, PackedLayout.of(LENGTHS))).square().mean()
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize("kind", ["selective", "all"])
def test_loss_and_gradients_are_the_same(kind: Any) -> None:
    plain, other = network(), recomputed(network(), kind)
    assert torch.equal(step(plain), step(other))
    for (name, parameter), (again, twin) in zip(plain.named_parameters(), other.named_parameters(), strict=True):
        assert name == again
        torch.testing.assert_close(parameter.grad, twin.grad, rtol=1e-6, atol=1e-9)
    assert other.state_dict().keys() == plain.state_dict().keys()


def test_less_is_held_the_more_is_computed_again() -> None:
    held = {}
    for kind in ("none", "selective", "all"):
        backbone = recomputed(network(), kind)  # type: ignore[arg-type]
        for parameter in backbone.parameters():
            parameter.grad = torch.zeros_like(parameter)
        held[kind] = peak_bytes(lambda backbone=backbone: step(backbone))  # type: ignore[misc]
    assert held["selective"] < 0.7 * held["none"]
    assert held["all"] < 0.7 * held["selective"]


@pytest.mark.parametrize(("kind", "again"), [("none", False), ("selective", False), ("all", True)])
def test_products_are_computed_again_with_all_alone(kind: Any, again: bool) -> None:
    backbone = recomputed(network(), kind)
    tokens = torch.randint(50, (sum(LENGTHS),), generator=generator(1))
    with FlopCounterMode(display=False) as counter:
        hidden = backbone(tokens, PackedLayout.of(LENGTHS))
    forward = counter.get_flop_counts()["Global"][torch.ops.aten.mm]
    with FlopCounterMode(display=False) as counter:
        hidden.sum().backward()
    backward = counter.get_flop_counts()["Global"][torch.ops.aten.mm]
    last = 2 * sum(LENGTHS) * 32 * 96 * len(backbone.blocks)  # nothing in the block needs what the MLP's last one gave
    assert backward == 2 * forward + again * (forward - last)


def test_sampling_is_left_as_it_is() -> None:
    backbone = recomputed(network(), "all")
    tokens = torch.randint(50, (sum(LENGTHS),), generator=generator(1))
    with torch.no_grad():
        one = backbone(tokens, PackedLayout.of(LENGTHS))
        other = network()(tokens, PackedLayout.of(LENGTHS))
    assert torch.equal(one, other)
