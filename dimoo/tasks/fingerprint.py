"""Which model it is, in 32 hexadecimal digits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from dimoo.core.tensors import plain_tensors
from dimoo.denoise import MaskPredictor
from dimoo.presets.config import ModelConfig

PIECE: Final = 2**24
"""Values that are summed at once, for memory."""
_BITS: Final = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Whole numbers by their bytes."""
_BESIDE: Final = ("name", "text_fingerprint", "image_fingerprint", "image", "text")
"""Of the config: what the model is called, what is digested by itself, and how it samples, which records name."""


def fingerprint(config: ModelConfig, backbone: MaskPredictor, tokenizers: Sequence[str]) -> str:
    """A digest that is the same for the same checkpoint in the same precision, on every device.

    It takes in the config, and of each tensor in the backbone's state the name, the dtype, the shape and `sums`, for
    which every weight is read: one that changes is seen, and that many change and leave both sums as they were is as
    good as impossible, unless someone sets out for it. A quantised tensor counts as the tensors that it is kept in. Of
    a predictor that is no torch module nothing but config and tokenizers is known.

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
        for part, kept in plain_tensors(tensor, name):
            digest.update(f"{part}:{kept.dtype}:{tuple(kept.shape)}:{sums(kept)}".encode())
    return digest.hexdigest()


def sums(tensor: Tensor) -> tuple[int, int]:
    """Of a tensor's values b_i, i = 0, 1 ..., read as whole numbers by their bits: sum b_i and sum (2i + 1) b_i,
    modulo 2**64.

    Sums of whole numbers come out the same in any order, as on any device, which those of fractions do not. The
    first changes with any single value, the second also where values change places.
    """
    bits = tensor.detach().contiguous().view(-1).view(_BITS[tensor.element_size()])
    odd = 2 * torch.arange(min(PIECE, len(bits)), device=bits.device) + 1
    plain, weighted = torch.zeros(2, dtype=torch.int64, device=bits.device)
    for index, piece in enumerate(torch.split(bits, PIECE)):
        whole = piece.long()
        total = whole.sum()
        plain = plain + total
        weighted = weighted + (odd[: len(whole)] * whole).sum() + 2 * PIECE * index * total
    return int(plain), int(weighted)
