from __future__ import annotations

import re

import pytest
import torch

from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.init import initialise
from dimoo.core.errors import CheckpointError
from dimoo.core.rng import generator
from dimoo.core.tensors import load_exact
from dimoo.weights.llada import config_from_llada, config_to_llada, llada_rules
from dimoo.weights.rules import to_ours, to_theirs

SMALL = BackboneConfig(
    d_model=32, layers=3, heads=4, kv_heads=2, mlp_hidden=48, vocab_size=64, rope_theta=1e4, norm_eps=1e-6
)
PUBLISHED = re.compile(
    r"model\.transformer\.(wte|ln_f|ff_out|blocks\.[0-2]\."
    r"(q_proj|k_proj|v_proj|attn_out|ff_proj|up_proj|ff_out|attn_norm|ff_norm))\.weight"
)


def test_weights_out_and_back_in_are_equal() -> None:
    model, other = (initialise(build_backbone(SMALL), generator(seed)) for seed in (0, 1))
    theirs = to_theirs(llada_rules(3), model.state_dict())
    assert len(theirs) == 3 + 3 * 9
    assert all(PUBLISHED.fullmatch(name) for name in theirs)
    load_exact(other, to_ours(llada_rules(3), theirs))
    want = model.state_dict()
    assert all(torch.equal(tensor, want[name]) for name, tensor in other.state_dict().items())


def test_a_missing_and_an_unknown_weight_are_named_as_published() -> None:
    theirs = to_theirs(llada_rules(3), build_backbone(SMALL).state_dict())
    theirs["model.transformer.blocks.3.q_proj.weight"] = theirs.pop("model.transformer.blocks.1.q_proj.weight")
    with pytest.raises(CheckpointError) as caught:
        to_ours(llada_rules(3), theirs)
    assert "missing: model.transformer.blocks.1.q_proj.weight" in str(caught.value)
    assert "unknown: model.transformer.blocks.3.q_proj.weight" in str(caught.value)


def test_config_goes_both_ways() -> None:
    assert config_from_llada(config_to_llada(SMALL)) == SMALL


def test_embedding_rows_and_key_heads_follow_the_released_code() -> None:
    values = config_to_llada(SMALL)
    assert config_from_llada(values | {"embedding_size": 80}).vocab_size == 80
    assert config_from_llada(values | {"embedding_size": None, "vocab_size": 72}).vocab_size == 72
    assert config_from_llada(values | {"n_kv_heads": None}).kv_heads == 4
    assert config_from_llada(values | {"n_kv_heads": None, "multi_query_attention": True}).kv_heads == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_type", "sequential"),
        ("include_bias", True),
        ("include_qkv_bias", True),
        ("weight_tying", True),
        ("layer_norm_type", "low_precision"),
        ("activation_type", "gelu"),
        ("rope", False),
        ("rope_full_precision", False),
        ("alibi", True),
        ("attention_layer_norm", True),
        ("input_emb_norm", True),
        ("scale_logits", True),
        ("block_group_size", 2),
    ],
)
def test_what_we_do_not_compute_is_refused(key: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=re.escape(f"unsupported: {key} = {value!r}")):
        config_from_llada(config_to_llada(SMALL) | {key: value})


def test_every_config_problem_is_listed() -> None:
    values = config_to_llada(SMALL) | {"weight_tying": True, "rope_theta": None}
    del values["n_layers"]
    with pytest.raises(CheckpointError) as caught:
        config_from_llada(values)
    for line in ("missing: n_layers", "missing: rope_theta", "unsupported: weight_tying = True"):
        assert line in str(caught.value)


def test_several_axes_cannot_be_published() -> None:
    with pytest.raises(CheckpointError, match="one position axis"):
        config_to_llada(SMALL.model_copy(update={"rope_axes": (1, 1)}))
