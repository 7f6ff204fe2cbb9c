"""A random model of the smallest size, and a world that it fits."""

from __future__ import annotations

import pytest
import torch

from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.init import initialise
from dimoo.data.world import WorldConfig
from dimoo.data.world.maps import MAPS
from dimoo.presets.config import ImageSettings, ModelConfig
from dimoo.presets.families import FAMILIES
from dimoo.presets.tasks import STANDARD, TaskText
from dimoo.tasks.model import Dimoo
from dimoo.tasks.problems import TEXT_TO_IMAGE, UNDERSTANDING
from dimoo.tokenizers.image.build import build_image_tokenizer
from dimoo.tokenizers.image.config import ImageTokenizerConfig, PatchNetworkConfig, VectorQuantizerConfig
from dimoo.tokenizers.prompts import PromptTemplate
from dimoo.tokenizers.text import SPECIAL_TOKENS, TextTokenizer
from dimoo.tokenizers.vocabulary import Vocabulary
from dimoo.weights.hub import MINI
from dimoo.weights.layout import TEXT

GENERATE, ASK = STANDARD["generate"], STANDARD["ask"].model_copy(update={"images": (1, 1)})


@pytest.fixture(scope="session")
def world() -> WorldConfig:
    """Two canvases, so that the gallery shows another size; on the grid of the model's tokenizer."""
    return WorldConfig(nouns=12, canvases=((64, 64), (48, 64)), align=16)


@pytest.fixture(scope="session")
def random_model() -> Dimoo:
    """Knows nothing, by a table of two tasks; every part is real."""
    return random_of({TEXT_TO_IMAGE: "draw", UNDERSTANDING: "answer"}, {"generate": GENERATE, "ask": ASK})


@pytest.fixture(scope="session")
def willing_model() -> Dimoo:
    """Knows nothing, but has every task of the world in its table."""
    options = {kind: kind for kind in MAPS}
    maps = {"text": "{option} {words}", "options": options}
    tasks = {**STANDARD, "control": STANDARD["control"].model_copy(update=maps)}
    return random_of({family: family for family in FAMILIES}, tasks)


def random_of(systems: dict[str, str], tasks: dict[str, TaskText]) -> Dimoo:
    """A model of these system prompts and tasks."""
    text = TextTokenizer.load(MINI / TEXT)
    image = build_image_tokenizer(
        ImageTokenizerConfig(
            network=PatchNetworkConfig(patch=16, width=8, encoder_blocks=0, decoder_blocks=0),
            quantizer=VectorQuantizerConfig(size=64, dim=4),
        ),
        torch.Generator().manual_seed(0),
    ).eval()
    named = {name: text.id_of(token) for name, token in SPECIAL_TOKENS.items()}
    opening, closing = named.pop("image_start"), named.pop("image_end")
    vocabulary = Vocabulary(text_size=text.size, **named).with_modality(
        "image", image.codebook_size, opening=opening, closing=closing
    )
    shape = BackboneConfig(
        d_model=16, layers=1, heads=2, kv_heads=2, mlp_hidden=32, vocab_size=vocabulary.size, rope_theta=1e4
    )
    config = ModelConfig(
        name="random",
        backbone=shape,
        vocabulary=vocabulary,
        template=PromptTemplate(systems=systems),
        tasks=tasks,
        image=ImageSettings(steps=2),
        answer_tokens=3,
        caption_tokens=4,
    )
    backbone = initialise(build_backbone(shape), torch.Generator().manual_seed(0))
    return Dimoo(config, backbone=backbone, text_tokenizer=text, image_tokenizer=image)
