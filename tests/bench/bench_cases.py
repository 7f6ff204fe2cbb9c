"""A tiny shape for the benchmark's tests."""

import torch

from dimoo.backbone.config import BackboneConfig
from dimoo.bench.shapes import RandomModel, Shape

TINY = Shape(
    backbone=BackboneConfig(
        d_model=32, layers=2, heads=2, kv_heads=2, mlp_hidden=48, vocab_size=96, rope_theta=10_000.0
    ),
    codes=32,
    grid=(4, 6),
    prompt=7,
    short=3,
    image_steps=8,
    guidance=1.5,
    text_tokens=16,
    text_steps=8,
    block=8,
)


def tiny(seed=0):
    model = RandomModel.of(TINY, dtype=torch.float32, device=torch.device("cpu"), seed=seed)
    with torch.no_grad():  # predictions that differ from place to place
        for parameter in model.network.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6)
    return model
