"""A checkpoint folder of a few kilobytes with random weights: what a model is, without what it has learnt."""

from __future__ import annotations

from pathlib import Path

from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.init import initialise
from dimoo.core.rng import generator
from dimoo.presets.config import ImageSettings, ModelConfig
from dimoo.tasks.model import Dimoo
from dimoo.tasks.problems import TEXT_TO_IMAGE, UNDERSTANDING
from dimoo.tokenizers.image.build import build_image_tokenizer
from dimoo.tokenizers.image.config import (
    FiniteScalarQuantizerConfig,
    ImageTokenizerConfig,
    PatchNetworkConfig,
)
from dimoo.tokenizers.template import PromptTemplate
from dimoo.tokenizers.text import SPECIAL_TOKENS, train_bpe
from dimoo.tokenizers.vocabulary import Vocabulary


def tiny_model() -> Dimoo:
    """One layer, 16 image codes of 8x8 pixels, byte-level text; 16x16 pictures in 4 steps by default."""
    text = train_bpe(["draw answer describe the picture"], size=300)
    image = build_image_tokenizer(
        ImageTokenizerConfig(
            network=PatchNetworkConfig(patch=8, width=16, encoder_blocks=0, decoder_blocks=0),
            quantizer=FiniteScalarQuantizerConfig(levels=(4, 4)),
        ),
        generator(0, "tiny", "tokenizer"),
    )
    ids = {name: text.id_of(token) for name, token in SPECIAL_TOKENS.items()}
    opening, closing = ids.pop("image_start"), ids.pop("image_end")
    vocabulary = Vocabulary(text_size=text.size, **ids).with_modality(
        image.modality, image.codebook_size, opening=opening, closing=closing
    )
    backbone = BackboneConfig(d_model=16, layers=1, heads=2, kv_heads=2, mlp_hidden=32, vocab_size=vocabulary.size)
    config = ModelConfig(
        name="tiny",
        backbone=backbone,
        vocabulary=vocabulary,
        template=PromptTemplate(systems={TEXT_TO_IMAGE: "draw", UNDERSTANDING: "answer"}, max_prompt_tokens=128),
        image=ImageSettings(steps=4),
        image_size=(16, 16),
    )
    return Dimoo(
        config,
        backbone=initialise(build_backbone(backbone), generator(0, "tiny", "backbone")),
        text_tokenizer=text,
        image_tokenizer=image,
    )


def save_tiny(folder: Path) -> Path:
    """Write the tiny model; returns its folder."""
    return tiny_model().save(folder)
