"""A first phase of training in which only the rows of new ids move: the network that knows the old ones stays."""

from __future__ import annotations

import torch
from torch.distributed.tensor import DTensor, distribute_tensor

from dimoo.backbone.model import Backbone


@torch.no_grad()
def keep_new_rows(model: Backbone, first: int) -> None:
    """Drop all gradients but those of the embedding and head rows from id `first` on, in place; they may be sharded.

    The optimiser does not touch what has no gradient. Old rows of the tables have a gradient of 0, which leaves AdamW's
    moments of them at 0; its weight decay is to be 0 at the same time, or they would shrink.
    """
    tables = (model.embedding.weight, model.unembedding.weight)
    for parameter in model.parameters():
        if not any(parameter is table for table in tables):
            parameter.grad = None
    for table in tables:
        gradient = table.grad
        if gradient is None:
            continue
        new = (torch.arange(model.vocab_size, device=gradient.device) >= first)[:, None].to(gradient.dtype)
        if isinstance(gradient, DTensor):
            new = distribute_tensor(new, gradient.device_mesh, gradient.placements)
        gradient.mul_(new)
