"""What a Dimoo has to be for a checkpoint of it to be written."""

from __future__ import annotations

from dimoo.backbone.model import Backbone
from dimoo.core.errors import CheckpointError
from dimoo.denoise import MaskPredictor
from dimoo.presets.config import ModelConfig
from dimoo.tokenizers.base import Tokenizer
from dimoo.tokenizers.image.tokenizer import ImageTokenizer
from dimoo.tokenizers.text import TextTokenizer
from dimoo.weights.layout import Parts


def savable(
    config: ModelConfig, backbone: MaskPredictor, text: TextTokenizer, image: Tokenizer | None
) -> tuple[Parts, Backbone]:
    """A model's parts and its backbone, if they are of our own types.

    Raises:
        CheckpointError: the backbone or the image tokenizer is a user's own, whose format is not known.
    """
    if not isinstance(image, ImageTokenizer | None):
        raise CheckpointError(f"do not know how to save an image tokenizer of type {type(image).__name__}")
    if not isinstance(backbone, Backbone):
        raise CheckpointError(f"do not know how to save a backbone of type {type(backbone).__name__}")
    return Parts(config=config, text=text, image=image), backbone
