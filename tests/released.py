"""Tiny checkpoints in the released layouts of Lumina-DiMOO and LLaDA, put together by hand.

Nothing of `dimoo.weights` writes here: the files are what Hugging Face's own tools leave in a folder, so that reading
them tests our reader, and not merely that it inverts our writer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

INDEX = "model.safetensors.index.json"
CODES = 64
TEXT_IDS = 320
LLADA = ("<|startoftext|>", "<|endoftext|>", "<|mdm_mask|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
"""The special tokens of LLaDA."""
LUMINA = (
    *LLADA,
    *("<end_of_line>", "<|pad|>", "<IMAGE>", "</IMAGE>", "<uncondition>", "<answer>", "</answer>"),
    *("<system>", "</system>", "<user>", "</user>"),
)
"""What Lumina-DiMOO adds."""
CHAT = (
    "{% for message in messages %}"
    "{% if loop.first %}{{ bos_token }}{% endif %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
"""A template with Llama 3's headers, as LLaDA's."""


def write_released(folder: Path, *, seed: int = 0, text_only: bool = False) -> Path:
    """Write a model of some 50,000 random weights: Lumina-DiMOO's layout, or LLaDA's; returns the folder.

    Ids: 0 .. 319 are text, the last of them special; the 64 codes of images follow. LLaDA's table has spare rows there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = TEXT_IDS + CODES
    specials = LLADA if text_only else LUMINA
    ids = {token: TEXT_IDS - len(specials) + index for index, token in enumerate(specials)}
    write_tokenizer(folder / "tokenizer.json", TEXT_IDS, ids)
    write_json(folder / "tokenizer_config.json", tokenizer_config(ids, chat=CHAT if text_only else None))
    write_json(folder / "config.json", model_config(rows, ids, text_only=text_only))
    write_shards(folder, backbone_tensors(rows, seed=seed))
    if not text_only:
        write_vqvae(folder / "vqvae", CODES, seed=seed)
    return folder


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file as Hugging Face's tools do."""
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def edit_json(path: Path, **changes: object) -> None:
    """Change keys of a JSON file; None takes one away."""
    values = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    write_json(path, {key: value for key, value in values.items() if value is not None})


def write_shards(folder: Path, tensors: Mapping[str, Tensor], shards: int = 3) -> None:
    """Spread tensors over several files with an index."""
    weight_map = {}
    for part in range(shards):
        file = f"model-{part + 1:05d}-of-{shards:05d}.safetensors"
        own = {name: tensors[name].contiguous() for name in sorted(tensors)[part::shards]}
        save_file(own, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(own, file))
    size = sum(tensor.nbytes for tensor in tensors.values())
    write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": weight_map})


