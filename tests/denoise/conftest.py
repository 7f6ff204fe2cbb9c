from __future__ import annotations

import pytest

from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.init import initialise
from dimoo.backbone.model import Backbone
from dimoo.core.rng import generator
from dimoo.tokenizers.vocabulary import Vocabulary


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    """20 text ids, 16 image codes."""
    text = Vocabulary(
        text_size=20,
        mask=0,
        pad=1,
        end_of_text=2,
        end_of_line=3,
        unconditional=4,
        answer_start=5,
        answer_end=6,
    )
    return text.with_modality("image", 16, opening=7, closing=8)


@pytest.fixture
def backbone(vocabulary: Vocabulary) -> Backbone:
    """Tiny, its weights large enough that every token shows in every logit."""
    config = BackboneConfig(d_model=32, layers=2, heads=4, kv_heads=4, mlp_hidden=48, vocab_size=vocabulary.size)
    model = initialise(build_backbone(config), generator(0, "denoise"))
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(8.0)
    return model.eval()
