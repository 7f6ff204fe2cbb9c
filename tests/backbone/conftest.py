from __future__ import annotations

from collections.abc import Callable

import pytest

from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.init import initialise
from dimoo.backbone.model import Backbone
from dimoo.core.rng import generator

TINY = BackboneConfig(d_model=32, layers=2, heads=4, kv_heads=2, mlp_hidden=48, vocab_size=64)


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Backbone]:
    """A tiny model with weights large enough that every part of it shows in the output."""

    def make(**changes: object) -> Backbone:
        config = BackboneConfig.model_validate(TINY.model_dump() | changes)
        model = initialise(build_backbone(config), generator(0, "model"))
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.data.mul_(10.0)
            else:
                parameter.data.add_(0.1)
        return model

    return make


@pytest.fixture(scope="session")
def model(make_model: Callable[..., Backbone]) -> Backbone:
    return make_model()
