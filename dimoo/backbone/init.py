"""First values of the weights, and room for new ids."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from dimoo.backbone.block import Attention, GatedMLP, Linear
from dimoo.backbone.model import Backbone, Embedding
from dimoo.backbone.norm import RMSNorm
from dimoo.core.errors import ConfigError

STD = 0.02


@torch.no_grad()
def initialise(model: Backbone, generator: torch.Generator) -> Backbone:
    """Draw all weights of a model in place, and return it.

    Matrices ~ N(0, 0.02^2); the two projections of each block that write to the residual stream are scaled
    by 1 / sqrt(2 layers), so that its variance does not grow with depth (GPT-2); norms start at 1. Values
    depend on the generator alone, not on the device of the model.
    """
    residual = {id(module.output) for module in model.modules() if isinstance(module, Attention | GatedMLP)}
    for module in model.modules():
        if isinstance(module, RMSNorm):
            module.weight.fill_(1.0)
        elif isinstance(module, nn.Linear | nn.Embedding):
            scale = (2 * len(model.blocks)) ** -0.5 if id(module) in residual else 1.0
            module.weight.copy_(_normal(module.weight, generator) * (STD * scale))
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
        projection = _normal(centred.new_empty(centred.shape[1], model.width), generator)
        rows = centred @ projection
        table.weight[start:stop] = (rows * (STD / rows.std())).to(table.weight)
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
        rows = _grown(old.weight[:kept], vocab_size, generator)
        new.weight = nn.Parameter(rows, requires_grad=old.weight.requires_grad)
    # The memo makes the copy take the new tables in place of copies of the old ones.
    return copy.deepcopy(model, {id(model.embedding): embedding, id(model.unembedding): unembedding})


@torch.no_grad()
def grow_codes(model: Backbone, vectors: Tensor, start: int) -> Backbone:
    """A new model with rows for codes that were added to a modality, the last one; the given model is untouched.

    A new code begins with the rows of the old code whose vector lies nearest, in the embedding and in the head.

    Args:
        model: the model to copy, whose ids from `start` on are the old codes.
        vectors: one vector per code, old ones first, [K, C].
        start: first id of the codes.

    Raises:
        ConfigError: there are not more codes than the model has.
    """
    old = model.vocab_size - start
    if not 0 < old < len(vectors):
        raise ConfigError(f"cannot grow {old} codes to {len(vectors)}; the codes must be the last ids, and become more")
    distances = torch.cdist(vectors[old:].float(), vectors[:old].float())
    source = torch.cat([torch.arange(model.vocab_size), start + distances.argmin(dim=1).cpu()])
    with torch.device("meta"):
        embedding, unembedding = Embedding(len(source), model.width), Linear(model.width, len(source))
    for before, after in ((model.embedding, embedding), (model.unembedding, unembedding)):
        after.weight = nn.Parameter(before.weight[source.to(before.weight.device)].clone())
    return copy.deepcopy(model, {id(model.embedding): embedding, id(model.unembedding): unembedding})


def _grown(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    variance, mean = torch.var_mean(rows.float(), dim=0, correction=0)
    fresh = _normal(rows.new_empty(count - len(rows), rows.shape[1]), generator)
    return torch.cat([rows, (mean + variance.sqrt() * fresh).to(rows.dtype)])


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal fp32 values of that shape and device; drawn on the generator's device, if at all."""
    if like.is_meta:
        return torch.empty_like(like, dtype=torch.float32)
    return torch.randn(like.shape, generator=generator, device=generator.device).to(like.device)
