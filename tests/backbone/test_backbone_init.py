from __future__ import annotations

import pytest
import torch

from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.init import grow, initialise, rows_with_codes
from dimoo.backbone.layout import PackedLayout
from dimoo.backbone.model import Backbone
from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator

WIDE = BackboneConfig(d_model=64, layers=8, heads=4, kv_heads=4, mlp_hidden=96, vocab_size=128)


def test_initial_values_have_the_stated_spread() -> None:
    for name, tensor in initialise(build_backbone(WIDE), generator(0)).state_dict().items():
        if tensor.ndim == 1:
            assert torch.equal(tensor, torch.ones_like(tensor)), name
        else:
            wanted = 0.02 / 4 if name.endswith("output.weight") else 0.02
            assert tensor.std().item() == pytest.approx(wanted, rel=0.06), name
            assert abs(tensor.mean().item()) < 0.1 * wanted, name


def test_the_generator_alone_decides() -> None:
    torch.manual_seed(0)
    first = initialise(build_backbone(WIDE), generator(1)).state_dict()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    again, other = (initialise(build_backbone(WIDE), generator(seed)).state_dict() for seed in (1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])


def test_on_meta_nothing_is_drawn() -> None:
    with torch.device("meta"):
        model = build_backbone(WIDE)
    draw = generator(0)
    before = draw.get_state()
    initialise(model, draw)
    assert torch.equal(draw.get_state(), before)
    assert grow(model, 200, draw).unembedding.weight.shape == (200, 64)


def logits(model: Backbone) -> torch.Tensor:
    with torch.no_grad():
        return model.head(model(torch.arange(9), PackedLayout.of([5, 4])))


def test_grow_keeps_old_logits_and_the_old_model(model: Backbone) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    grown = grow(model, 100, generator(0))
    assert (grown.vocab_size, model.vocab_size) == (100, 64)
    assert grown.unembedding.out_features == 100
    torch.testing.assert_close(logits(grown)[:, :64], logits(model), atol=1e-6, rtol=1e-6)
    with torch.no_grad():
        for parameter in grown.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_new_rows_are_drawn_around_the_old(model: Backbone) -> None:
    grown = grow(model, 8064, generator(0))
    for old, new in ((model.embedding, grown.embedding), (model.unembedding, grown.unembedding)):
        rows, spread = new.weight[64:], old.weight.std(0, correction=0)
        assert len(rows.unique(dim=0)) == 8000
        assert ((rows.mean(0) - old.weight.mean(0)).abs() < 0.06 * spread).all()
        torch.testing.assert_close(rows.std(0), spread, rtol=0.05, atol=0)


def test_unused_rows_can_be_drawn_anew(model: Backbone) -> None:
    grown = grow(model, 64, generator(0), kept=50)
    assert torch.equal(grown.embedding.weight[:50], model.embedding.weight[:50])
    assert (grown.embedding.weight[50:] != model.embedding.weight[50:]).all()


@pytest.mark.parametrize(("size", "kept"), [(63, None), (64, 65), (64, 0), (40, 50)])
def test_rows_are_not_lost_silently(model: Backbone, size: int, kept: int | None) -> None:
    with pytest.raises(ConfigError, match="cannot keep"):
        grow(model, size, generator(0), kept=kept)


def test_added_codes_start_as_the_nearest_old_ones_and_old_ids_stay(model: Backbone) -> None:
    """The table's last 10 ids are codes; 25 more come behind them."""
    vectors, start = torch.randn(35, 4, generator=generator(3)), 54
    before = model.unembedding.weight.detach().clone()
    grown = rows_with_codes(model.unembedding.weight, vectors, start)
    nearest = [
        min(range(10), key=lambda old: float((vectors[new] - vectors[old]).square().sum())) for new in range(10, 35)
    ]
    assert len(set(nearest)) > 3
    assert grown.shape == (64 + 25, model.width)
    assert torch.equal(grown[:64], before)
    for place, code in enumerate(nearest):
        assert torch.equal(grown[64 + place], before[start + code])
    grown.zero_()
    assert torch.equal(model.unembedding.weight, before)


@pytest.mark.parametrize(("codes", "start"), [(10, 54), (9, 54), (35, 64), (35, 70)])
def test_codes_become_more_and_are_the_last_ids(model: Backbone, codes: int, start: int) -> None:
    with pytest.raises(ConfigError, match=f"cannot grow {64 - start} codes to {codes}"):
        rows_with_codes(model.unembedding.weight, torch.randn(codes, 4, generator=generator(0)), start)
