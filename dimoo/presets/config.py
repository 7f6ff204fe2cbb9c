"""How requests are sampled, and what a checkpoint's config.json holds. Free of torch."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from dimoo.backbone.config import BackboneConfig
from dimoo.cache.config import CacheConfig, NoCacheConfig
from dimoo.core.config import StrictConfig
from dimoo.diffusion.config import (
    CategoricalConfig,
    ConfidenceConfig,
    ConstantRampConfig,
    DrawConfig,
    GreedyConfig,
    GumbelConfidenceConfig,
    ProbabilityConfig,
    RampConfig,
)
from dimoo.diffusion.order_config import (
    EarlyStopConfig,
    EqualSharesConfig,
    MaskGITOrderConfig,
    NoEarlyStopConfig,
    NoRemaskingConfig,
    OrderConfig,
    RemaskingConfig,
    TextOrderConfig,
    TextRemaskingConfig,
)
from dimoo.presets.tasks import STANDARD, TaskText
from dimoo.tokenizers.template import ChatTemplate, PromptTemplate
from dimoo.tokenizers.vocabulary import Vocabulary

Side = Annotated[int, Field(ge=1, le=2**14)]
"""Of a picture, in pixels."""
Share = Annotated[float, Field(ge=0, le=1)]
"""Of a whole."""
CONDITION_NAME = re.compile("unconditional|no_text|no_image(_[1-9][0-9]*)?")
"""The branches that leave a condition out; see `dimoo.tasks.problems.without`."""
Scale = Annotated[float, Field(ge=0, le=1e6)]
"""Of guidance."""


class ImageSettings(StrictConfig):
    """Sampling of image tokens (SPEC section 4)."""

    steps: int = Field(default=16, ge=1)
    """At most; an order may need fewer, and a remasking add rounds."""
    guidance: Scale = 2.0
    """g in (1 + g) cond - g uncond, for prompts of words alone; 0 switches guidance off and halves the cost."""
    conditions: dict[str, Scale] = Field(default={"no_text": 2.5, "no_image": 4.0})
    """g_i in cond + sum_i g_i (cond - without_i), for prompts with pictures, by the branch that leaves i out:
    "unconditional" (everything), "no_text", "no_image", "no_image_2" (the second of several). A branch of scale 0, or
    that is not named, is not computed. Prompts of words alone leave all of this unused and take `guidance`."""
    guidance_interval: tuple[Share, Share] = (0.0, 1.0)
    """Guide in the steps s of S with start <= s / S < stop, of which there must be one; the others compute the
    condition alone."""
    guidance_schedule: RampConfig = ConstantRampConfig()
    """Factor of all scales over the steps."""
    guidance_renormalisation: Share = 0.0
    """How far the spread of the guided logits is drawn back to the condition's; 0 not at all."""
    order: OrderConfig = MaskGITOrderConfig()
    early_stop: EarlyStopConfig = NoEarlyStopConfig()
    """When all that is left is committed at once."""
    remasking: RemaskingConfig = NoRemaskingConfig()
    """Which committed tokens are predicted again."""
    draw: DrawConfig = CategoricalConfig()
    confidence: ConfidenceConfig = GumbelConfidenceConfig(temperature=0.3)
    cache: CacheConfig = NoCacheConfig()
    """What is not computed again at every step; a request's answer of pictures and words takes one for both."""

    @field_validator("conditions")
    @classmethod
    def _leave_something_out(cls, scales: dict[str, float]) -> dict[str, float]:
        for name in scales:
            if not CONDITION_NAME.fullmatch(name):
                raise ValueError(
                    f"there is no branch {name!r} that leaves something out; name 'unconditional', 'no_text',"
                    " 'no_image', or one of several pictures, as 'no_image_2'"
                )
        return scales

    @field_validator("guidance_interval")
    @classmethod
    def _rises(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if interval[0] >= interval[1]:
            raise ValueError("start must lie before stop, as in (0.2, 0.8); without guidance set its scales to 0")
        return interval


class TextSettings(StrictConfig):
    """Sampling of text tokens: blocks left to right, the most confident first (LLaDA)."""

    steps_per_token: float = Field(default=1.0, gt=0, le=1)
    """Forward passes per answer token: 1 commits one token a step, 0.5 two. With orders other than "equal_shares" at
    most so many."""
    block: int | None = Field(default=None, ge=1)
    """Tokens per block; null: the whole answer is one block."""
    order: TextOrderConfig = EqualSharesConfig()
    early_stop: EarlyStopConfig = NoEarlyStopConfig()
    """When all that is left of a block is committed at once."""
    remasking: TextRemaskingConfig = NoRemaskingConfig()
    """Which committed tokens are predicted again."""
    draw: DrawConfig = GreedyConfig()
    confidence: ConfidenceConfig = ProbabilityConfig()
    cache: CacheConfig = NoCacheConfig()
    """What is not computed again at every step."""


class ModelConfig(StrictConfig):
    """Everything about a checkpoint but its weights."""

    format: Literal["dimoo-1"] = "dimoo-1"
    name: str
    backbone: BackboneConfig
    vocabulary: Vocabulary
    template: PromptTemplate
    tasks: dict[str, TaskText] = STANDARD
    """What can be asked of the model, and how it is said to it."""
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
    """Pictures that are given are scaled and cropped to the best bucket of about this many pixels squared: (a single
    one that is asked about, all others). Null: they are taken as they are, and must lie on the tokenizer's grid."""
    answer_tokens: int = Field(default=8, ge=2, le=2**20)
    """Tokens planned for an answer where a request names no number."""
    caption_tokens: int = Field(default=24, ge=2, le=2**20)
    """Tokens planned for a caption, or for words that come with a picture or without one to look at."""
    max_tokens: int | None = Field(default=None, ge=1)
    """What a request and its answer may take together, in tokens, in the longest of its branches. Null: no bound."""
