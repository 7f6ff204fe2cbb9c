"""Image tokenizers on disk: a folder with `config.json` and `model.safetensors`."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dimoo.core.errors import CheckpointError, ConfigError
from dimoo.tokenizers.image.build import build_image_tokenizer
from dimoo.tokenizers.image.config import ImageTokenizerConfig
from dimoo.tokenizers.image.tokenizer import ImageTokenizer

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def save_image_tokenizer(tokenizer: ImageTokenizer, folder: Path) -> None:
    """Write config and weights, in their present precision, into `folder` (made where it is absent)."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tokenizer.state_dict().items()}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    tokenizer.config.save(folder / CONFIG_FILE)


def load_image_tokenizer(folder: Path) -> ImageTokenizer:
    """Read what `save_image_tokenizer` wrote; weights of any float type become fp32.

    Raises:
        CheckpointError: a file is missing or corrupt, or the weights do not fit the config exactly.
    """
    try:
        config = ImageTokenizerConfig.load(folder / CONFIG_FILE)
        tensors = load_file(folder / WEIGHTS_FILE)
        # Every weight is replaced below, so this seed has no influence on the result.
        tokenizer = build_image_tokenizer(config, torch.Generator().manual_seed(0))
        tokenizer.load_state_dict(tensors)
    except ConfigError as error:
        raise CheckpointError(f"no image tokenizer in {folder}: {error}") from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {folder / WEIGHTS_FILE}: {error}") from error
    except RuntimeError as error:
        raise CheckpointError(f"{folder / WEIGHTS_FILE} does not fit its {CONFIG_FILE}: {error}") from error
    return tokenizer.eval()
