"""Fresh weights from an explicit generator."""

from __future__ import annotations

import math

import torch
from torch import nn

from dimoo.tokenizers.image.patch import PatchAutoencoder
from dimoo.tokenizers.image.vector_quantizer import VectorQuantizer


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every convolution from U(-b, b), b = sqrt(3 / fan_in) (variance 1/fan_in), biases 0.

    Gains of normalisations are left at 1, codebooks draw their own, a patch network then starts linear. The
    result depends on the generator and the architecture only.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            bound = math.sqrt(3 / part.weight[0].numel())
            part.weight.uniform_(-bound, bound, generator=generator)
            if part.bias is not None:
                part.bias.zero_()
        elif isinstance(part, VectorQuantizer):
            part.reset(generator)
    for part in module.modules():
        if isinstance(part, PatchAutoencoder):
            part.start_linear(generator)
