"""The trainer that is written first: a padded rectangle, and logits of every token and every id.

It is what `benchmarks.training` measures ours against, as in LLaDA's guidelines for training (arXiv 2502.09992): right
padding, an attention mask, full logits, the cross-entropy of the masked positions, AdamW as torch makes it.

Axes: B = documents, L = tokens of the longest one, N = tokens of all, d = model width, H = heads, D = head width,
V = ids.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from benchmarks.timing import Clock
from dimoo.backbone.block import Attention, Block
from dimoo.backbone.model import Backbone
from dimoo.backbone.rope import Rotation
from dimoo.denoise.objective import Noisy
from recipes.config import OptimizerConfig


@dataclass(frozen=True, kw_only=True, eq=False)
class Padded:
    """Documents as the rows of a rectangle."""

    ids: Tensor
    """int64 [B, L]: with masks, and with pads on the right."""
    clean: Tensor
    """int64 [B, L]: without masks."""
    masked: Tensor
    """bool [B, L]: the positions to be predicted."""
    real: Tensor
    """bool [B, L]: the positions that are no pads."""

    def to(self, device: torch.device) -> Padded:
        """The same on another device."""
        return Padded(
            ids=self.ids.to(device),
            clean=self.clean.to(device),
            masked=self.masked.to(device),
            real=self.real.to(device),
        )


def pad(noisy: Noisy, pad_id: int) -> Padded:
    """The documents and masks of a pack, one row each."""
    lengths = list(noisy.batch.lengths)
    masked = torch.zeros_like(noisy.ids, dtype=torch.bool)
    masked[noisy.rows] = True

    def rows(stream: Tensor, fill: int) -> Tensor:
        return pad_sequence(list(torch.split(stream, lengths)), batch_first=True, padding_value=fill)

    return Padded(
        ids=rows(noisy.ids, pad_id),
        clean=rows(noisy.batch.ids, pad_id),
        masked=rows(masked, fill=False),
        real=rows(torch.ones_like(masked), fill=False),
    )


def encode(backbone: Backbone, batch: Padded) -> Tensor:
    """Hidden states [B, L, d] with the backbone's weights; no real token attends to a pad."""
    hidden: Tensor = backbone.embedding(batch.ids)
    rotation = backbone.rope.rotation(torch.arange(batch.ids.shape[1], device=batch.ids.device))
    allowed = batch.real[:, None, None, :]
    for block in backbone.blocks:
        assert isinstance(block, Block)
        hidden = hidden + attend(block.attention, block.attention_norm(hidden), rotation, allowed)
        hidden = hidden + block.mlp(block.mlp_norm(hidden))
    normed: Tensor = backbone.norm(hidden)
    return normed


def attend(attention: Attention, x: Tensor, rotation: Rotation, allowed: Tensor) -> Tensor:
    """[B, L, d] -> [B, L, d], keys where bool [B, 1, 1, L] says so."""
    shape = (-1, attention.head_width)
    query = rotation.apply(attention.query(x).unflatten(-1, shape)).transpose(1, 2)
    key = rotation.apply(attention.key(x).unflatten(-1, shape)).transpose(1, 2)
    value = attention.value(x).unflatten(-1, shape).transpose(1, 2)
    grouped = key.shape[1] != query.shape[1]
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed, enable_gqa=grouped)
    out: Tensor = attention.output(mixed.transpose(1, 2).flatten(2))
    return out


def masked_loss(logits: Tensor, batch: Padded) -> Tensor:
    """The mean of -log p over the masked positions, of logits [B, L, V]."""
    return functional.cross_entropy(logits[batch.masked].float(), batch.clean[batch.masked])


def optimizer_of(backbone: Backbone, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW with the settings of the recipe, matrices decayed and vectors not, as torch computes it by default."""
    parameters = list(backbone.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)


def step(
    backbone: Backbone, optimizer: torch.optim.Optimizer, batch: Padded, *, clip: float, bf16: bool, clock: Clock
) -> float:
    """One optimiser step, its parts on the clock; returns the loss.

    Args:
        backbone: the model to train. optimizer: of its parameters. batch: the documents.
        clip: largest gradient norm.
        bf16: whether to autocast what is computed forward.
        clock: told when a part begins and ends; the optimizer's is told by the caller's hooks.
    """
    batch = batch.to(backbone.device)
    with torch.autocast(backbone.device.type, torch.bfloat16, enabled=bf16):
        with clock.part("forward"):
            hidden = encode(backbone, batch)
        with clock.part("head"):
            loss = masked_loss(backbone.unembedding(hidden), batch)
    with clock.part("backward"):
        torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(backbone.parameters(), clip)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()
