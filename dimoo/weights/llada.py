"""LLaDA and Lumina-DiMOO checkpoints (arXiv 2502.09992, 2510.06308): names and configuration, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dimoo.backbone.config import BackboneConfig
from dimoo.core.config import parse
from dimoo.core.errors import CheckpointError, ConfigError
from dimoo.weights.rules import Rename, expand

_BLOCK = "model.transformer.blocks.{i}."
_TABLE = (
    Rename("embedding.weight", "model.transformer.wte.weight"),
    Rename("blocks.{i}.attention_norm.weight", _BLOCK + "attn_norm.weight"),
    Rename("blocks.{i}.attention.query.weight", _BLOCK + "q_proj.weight"),
    Rename("blocks.{i}.attention.key.weight", _BLOCK + "k_proj.weight"),
    Rename("blocks.{i}.attention.value.weight", _BLOCK + "v_proj.weight"),
    Rename("blocks.{i}.attention.output.weight", _BLOCK + "attn_out.weight"),
    Rename("blocks.{i}.mlp_norm.weight", _BLOCK + "ff_norm.weight"),
    Rename("blocks.{i}.mlp.gate.weight", _BLOCK + "ff_proj.weight"),
    Rename("blocks.{i}.mlp.up.weight", _BLOCK + "up_proj.weight"),
    Rename("blocks.{i}.mlp.output.weight", _BLOCK + "ff_out.weight"),
    Rename("norm.weight", "model.transformer.ln_f.weight"),
    Rename("unembedding.weight", "model.transformer.ff_out.weight"),
)

_SHAPE = {
    "d_model": "d_model",
    "layers": "n_layers",
    "heads": "n_heads",
    "mlp_hidden": "mlp_hidden_size",
    "rope_theta": "rope_theta",
    "norm_eps": "rms_norm_eps",
}
"""Our field -> the checkpoint's key."""

_FIXED: dict[str, Any] = {
    "block_type": "llama",
    "layer_norm_type": "rms",
    "activation_type": "silu",
    "weight_tying": False,
    "include_bias": False,
    "include_qkv_bias": False,
    "rope": True,
    "rope_full_precision": True,
    "alibi": False,
    "attention_layer_norm": False,
    "input_emb_norm": False,
    "scale_logits": False,
    "block_group_size": 1,
}
"""Switches of the released code that change the computation, and the one value that our backbone computes."""


def llada_rules(layers: int) -> tuple[Rename, ...]:
    """The table between `Backbone` and a checkpoint of that many blocks; every name in it is required."""
    return expand(_TABLE, i=layers)


def config_from_llada(values: Mapping[str, Any]) -> BackboneConfig:
    """Translate a checkpoint's config.json.

    As in the released code, the tables have `embedding_size` rows where that is given, else `vocab_size`, and
    there are `n_kv_heads` where that is given, else one or all by `multi_query_attention`. Keys that do not
    change the computation (dropouts, initial values, file metadata) are not read.

    Raises:
        CheckpointError: lists every missing key and every value that our backbone does not compute.
    """
    problems = [f"missing: {key}" for key in (*_SHAPE.values(), "vocab_size") if values.get(key) is None]
    problems += [
        f"unsupported: {key} = {values[key]!r}, only {wanted!r} is computed"
        for key, wanted in _FIXED.items()
        if values.get(key) is not None and values[key] != wanted
    ]
    if problems:
        raise CheckpointError("the checkpoint's config.json does not fit:\n  " + "\n  ".join(problems))
    shape = {ours: values[theirs] for ours, theirs in _SHAPE.items()}
    kv_heads = values.get("n_kv_heads") or (1 if values.get("multi_query_attention") else values["n_heads"])
    rows, ids = values.get("embedding_size") or values["vocab_size"], values["vocab_size"]
    if not (isinstance(ids, int) and isinstance(rows, int) and 0 < ids <= rows):
        raise CheckpointError(f"vocab_size {ids!r} must be a number from 1 to the {rows!r} rows of the embedding")
    try:
        return parse(BackboneConfig, {**shape, "kv_heads": kv_heads, "vocab_size": rows})
    except ConfigError as error:
        raise CheckpointError(f"the checkpoint's config.json is not valid: {error}") from error


def config_to_llada(config: BackboneConfig) -> dict[str, Any]:
    """A config.json of that shape in the checkpoint's key names; the inverse of `config_from_llada`.

    Raises:
        CheckpointError: the model has several position axes, which the released code does not have.
    """
    if len(config.rope_axes) != 1:
        raise CheckpointError(f"rope_axes {config.rope_axes} cannot be written: the format has one position axis")
    shape = {theirs: getattr(config, ours) for ours, theirs in _SHAPE.items()}
    rows = config.vocab_size
    return {**_FIXED, **shape, "n_kv_heads": config.kv_heads, "vocab_size": rows, "embedding_size": rows}
