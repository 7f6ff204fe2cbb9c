"""The optimiser and learning-rate schedule that every recipe uses."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from recipes.config import OptimizerConfig
from recipes.learning.averaging import AveragedAdamW


def adamw(modules: Iterable[nn.Module], config: OptimizerConfig, *, average: float = 0.0) -> torch.optim.AdamW:
    """AdamW over all parameters that are trained; vectors (norm scales, biases) are not decayed.

    Args:
        modules: what is trained.
        config: how.
        average: decay of the moving averages of the weights; 0: there are none.
    """
    parameters = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    if average:
        return AveragedAdamW(groups, decay=average, lr=config.lr, betas=config.betas, fused=True)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


def rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Factor on the learning rate at a 0-based step: linear warm-up, constant, linear decay to 0.1."""
    warmup = min(1.0, (step + 1) / (config.warmup_steps + 1))
    decay_steps = config.decay_share * steps
    left = steps - step
    decay = 1.0 if left >= decay_steps else 0.1 + 0.9 * left / decay_steps
    return warmup * decay
