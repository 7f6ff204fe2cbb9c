"""diffusers' `VQModel` folders (aMUSEd's and Lumina-DiMOO's `vqvae`) <-> our image tokenizer, both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from dimoo.core.config import StrictConfig, parse
from dimoo.core.errors import CheckpointError, ConfigError
from dimoo.core.files import read_object, write_tensors
from dimoo.core.tensors import load_exact, read_tensors
from dimoo.tokenizers.image.build import empty_image_tokenizer
from dimoo.tokenizers.image.config import AmusedNetworkConfig, ImageTokenizerConfig, VectorQuantizerConfig
from dimoo.tokenizers.image.tokenizer import ImageTokenizer
from dimoo.weights.rules import Rename, expand, to_ours, to_theirs

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"

DownBlock = Literal["DownEncoderBlock2D"]
UpBlock = Literal["UpDecoderBlock2D"]


class DiffusersVQConfig(StrictConfig):
    """diffusers' own keys, with its defaults; values that our network does not have are refused by name."""

    act_fn: Literal["silu"] = "silu"
    block_out_channels: tuple[int, ...] = Field((64,), min_length=1)
    down_block_types: tuple[DownBlock, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[UpBlock, ...] = ("UpDecoderBlock2D",)
    in_channels: Literal[3] = 3
    out_channels: Literal[3] = 3
    latent_channels: int = 3
    layers_per_block: int = 1
    mid_block_add_attention: bool = True
    norm_num_groups: int = 32
    norm_type: Literal["group"] = "group"
    num_vq_embeddings: int = 256
    vq_embed_dim: int | None = None
    """Channels of a code; null: as many as `latent_channels`."""
    lookup_from_codebook: bool = False
    """How diffusers' own `decode` reads its argument; we always decode codes."""
    sample_size: int = 32
    """A note of the training size, without effect."""
    scaling_factor: float = 0.18215
    """For latent diffusion, without effect on codes."""
    force_upcast: bool = False
    """For latent diffusion in half precision, without effect on codes."""

    @field_validator("mid_block_add_attention")
    @classmethod
    def _no_attention(cls, value: bool) -> bool:
        if value:
            raise ValueError("attention in the middle block is not supported (diffusers' default is true)")
        return value

    @model_validator(mode="after")
    def _stages_agree(self) -> DiffusersVQConfig:
        stages = len(self.block_out_channels)
        if (len(self.down_block_types), len(self.up_block_types)) != (stages, stages):
            raise ValueError("block_out_channels, down_block_types and up_block_types differ in length")
        return self


def read_diffusers_vq(folder: Path) -> ImageTokenizer:
    """Read a diffusers `VQModel` folder; weights of any float type become fp32.

    The codebook is set to learn by gradient, should it be trained further.

    Raises:
        CheckpointError: a file is missing or corrupt, a setting is not supported, or a tensor is unknown,
            missing or of the wrong shape.
    """
    config = _to_config(_read_settings(folder / CONFIG_FILE))
    tokenizer = empty_image_tokenizer(config)
    load_exact(tokenizer, to_ours(_rules(tokenizer), read_tensors(folder / WEIGHTS_FILE)))
    return tokenizer.eval()


def is_diffusers_vq(tokenizer: ImageTokenizer) -> bool:
    """Whether diffusers has such a network and quantizer."""
    config = tokenizer.config
    return isinstance(config.network, AmusedNetworkConfig) and isinstance(config.quantizer, VectorQuantizerConfig)


def write_diffusers_vq(tokenizer: ImageTokenizer, folder: Path) -> None:
    """Write a tokenizer as a diffusers `VQModel` folder; the inverse of `read_diffusers_vq`.

    Raises:
        CheckpointError: diffusers has no such network or quantizer.
    """
    network, quantizer = _diffusers_parts(tokenizer.config)
    settings = {"_class_name": "VQModel", **_from_config(network, quantizer).model_dump(mode="json")}
    weights = {name: tensor.cpu().contiguous() for name, tensor in tokenizer.weights().items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS_FILE, to_theirs(_rules(tokenizer), weights))
    (folder / CONFIG_FILE).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _read_settings(path: Path) -> DiffusersVQConfig:
    values = read_object(path)
    name = values.pop("_class_name", None)
    if name != "VQModel":
        raise CheckpointError(f"{path} describes {name!r}, not a VQModel")
    notes = {"_diffusers_version", "_name_or_path"}
    try:
        return parse(DiffusersVQConfig, {key: value for key, value in values.items() if key not in notes})
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _to_config(theirs: DiffusersVQConfig) -> ImageTokenizerConfig:
    try:
        return ImageTokenizerConfig(
            network=AmusedNetworkConfig(
                channels=theirs.block_out_channels,
                blocks=theirs.layers_per_block,
                latent_channels=theirs.latent_channels,
                groups=theirs.norm_num_groups,
            ),
            quantizer=VectorQuantizerConfig(
                size=theirs.num_vq_embeddings,
                dim=theirs.latent_channels if theirs.vq_embed_dim is None else theirs.vq_embed_dim,
                ema_decay=None,
                revive_after=None,
            ),
        )
    except ValueError as error:
        raise CheckpointError(f"the diffusers settings are out of range: {error}") from error


def _from_config(network: AmusedNetworkConfig, quantizer: VectorQuantizerConfig) -> DiffusersVQConfig:
    down: DownBlock = "DownEncoderBlock2D"
    up: UpBlock = "UpDecoderBlock2D"
    stages = len(network.channels)
    return DiffusersVQConfig(
        block_out_channels=network.channels,
        down_block_types=(down,) * stages,
        up_block_types=(up,) * stages,
        latent_channels=network.latent_channels,
        layers_per_block=network.blocks,
        mid_block_add_attention=False,
        norm_num_groups=network.groups,
        num_vq_embeddings=quantizer.size,
        vq_embed_dim=None if quantizer.dim == network.latent_channels else quantizer.dim,
        lookup_from_codebook=True,
        force_upcast=True,
    )


def _diffusers_parts(config: ImageTokenizerConfig) -> tuple[AmusedNetworkConfig, VectorQuantizerConfig]:
    network, quantizer = config.network, config.quantizer
    if not isinstance(network, AmusedNetworkConfig) or not isinstance(quantizer, VectorQuantizerConfig):
        raise CheckpointError(
            f"a diffusers VQModel is an amused network with a vq quantizer, not {network.kind} with "
            f"{quantizer.kind}; use save_image_tokenizer for this tokenizer"
        )
    return network, quantizer


def _rules(tokenizer: ImageTokenizer) -> tuple[Rename, ...]:
    """The table for one architecture: every name is required, so a missing tensor is reported as theirs."""
    network, _ = _diffusers_parts(tokenizer.config)
    stages, blocks = len(network.channels), network.blocks
    rules = [
        *_affine("network.to_latent", "quant_conv"),
        *_affine("network.from_latent", "post_quant_conv"),
        Rename("quantizer.codebook", "quantize.embedding.weight"),
        *expand(_resampling("encoder", "down_blocks", "downsamplers"), i=stages - 1),
        *expand(_resampling("decoder", "up_blocks", "upsamplers"), i=stages - 1),
    ]
    for side, theirs, depth in (("encoder", "down_blocks", blocks), ("decoder", "up_blocks", blocks + 1)):
        ours = f"network.{side}"
        for name, their_name in (("stem", "conv_in"), ("norm", "conv_norm_out"), ("head", "conv_out")):
            rules += _affine(f"{ours}.{name}", f"{side}.{their_name}")
        middle = _block(f"{ours}.middle.{{j}}", f"{side}.mid_block.resnets.{{j}}")
        stage = _block(f"{ours}.stages.{{i}}.blocks.{{j}}", f"{side}.{theirs}.{{i}}.resnets.{{j}}")
        rules += [*expand(middle, j=2), *expand(stage, i=stages, j=depth)]
        rules += _skips(side, theirs, network.channels)
    return tuple(rules)


def _affine(ours: str, theirs: str) -> list[Rename]:
    return [Rename(f"{ours}.{part}", f"{theirs}.{part}") for part in ("weight", "bias")]


def _block(ours: str, theirs: str) -> list[Rename]:
    layers = ("norm1", "conv1", "norm2", "conv2")
    return [rule for layer in layers for rule in _affine(f"{ours}.{layer}", f"{theirs}.{layer}")]


def _resampling(side: str, stages: str, name: str) -> list[Rename]:
    return _affine(f"network.{side}.stages.{{i}}.resample.conv", f"{side}.{stages}.{{i}}.{name}.0.conv")


def _skips(side: str, theirs: str, channels: tuple[int, ...]) -> list[Rename]:
    """A stage's first block has a 1x1 convolution beside it where the width changes."""
    widths = channels if side == "encoder" else channels[::-1]
    rules: list[Rename] = []
    for stage in range(1, len(widths)):
        if widths[stage] != widths[stage - 1]:
            ours = f"network.{side}.stages.{stage}.blocks.0.skip"
            rules += _affine(ours, f"{side}.{theirs}.{stage}.resnets.0.conv_shortcut")
    return rules
