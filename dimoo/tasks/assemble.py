"""A checkpoint folder <-> a Dimoo.

config.json          architecture, vocabulary, prompt template, sampling defaults (`ModelConfig`)
model.safetensors    backbone weights
tokenizer.json       text tokenizer
image_tokenizer/     config.json and model.safetensors of the image tokenizer
README.md            the model card
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file

from dimoo.backbone.build import build_backbone
from dimoo.backbone.model import Backbone
from dimoo.core.errors import CheckpointError, ConfigError
from dimoo.core.tensors import load_exact, read_tensors
from dimoo.presets.config import ModelConfig
from dimoo.tasks.model import Dimoo
from dimoo.tokenizers.base import Tokenizer
from dimoo.tokenizers.image.files import load_image_tokenizer, save_image_tokenizer
from dimoo.tokenizers.image.tokenizer import ImageTokenizer
from dimoo.tokenizers.text import TextTokenizer

MINI = Path(__file__).parents[1] / "assets" / "mini"
CONFIG, WEIGHTS, TEXT, IMAGE = "config.json", "model.safetensors", "tokenizer.json", "image_tokenizer"
CARD = "README.md"


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
    own = image_tokenizer.codebook_size * image_tokenizer.codebooks
    if codes != own:
        raise CheckpointError(f"the image tokenizer in {folder / IMAGE} has {own} codes, the vocabulary {codes}")
    try:
        _check_fingerprints(config, text_tokenizer, image_tokenizer)
    except CheckpointError as error:
        raise CheckpointError(f"the files in {folder} do not belong together: {error}") from error
    with torch.device("meta"):
        backbone = build_backbone(config.backbone)
    # Cast while it has no storage: the weights never exist in fp32 if another dtype is asked for.
    backbone.to(dtype).to_empty(device=device)
    load_exact(backbone, read_tensors(folder / WEIGHTS))
    return Dimoo(config, backbone=backbone, text_tokenizer=text_tokenizer, image_tokenizer=image_tokenizer)


def save(model: Dimoo, folder: Path, *, dtype: torch.dtype = torch.bfloat16, card: str = "") -> None:
    """Write a checkpoint folder that `load` reads; weights are stored in `dtype`.

    An older checkpoint in the folder is replaced at the end, as a whole; what else lies in it stays.

    Raises:
        CheckpointError: the model's parts are of types that cannot be saved or are not those that its config names, or
            the folder holds something other than a checkpoint.
    """
    tokenizer = model.kit.image_tokenizer
    if not isinstance(tokenizer, ImageTokenizer):
        raise CheckpointError(f"do not know how to save an image tokenizer of type {type(tokenizer).__name__}")
    if not isinstance(model.backbone, Backbone):
        raise CheckpointError(f"do not know how to save a backbone of type {type(model.backbone).__name__}")
    _check_fingerprints(model.config, model.prompts.text, tokenizer)
    if folder.exists() and not (folder / CONFIG).is_file() and any(folder.iterdir()):
        raise CheckpointError(f"{folder} holds other files than a checkpoint; give an empty or a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        new.mkdir()
        model.config.save(new / CONFIG)
        tensors = {
            name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in model.backbone.state_dict().items()
        }
        save_file(tensors, new / WEIGHTS)
        model.prompts.text.save(new / TEXT)
        save_image_tokenizer(tokenizer, new / IMAGE)
        if card:
            (new / CARD).write_text(card, encoding="utf-8")
        _replace(folder, new, old)


def with_fingerprints(config: ModelConfig, text: TextTokenizer, image: Tokenizer) -> ModelConfig:
    """The config of a model that is trained with these tokenizers: `load` will refuse others."""
    return config.model_copy(update={"text_fingerprint": text.fingerprint, "image_fingerprint": image.fingerprint})


def _check_fingerprints(config: ModelConfig, text: TextTokenizer, image: Tokenizer) -> None:
    for what, wanted, tokenizer in (
        ("text", config.text_fingerprint, text),
        ("image", config.image_fingerprint, image),
    ):
        if wanted is not None and wanted != tokenizer.fingerprint:
            raise CheckpointError(
                f"the {what} tokenizer has the fingerprint {tokenizer.fingerprint}, the model was trained with"
                f" {wanted}; take the tokenizer that it was trained with"
            )


def _replace(folder: Path, new: Path, old: Path) -> None:
    """Put `new` in the place of `folder`, whose foreign files it takes over; the former folder ends up as `old`."""
    if not folder.exists():
        new.rename(folder)
        return
    for entry in folder.iterdir():
        if entry.name not in (CONFIG, WEIGHTS, TEXT, IMAGE, CARD):
            (shutil.copytree if entry.is_dir() else shutil.copy2)(entry, new / entry.name)
    folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
