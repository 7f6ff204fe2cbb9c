"""Which model it is, in 32 hexadecimal digits, found in milliseconds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from torch import nn

from dimoo.denoise import MaskPredictor
from dimoo.presets.config import ModelConfig

SAMPLES = 1024
"""Values of each tensor that are looked at."""
_BESIDE = ("name", "text_fingerprint", "image_fingerprint")
"""Of the config: what the model is called, and what is digested by itself."""


def fingerprint(config: ModelConfig, backbone: MaskPredictor, tokenizers: Sequence[str]) -> str:
    """A digest that is the same for the same checkpoint in the same precision, on every device, and for no other.

    It takes in the config, and of each tensor in the backbone's state the name, the shape and `SAMPLES` values at most,
    evenly spread: training moves all of a tensor, so they tell without reading gigabytes. Of a predictor that is no
    torch module nothing but config and tokenizers is known.

    Args:
        config: the model's.
        backbone: its network.
        tokenizers: the fingerprints of its tokenizers.
    """
    settings = config.model_dump(mode="json", exclude=set(_BESIDE))
    del settings["backbone"]["attention"]  # how it is computed, not what
    digest = hashlib.blake2b(json.dumps([settings, *tokenizers], sort_keys=True).encode(), digest_size=16)
    state = backbone.state_dict() if isinstance(backbone, nn.Module) else {}
    for name, tensor in sorted(state.items()):
        # An odd stride walks through the columns of a matrix whose width is a power of two; an even one keeps to some.
        step = -(-tensor.numel() // SAMPLES) | 1
        digest.update(f"{name}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1)[::step].float().cpu().numpy().tobytes())
    return digest.hexdigest()
