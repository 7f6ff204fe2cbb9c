"""Packs of at most so many tokens, so that memory is bounded whatever the examples' lengths.

Axes: N = tokens of a pack, G = its target groups, D = its documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from dimoo.core.errors import DataError
from dimoo.denoise.objective import Noisy
from dimoo.tokenizers.document import Document
from dimoo.tokenizers.packing import Batch, first_fit


def require_room(documents: Sequence[Document], examples: Sequence[int], tokens: int | None) -> None:
    """See that every document fits into a pack.

    Args:
        documents: in any order.
        examples: the number of the example that each was made of.
        tokens: that a pack takes; None: any number.

    Raises:
        DataError: one does not; names its example.
    """
    for document, example in zip(documents, examples, strict=True):
        if tokens is not None and len(document) > tokens:
            raise DataError(
                f"example {example} makes a document of {len(document)} tokens, but a pack takes pack_tokens={tokens};"
                " raise that, or make the example's pictures or texts smaller"
            )


def divided(noisy: Noisy, tokens: int | None) -> list[Noisy]:
    """A corrupted pack as several of at most `tokens` tokens each, by first fit; None: as it is.

    It is divided after its noise is drawn, and a loss is a sum over tokens and groups with a count (`LossTerms`), so
    the parts together learn what the whole would.

    Raises:
        DataError: one document alone is longer.
    """
    if tokens is None or noisy.ids.numel() <= tokens:
        return [noisy]
    return [_part(noisy, places) for places in first_fit(noisy.batch.lengths, tokens)]


def _part(noisy: Noisy, places: Sequence[int]) -> Noisy:
    batch, groups = noisy.batch, noisy.groups
    chosen = torch.zeros(len(batch.lengths), dtype=torch.bool)
    chosen[list(places)] = True
    inside = torch.repeat_interleave(chosen, torch.tensor(batch.lengths)).to(batch.ids.device)
    group = batch.group[inside]
    kept = torch.unique(group[group >= 0])  # a group without a token counts nothing, and is in no part
    numbers = torch.full((max(1, len(batch.targets)),), -1, device=group.device)
    numbers[kept] = torch.arange(len(kept), device=group.device)
    places_inside = inside.long().cumsum(0) - 1
    here = inside[noisy.rows]
    part = Batch(
        ids=batch.ids[inside],
        group=torch.where(group >= 0, numbers[group], group),
        lengths=tuple(batch.lengths[place] for place in places),
        targets=tuple(batch.targets[number] for number in kept.tolist()),
    )
    return Noisy(
        batch=part,
        ids=noisy.ids[inside],
        rows=places_inside[noisy.rows[here]],
        groups=replace(
            groups,
            group=numbers[groups.group[here]],
            progress=groups.progress[kept],
            share=groups.share[kept],
            sizes=groups.sizes[kept],
            answer=part.answers(),
        ),
    )
