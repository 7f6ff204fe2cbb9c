"""Image tokenizers on disk: a folder with `config.json` and `model.safetensors`."""

from __future__ import annotations

from pathlib import Path

from dimoo.core.errors import CheckpointError, ConfigError
from dimoo.core.files import write_tensors
from dimoo.core.tensors import load_exact, read_tensors
from dimoo.tokenizers.image.build import empty_image_tokenizer
from dimoo.tokenizers.image.config import ImageTokenizerConfig
from dimoo.tokenizers.image.tokenizer import ImageTokenizer

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def save_image_tokenizer(tokenizer: ImageTokenizer, folder: Path) -> None:
    """Write config and weights, in their present precision, into `folder` (made where it is absent).

    The statistics of a codebook's training are left out; a training run keeps them in its checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tokenizer.weights().items()}
    write_tensors(folder / WEIGHTS_FILE, tensors)
    tokenizer.config.save(folder / CONFIG_FILE)


def load_image_tokenizer(folder: Path) -> ImageTokenizer:
    """Read what `save_image_tokenizer` wrote; weights of any float type become fp32.

    Statistics of training, which older files hold, are not read: should it be trained further, they start anew.

    Raises:
        CheckpointError: a file is missing or corrupt, or the weights do not fit the config exactly.
    """
    try:
        tokenizer = empty_image_tokenizer(ImageTokenizerConfig.load(folder / CONFIG_FILE))
    except ConfigError as error:
        raise CheckpointError(f"no image tokenizer in {folder}: {error}") from error
    tensors, wanted = read_tensors(folder / WEIGHTS_FILE), tokenizer.weights()
    statistics = {name: tensor for name, tensor in tokenizer.state_dict().items() if name not in wanted}
    try:
        load_exact(tokenizer, {**tensors, **statistics})
    except CheckpointError as error:
        raise CheckpointError(f"{folder / WEIGHTS_FILE} does not fit its {CONFIG_FILE}: {error}") from error
    tokenizer.quantizer.restart_statistics()
    return tokenizer.eval()
