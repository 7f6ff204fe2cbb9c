"""How requests are sampled, and what a checkpoint's config.json holds. Free of torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dimoo.backbone.config import BackboneConfig
from dimoo.core.config import StrictConfig
from dimoo.diffusion.config import (
    CategoricalConfig,
    ConfidenceConfig,
    DrawConfig,
    GreedyConfig,
    GumbelConfidenceConfig,
    MaskGITOrderConfig,
    OrderConfig,
    ProbabilityConfig,
)
from dimoo.tokenizers.template import ChatTemplate, PromptTemplate
from dimoo.tokenizers.vocabulary import Vocabulary

Side = Annotated[int, Field(ge=1, le=2**14)]
"""Of a picture, in pixels."""


class ImageSettings(StrictConfig):
    """Sampling of image tokens (SPEC section 4)."""

    steps: int = Field(default=16, ge=1)
    guidance: float = Field(default=2.0, ge=0)
    """g in (1 + g) cond - g uncond; 0 switches guidance off and halves the cost."""
    order: OrderConfig = MaskGITOrderConfig()
    draw: DrawConfig = CategoricalConfig()
    confidence: ConfidenceConfig = GumbelConfidenceConfig(temperature=0.3)


class TextSettings(StrictConfig):
    """Sampling of text tokens: blocks left to right, the most confident first (LLaDA)."""

    steps_per_token: float = Field(default=1.0, gt=0, le=1)
    """Forward passes per answer token: 1 commits one token a step, 0.5 two."""
    block: int | None = Field(default=None, ge=1)
    """Tokens per block; null: the whole answer is one block."""
    draw: DrawConfig = GreedyConfig()
    confidence: ConfidenceConfig = ProbabilityConfig()


class ModelConfig(StrictConfig):
    """Everything about a checkpoint but its weights."""

    format: Literal["dimoo-1"] = "dimoo-1"
    name: str
    backbone: BackboneConfig
    vocabulary: Vocabulary
    template: PromptTemplate
    chat: ChatTemplate | None = None
    """Of a language model that can converse; null: it cannot."""
    text_fingerprint: str | None = None
    """Of the text tokenizer that the backbone was trained with; null where it is not known."""
    image_fingerprint: str | None = None
    """Of the image tokenizer."""
    image: ImageSettings = ImageSettings()
    """Defaults for image answers."""
    text: TextSettings = TextSettings()
    """Defaults for text answers."""
    image_size: tuple[Side, Side] = (64, 64)
    """(height, width) in pixels where a request names none."""
    input_targets: tuple[Side, Side] | None = None
    """Pictures that are asked about are scaled and cropped to the best bucket of about this many pixels squared: (one
    picture, several of them). Null: they are taken as they are, and must lie on the tokenizer's grid."""
    answer_tokens: int = Field(default=8, ge=2, le=2**20)
    """Tokens planned for an answer where a request names no number."""
    caption_tokens: int = Field(default=24, ge=2, le=2**20)
    """Tokens planned for a caption."""
