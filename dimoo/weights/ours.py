"""dimoo's own layout.

config.json          architecture, vocabulary, prompt template, sampling defaults (`ModelConfig`)
model.safetensors    backbone weights, under our names; in shards with an index where they are large
tokenizer.json       text tokenizer
image_tokenizer/     config.json and model.safetensors of the image tokenizer; absent in a text-only model
README.md            the model card
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.model import Backbone
from dimoo.core.config import parse
from dimoo.core.errors import CheckpointError, ConfigError
from dimoo.presets.config import ModelConfig
from dimoo.tokenizers.image.files import load_image_tokenizer, save_image_tokenizer
from dimoo.tokenizers.text import TextTokenizer
from dimoo.weights.layout import CONFIG, TEXT, Parts, fits_rows
from dimoo.weights.rules import Rename

IMAGE = "image_tokenizer"


@dataclass(frozen=True, kw_only=True)
class DimooLayout:
    """The layout that holds everything about a model; see the module's head."""

    name: str = "dimoo"

    def fits(self, settings: Mapping[str, Any]) -> bool:
        """See `Layout`."""
        return str(settings.get("format")).startswith("dimoo")

    def backbone(self, settings: Mapping[str, Any]) -> BackboneConfig:
        """See `Layout`."""
        return _config(settings).backbone

    def read(self, folder: Path, settings: Mapping[str, Any]) -> Parts:
        """See `Layout`."""
        config = _config(settings)
        text = TextTokenizer.load(folder / TEXT)
        wanted = bool(config.vocabulary.modalities) or (folder / IMAGE).exists()
        return Parts(config=config, text=text, image=load_image_tokenizer(folder / IMAGE) if wanted else None)

    def write(self, parts: Parts, folder: Path, like: Path | None = None) -> None:
        """See `Layout`."""
        del like  # config.json holds nothing that we do not read
        parts.config.save(folder / CONFIG)
        parts.text.save(folder / TEXT)
        if parts.image is not None:
            save_image_tokenizer(parts.image, folder / IMAGE)

    def rules(self, model: Backbone) -> Sequence[Rename]:
        """See `Layout`: every tensor keeps its name."""
        return tuple(Rename(name, name) for name in model.state_dict())


def _config(settings: Mapping[str, Any]) -> ModelConfig:
    try:
        config = parse(ModelConfig, settings)
    except ConfigError as error:
        raise CheckpointError(f"its config.json is not valid: {error}") from error
    if not fits_rows(config.vocabulary.size, config.backbone.vocab_size):
        raise CheckpointError(
            f"its vocabulary has {config.vocabulary.size} ids, the backbone {config.backbone.vocab_size};"
            " they must agree"
        )
    return config
