from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_recipes import Tiny, cut

from dimoo.tokenizers.image.build import build_image_tokenizer
from dimoo.tokenizers.image.config import ImageTokenizerConfig, PatchNetworkConfig, VectorQuantizerConfig
from dimoo.tokenizers.image.files import save_image_tokenizer


@pytest.fixture(scope="session")
def image_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained image tokenizer of 32 codes."""
    folder = tmp_path_factory.mktemp("image_tokenizer")
    config = ImageTokenizerConfig(
        network=PatchNetworkConfig(patch=8, width=8, encoder_blocks=1, decoder_blocks=1),
        quantizer=VectorQuantizerConfig(size=32, dim=4),
    )
    save_image_tokenizer(build_image_tokenizer(config, torch.Generator().manual_seed(0)), folder)
    return folder


@pytest.fixture
def tiny(tmp_path: Path, image_tokenizer: Path) -> Tiny:
    """tiny(name, *changes): a recipe at toy size that writes into the test's folder."""
    return lambda name, *changes: cut(name, tmp_path / "runs", image_tokenizer, *changes)
