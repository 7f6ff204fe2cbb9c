"""A first phase of training in which only the rows of new ids move: the network that knows the old ones stays."""

from __future__ import annotations

import torch
from torch.distributed.tensor import DTensor, distribute_tensor

from dimoo.backbone.model import Backbone


@torch.no_grad()
def keep_new_rows(model: Backbone, first: int) -> None:
    """Zero all gradients but those of the embedding and head rows from id `first` on, in place; they may be sharded.

    With a gradient of 0 from the first step on AdamW's moments stay 0, and so does its step; its weight decay is to be
    0 at the same time. The gradients are there, so that every weight has moments, which sharded checkpoints ask for.
    """
    tables = (model.embedding.weight, model.unembedding.weight)
    for parameter in model.parameters():
        gradient = parameter.grad
        if gradient is None:
            continue
        if not any(parameter is table for table in tables):
            gradient.zero_()
            continue
        new = (torch.arange(model.vocab_size, device=gradient.device) >= first)[:, None].to(gradient.dtype)
        if isinstance(gradient, DTensor):
            new = distribute_tensor(new, gradient.device_mesh, gradient.placements)
        gradient.mul_(new)
