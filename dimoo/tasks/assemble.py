"""A checkpoint folder <-> a Dimoo.

config.json          architecture, vocabulary, prompt template, sampling defaults (`ModelConfig`)
model.safetensors    backbone weights
tokenizer.json       text tokenizer
image_tokenizer/     config.json and model.safetensors of the image tokenizer
README.md            the model card
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dimoo.backbone.build import build_backbone
from dimoo.core.errors import CheckpointError, ConfigError
from dimoo.tasks.config import ModelConfig
from dimoo.tasks.model import Dimoo
from dimoo.tokenizers.image.files import load_image_tokenizer, save_image_tokenizer
from dimoo.tokenizers.image.tokenizer import ImageTokenizer
from dimoo.tokenizers.text import TextTokenizer
from dimoo.weights.rules import load_exact

MINI = Path(__file__).parents[1] / "assets" / "mini"
CONFIG, WEIGHTS, TEXT, IMAGE = "config.json", "model.safetensors", "tokenizer.json", "image_tokenizer"


def resolve(path: str | Path) -> Path:
    """A checkpoint folder by its path; "mini" is the bundled one.

    Raises:
        CheckpointError: there is no such folder.
    """
    folder = MINI if str(path) == "mini" else Path(path)
    if not folder.is_dir():
        raise CheckpointError(f'no checkpoint folder at {str(path)!r}; give a folder, or "mini" for the bundled model')
    return folder


def load(path: str | Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Dimoo:
    """Load a model.

    Args:
        path: a checkpoint folder, or "mini" for the bundled model.
        dtype: of the backbone's weights; the image tokenizer stays in float32.
        device: where to compute.

    Raises:
        CheckpointError: a file is missing, corrupt, or does not fit the others.
    """
    folder = resolve(path)
    try:
        config = ModelConfig.load(folder / CONFIG)
    except ConfigError as error:
        raise CheckpointError(f"{folder} is not a dimoo checkpoint: {error}") from error
    if config.vocabulary.size != config.backbone.vocab_size:
        raise CheckpointError(
            f"the vocabulary in {folder / CONFIG} has {config.vocabulary.size} ids, the backbone"
            f" {config.backbone.vocab_size}; they must agree"
        )
    text_tokenizer = TextTokenizer.load(folder / TEXT)
    if text_tokenizer.size > config.vocabulary.text_size:
        raise CheckpointError(
            f"the text tokenizer in {folder / TEXT} has {text_tokenizer.size} ids, the vocabulary room for"
            f" {config.vocabulary.text_size}"
        )
    image_tokenizer = load_image_tokenizer(folder / IMAGE).to(device).eval()
    codes = {entry.name: entry.size for entry in config.vocabulary.modalities}.get(image_tokenizer.modality, 0)
    if codes != image_tokenizer.codebook_size:
        raise CheckpointError(
            f"the image tokenizer in {folder / IMAGE} has {image_tokenizer.codebook_size} codes, the vocabulary {codes}"
        )
    with torch.device("meta"):
        backbone = build_backbone(config.backbone)
    backbone.to_empty(device=device).to(dtype)
    load_exact(backbone, read_tensors(folder / WEIGHTS))
    return Dimoo(config, backbone=backbone, text_tokenizer=text_tokenizer, image_tokenizer=image_tokenizer)


def save(model: Dimoo, folder: Path, *, dtype: torch.dtype = torch.bfloat16, card: str = "") -> None:
    """Write a checkpoint folder that `load` reads; weights are stored in `dtype`."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save(folder / CONFIG)
    tensors = {
        name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in model.backbone.state_dict().items()
    }
    save_file(tensors, folder / WEIGHTS)
    model.prompts.text.save(folder / TEXT)
    tokenizer = model.kit.image_tokenizer
    if not isinstance(tokenizer, ImageTokenizer):
        raise CheckpointError(f"do not know how to save an image tokenizer of type {type(tokenizer).__name__}")
    save_image_tokenizer(tokenizer, folder / IMAGE)
    if card:
        (folder / "README.md").write_text(card, encoding="utf-8")


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file.

    Raises:
        CheckpointError: the file is missing or corrupt.
    """
    if not path.is_file():
        raise CheckpointError(f"no weights at {path}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is corrupt or no safetensors file: {error}; download or copy it again"
        ) from error