def write_tokenizer(path: Path, size: int, specials: Mapping[str, int]) -> None:
    """A byte-level BPE without merges: `size` ids, the special tokens at theirs, bytes and unused words at the rest."""
    taken = set(specials.values())
    free = (index for index in range(size) if index not in taken)
    words = chain(sorted(pre_tokenizers.ByteLevel.alphabet()), (f"word{index}" for index in count()))
    vocabulary = {**specials, **{word: index for index, word in zip(free, words, strict=False)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    tokenizer.save(str(path))


def tokenizer_config(ids: Mapping[str, int], *, chat: str | None) -> dict[str, Any]:
    """tokenizer_config.json; of its keys only the chat template and the two tokens that it uses matter."""
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "added_tokens_decoder": {str(index): {"content": token, **flags} for token, index in ids.items()},
        "bos_token": "<|startoftext|>",
        "eos_token": {"__type": "AddedToken", "content": "<|endoftext|>", **flags},
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1000000000000000019884624838656,
        "tokenizer_class": "PreTrainedTokenizerFast",
        **({} if chat is None else {"chat_template": chat}),
    }


def model_config(rows: int, ids: Mapping[str, int], *, text_only: bool = False) -> dict[str, Any]:
    """config.json with all that LLaDA's has: the shape, switches, and much that does not change the computation."""
    name = "LLaDAModelLM" if text_only else "LLaDAForMultiModalGeneration"
    return {
        "activation_type": "silu",
        "alibi": False,
        "alibi_bias_max": 8.0,
        "architectures": [name],
        "attention_dropout": 0.0,
        "attention_layer_norm": False,
        "auto_map": {"AutoConfig": "configuration_llada.LLaDAConfig", "AutoModelForCausalLM": f"modeling_llada.{name}"},
        "bias_for_layer_norm": False,
        "block_group_size": 1,
        "block_type": "llama",
        "d_model": 32,
        "embedding_dropout": 0.0,
        "embedding_size": rows,
        "eos_token_id": ids["<|endoftext|>"],
        "flash_attention": False,
        "include_bias": False,
        "include_qkv_bias": False,
        "init_device": "meta",
        "init_fn": "mitchell",
        "init_std": 0.02,
        "input_emb_norm": False,
        "layer_norm_type": "rms",
        "layer_norm_with_affine": True,
        "mask_token_id": ids["<|mdm_mask|>"],
        "max_sequence_length": 4096,
        "mlp_hidden_size": 64,
        "mlp_ratio": 4,
        "model_type": "llada",
        "multi_query_attention": None,
        "n_heads": 4,
        "n_kv_heads": 4,
        "n_layers": 2,
        "pad_token_id": ids["<|endoftext|>"],
        "precision": "amp_bf16",
        "residual_dropout": 0.0,
        "rms_norm_eps": 1e-05,
        "rope": True,
        "rope_full_precision": True,
        "rope_theta": 500000.0,
        "scale_logits": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.46.3",
        "use_cache": False,
        "vocab_size": rows,
        "weight_tying": False,
    }


def backbone_tensors(
    rows: int, *, width: int = 32, hidden: int = 64, layers: int = 2, seed: int = 0
) -> dict[str, Tensor]:
    """A random transformer in bfloat16 under LLaDA's names; its logits spread enough that samplers have a choice."""
    draw = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {"wte": (rows, width), "ff_out": (rows, width), "ln_f": (width,)}
    for block in (f"blocks.{index}" for index in range(layers)):
        shapes |= {f"{block}.{name}": (width, width) for name in ("q_proj", "k_proj", "v_proj", "attn_out")}
        shapes |= {f"{block}.{name}": (hidden, width) for name in ("ff_proj", "up_proj")}
        shapes |= {f"{block}.ff_out": (width, hidden)}
        shapes |= {f"{block}.{name}": (width,) for name in ("attn_norm", "ff_norm")}
    return {
        f"model.transformer.{name}.weight": _random(name, shape, draw, gain=2.0).bfloat16()
        for name, shape in shapes.items()
    }


def write_vqvae(folder: Path, codes: int, *, seed: int = 0) -> None:
    """A random diffusers `VQModel` of few channels that maps 16x16 pixels to one code."""
    widths, latent, blocks = (4, 4, 4, 4, 8), 4, 1
    stages = len(widths)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "_class_name": "VQModel",
        "_diffusers_version": "0.30.0",
        "act_fn": "silu",
        "block_out_channels": list(widths),
        "down_block_types": ["DownEncoderBlock2D"] * stages,
        "force_upcast": True,
        "in_channels": 3,
        "latent_channels": latent,
        "layers_per_block": blocks,
        "lookup_from_codebook": True,
        "mid_block_add_attention": False,
        "norm_num_groups": 2,
        "norm_type": "group",
        "num_vq_embeddings": codes,
        "out_channels": 3,
        "sample_size": 32,
        "scaling_factor": 0.18215,
        "up_block_types": ["UpDecoderBlock2D"] * stages,
        "vq_embed_dim": None,
    }
    write_json(folder / "config.json", settings)
    shapes: dict[str, tuple[int, ...]] = {
        **_convolution("quant_conv", latent, latent, 1),
        **_convolution("post_quant_conv", latent, latent, 1),
        "quantize.embedding.weight": (codes, latent),
        **_half("encoder", "down_blocks", "downsamplers", (3, *widths, latent), blocks),
        **_half("decoder", "up_blocks", "upsamplers", (latent, *reversed(widths), 3), blocks + 1),
    }
    draw = torch.Generator().manual_seed(seed)
    tensors = {name: _random(name, shape, draw) for name, shape in shapes.items()}
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})


def _half(side: str, blocks: str, resampler: str, widths: tuple[int, ...], depth: int) -> dict[str, tuple[int, ...]]:
    """Shapes of an encoder or decoder: widths from the first channels in, over the stages, to the last channels out."""
    first, *stages, last = widths
    middle = stages[-1] if side == "encoder" else stages[0]
    shapes = {**_convolution(f"{side}.conv_in", first, stages[0], 3), **_norm(f"{side}.conv_norm_out", stages[-1])}
    shapes |= _convolution(f"{side}.conv_out", stages[-1], last, 3)
    for index in range(2):
        shapes |= _residual(f"{side}.mid_block.resnets.{index}", middle, middle)
    before = stages[0]
    for stage, width in enumerate(stages):
        for index in range(depth):
            shapes |= _residual(f"{side}.{blocks}.{stage}.resnets.{index}", before, width)
            before = width
        if stage < len(stages) - 1:
            shapes |= _convolution(f"{side}.{blocks}.{stage}.{resampler}.0.conv", width, width, 3)
    return shapes


def _residual(name: str, inner: int, outer: int) -> dict[str, tuple[int, ...]]:
    shapes = {**_norm(f"{name}.norm1", inner), **_convolution(f"{name}.conv1", inner, outer, 3)}
    shapes |= {**_norm(f"{name}.norm2", outer), **_convolution(f"{name}.conv2", outer, outer, 3)}
    return shapes | ({} if inner == outer else _convolution(f"{name}.conv_shortcut", inner, outer, 1))


def _convolution(name: str, inner: int, outer: int, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outer, inner, size, size), f"{name}.bias": (outer,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _random(name: str, shape: tuple[int, ...], draw: torch.Generator, gain: float = 1.0) -> Tensor:
    """Matrices scaled by their inputs, the weights of norms around one, biases around zero."""
    values = torch.randn(shape, generator=draw)
    if len(shape) > 1:
        return gain * values / values[0].numel() ** 0.5
    return 0.1 * values + (0.0 if name.endswith("bias") else 1.0)
