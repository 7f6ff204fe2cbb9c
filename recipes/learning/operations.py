"""How much a step computes, and how much devices could."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from torch import nn

from dimoo.backbone.model import Backbone
from dimoo.denoise.objective import Noisy
from recipes.config import DiffusionRecipe


def sizes(module: nn.Module) -> tuple[int, int]:
    """How many weights there are, and how many of them are trained."""
    weights = list(module.parameters())
    return sum(weight.numel() for weight in weights), sum(weight.numel() for weight in weights if weight.requires_grad)


def operations(recipe: DiffusionRecipe, backbone: Backbone, noisy: Sequence[Noisy]) -> dict[str, float]:
    """Multiplications and additions of a step over packs, forward and backward, by part of the network.

    Two for each weight and token forward and two backward, two more where the weight has a gradient; attention has
    n x n scores of each sequence. That nothing before the first adapter needs gradients is left out, and what is
    computed a second time to save memory is not counted.
    """
    width, layers = recipe.backbone.d_model, recipe.backbone.layers
    blocks, trained = sizes(backbone.blocks)
    tokens = sum(entry.ids.numel() for entry in noisy)
    pairs = sum(length * length for entry in noisy for length in entry.batch.lengths)
    columns = 0
    for entry in noisy:
        ranges = [
            target.columns if recipe.slice_loss else (0, recipe.backbone.vocab_size) for target in entry.batch.targets
        ]
        columns += int(torch.tensor([stop - start for start, stop in ranges])[entry.groups.group].sum())
    return {
        "blocks": (4.0 * blocks + 2.0 * trained) * tokens,
        "attention": 12.0 * width * layers * pairs,
        "head": (6.0 if backbone.unembedding.weight.requires_grad else 4.0) * width * columns,
    }


def peak_operations(device: torch.device, kind: torch.dtype, tflops: float | None) -> float | None:
    """What a device can do in a second, dense, with numbers of a kind: as is said, else as Lightning knows it.

    None where nobody knows.
    """
    if tflops is not None:
        return tflops * 1e12
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it does not know: then there is no MFU
        known = get_available_flops(device, kind)
    return None if known is None else float(known)


def peak_memory(device: torch.device) -> int | None:
    """The most bytes of this process so far: on CUDA of its tensors, elsewhere those that it had in main memory.

    None where the system does not say.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource

    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else 1024 * held
