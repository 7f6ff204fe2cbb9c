"""First values of the weights, and room for new ids. One tensor is made at a time, and the weights may be sharded."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dimoo.backbone.block import Attention, GatedMLP, Linear
from dimoo.backbone.model import Backbone, Embedding
from dimoo.backbone.norm import RMSNorm
from dimoo.core.errors import ConfigError
from dimoo.core.sharded import fill

STD = 0.02


@torch.no_grad()
def initialise(model: Backbone, generator: torch.Generator) -> Backbone:
    """Draw all weights of a model in place, and return it.

    Matrices ~ N(0, 0.02^2); the two projections of each block that write to the residual stream are scaled
    by 1 / sqrt(2 layers), so that its variance does not grow with depth (GPT-2); norms start at 1. Values
    depend on the generator alone, not on the device of the model, nor on how many processes share it.
    """
    residual = {id(module.output) for module in model.modules() if isinstance(module, Attention | GatedMLP)}
    for module in model.modules():
        if isinstance(module, RMSNorm):
            module.weight.fill_(1.0)
        elif isinstance(module, nn.Linear | nn.Embedding):
            scale = (2 * len(model.blocks)) ** -0.5 if id(module) in residual else 1.0
            if not module.weight.is_meta:
                fill(module.weight, _normal(module.weight.shape, generator).mul_(STD * scale))
    return model


@torch.no_grad()
def place_codes(model: Backbone, start: int, vectors: Tensor, generator: torch.Generator) -> Backbone:
    """Lay out the embedding and head rows of a modality's codes as their code vectors lie, in place.

    rows = (vectors - mean) P, rescaled to std 0.02, with a random matrix P per table. Codes that mean nearly the
    same then begin nearly the same, and what is learnt about one carries over to the other.

    Args:
        model: the model to change.
        start: first id of the codes.
        vectors: one vector per code, [K, C].
        generator: source of the projections.

    Raises:
        ConfigError: the codes do not fit in the vocabulary.
    """
    stop = start + len(vectors)
    if stop > model.vocab_size:
        raise ConfigError(f"codes {start}..{stop - 1} do not fit in a vocabulary of {model.vocab_size} ids")
    centred = vectors.float() - vectors.float().mean(dim=0)
    for table in (model.embedding, model.unembedding):
        rows = centred @ _normal((centred.shape[1], model.width), generator).to(centred.device)
        fill(table.weight, rows * (STD / rows.std()), start)
    return model


@torch.no_grad()
def grow(model: Backbone, vocab_size: int, generator: torch.Generator, kept: int | None = None) -> Backbone:
    """A new model with `vocab_size` ids; the given one is untouched.

    New rows of the embedding and the head are drawn from the normal distribution of the old rows, w ~
    N(mean, var) per dimension: their logits then start in the range of the others', instead of drowning or
    being drowned.

    Args:
        model: the model to copy. vocab_size: ids afterwards, at least `kept`. generator: source of the new
        rows. kept: how many first ids to keep, all by default; the rest is drawn anew. A published model may
        have unused
            rows at its end, whose values should not serve as a start.

    Raises:
        ConfigError: fewer ids than are kept, or more kept than there are.
    """
    kept = model.vocab_size if kept is None else kept
    if not 0 < kept <= min(model.vocab_size, vocab_size):
        raise ConfigError(
            f"cannot keep {kept} of {model.vocab_size} ids in a vocabulary of {vocab_size}; "
            f"keep 1 to {min(model.vocab_size, vocab_size)}"
        )
    with torch.device("meta"):
        embedding, unembedding = Embedding(vocab_size, model.width), Linear(model.width, vocab_size)
    for old, new in ((model.embedding, embedding), (model.unembedding, unembedding)):
        rows = grown_rows(old.weight[:kept], vocab_size, generator)
        new.weight = nn.Parameter(rows, requires_grad=old.weight.requires_grad)
    # The memo makes the copy take the new tables in place of copies of the old ones.
    return copy.deepcopy(model, {id(model.embedding): embedding, id(model.unembedding): unembedding})


@torch.no_grad()
def grown_rows(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """A table [V, d] with more rows, [count, d]: the given ones, then w ~ N(mean, var) of them, per dimension."""
    if rows.is_meta:
        return rows.new_empty(count, rows.shape[1])
    variance, mean = torch.var_mean(rows.float(), dim=0, correction=0)
    fresh = _normal((count - len(rows), rows.shape[1]), generator).to(rows.device)
    return torch.cat([rows, (mean + variance.sqrt() * fresh).to(rows.dtype)])


@torch.no_grad()
def rows_with_codes(rows: Tensor, vectors: Tensor, start: int) -> Tensor:
    """A table [V, d] with rows for codes that were added to a modality, the last one: [start + K, d].

    A new code begins with the row of the old code whose vector lies nearest.

    Args:
        rows: of the embedding or the head, from `start` on those of the old codes.
        vectors: one vector per code, old ones first, [K, C].
        start: first id of the codes.

    Raises:
        ConfigError: there are not more codes than the table has.
    """
    old = len(rows) - start
    if not 0 < old < len(vectors):
        raise ConfigError(f"cannot grow {old} codes to {len(vectors)}; the codes must be the last ids, and become more")
    nearest = torch.cdist(vectors[old:].float(), vectors[:old].float()).argmin(dim=1)
    return torch.cat([rows, rows[start + nearest.to(rows.device)]])


def _normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Standard normal fp32 values on the generator's device."""
    return torch.randn(shape, generator=generator, device=generator.device)
