from __future__ import annotations

from pathlib import Path

import pytest

import dimoo
from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.init import initialise
from dimoo.core.rng import generator
from dimoo.presets.config import ImageSettings, ModelConfig
from dimoo.presets.families import (
    CONTROL,
    DENSE,
    EDITING,
    MULTI_VIEW,
    OTHER,
    STYLE,
    SUBJECT,
    TEXT_TO_IMAGE,
    UNDERSTANDING,
)
from dimoo.presets.tasks import STANDARD, TaskText
from dimoo.tasks.model import Dimoo
from dimoo.tokenizers.image.build import build_image_tokenizer
from dimoo.tokenizers.image.config import ImageTokenizerConfig, PatchNetworkConfig, VectorQuantizerConfig
from dimoo.tokenizers.template import PromptTemplate
from dimoo.tokenizers.text import SPECIAL_TOKENS, TextTokenizer
from dimoo.tokenizers.vocabulary import Vocabulary

CODES = 64
MAPS = {"canny": "white apple", "depth": "red apple"}
TABLE = {
    **STANDARD,
    "control": TaskText(family=CONTROL, text="{option}: {words}", options=MAPS, images=(1, 1), size="picture"),
    "predict": TaskText(family=DENSE, text="{option}", options=MAPS, images=(1, 1), size="picture"),
    "style": TaskText(family=STYLE, text="as the second", images=(2, 2), size="picture"),
    "subject": TaskText(family=SUBJECT, images=(1, 3)),
}
WORDS = Path(dimoo.__file__).parent / "assets" / "mini" / "tokenizer.json"


@pytest.fixture(scope="session")
def model() -> Dimoo:
    """Random weights, large enough that prompts, pictures and positions all show; 64 codes of 8x8 pixels."""
    text = TextTokenizer.load(WORDS)
    image = build_image_tokenizer(
        ImageTokenizerConfig(
            network=PatchNetworkConfig(patch=8, width=16, encoder_blocks=1, decoder_blocks=1),
            quantizer=VectorQuantizerConfig(size=CODES, dim=8),
        ),
        generator(0, "tasks", "tokenizer"),
    )
    ids = {name: text.id_of(token) for name, token in SPECIAL_TOKENS.items()}
    opening, closing = ids.pop("image_start"), ids.pop("image_end")
    vocabulary = Vocabulary(text_size=text.size, **ids).with_modality("image", CODES, opening=opening, closing=closing)
    shape = BackboneConfig(d_model=32, layers=2, heads=4, kv_heads=4, mlp_hidden=48, vocab_size=vocabulary.size)
    backbone = initialise(build_backbone(shape), generator(0, "tasks", "backbone"))
    for parameter in backbone.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(6.0)
    config = ModelConfig(
        name="tiny",
        backbone=shape,
        vocabulary=vocabulary,
        template=PromptTemplate(systems={TEXT_TO_IMAGE: "draw", UNDERSTANDING: "answer"}, max_prompt_tokens=64),
        image=ImageSettings(steps=4, guidance=2.0),
        image_size=(16, 24),
        answer_tokens=4,
        caption_tokens=6,
    )
    return Dimoo(config, backbone=backbone, text_tokenizer=text, image_tokenizer=image)


@pytest.fixture(scope="session")
def every(model: Dimoo) -> Dimoo:
    """The same model, as one that was taught every family of tasks, with a table that has all that an entry can say."""
    systems = {
        TEXT_TO_IMAGE: "draw",
        UNDERSTANDING: "answer",
        EDITING: "draw left",
        SUBJECT: "draw object",
        STYLE: "draw white",
        CONTROL: "draw right",
        DENSE: "draw count",
        MULTI_VIEW: "draw above",
        OTHER: "draw and answer",
    }
    template = model.config.template.model_copy(update={"systems": systems})
    config = model.config.model_copy(update={"template": template, "tasks": TABLE})
    return Dimoo(
        config,
        backbone=model.backbone,
        text_tokenizer=model.prompts.text,
        image_tokenizer=model.kit.image_tokenizer,
    )
