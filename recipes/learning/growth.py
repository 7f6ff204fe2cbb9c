"""First rows for codes that an image tokenizer was extended by, from what they stand for in pairs of pictures."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from dimoo.data.example import Source, pixels_of
from dimoo.tokenizers.base import Tokenizer

APART = 0.5
"""How far what is asked for moves a row, as a share of the spread of the old rows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StandIns:
    """What added codes stand for, counted over pairs of pictures of one size: a request's first and its answer's."""

    old: Tensor
    """float [added, old]: how often an added code stood where the first picture has an old code."""
    asked: Tensor
    """float [added, A]: how often for each thing that was asked for."""


def stand_ins(source: Source, tokenizer: Tokenizer, *, known: int, examples: int) -> StandIns:
    """Count over the tasks of the first examples of a source.

    Args:
        source: what is trained on.
        tokenizer: the extended tokenizer.
        known: how many codes there were before.
        examples: how many examples to look at.

    Raises:
        DataError: the source has codes in place of pictures.
    """
    pairs: dict[tuple[int, ...], list[tuple[str, np.ndarray, np.ndarray]]] = defaultdict(list)
    for index in range(examples):
        for one in source.example(index).tasks:
            if not one.images or one.image is None:
                continue
            first_picture, answer = pixels_of(one.images[0]), pixels_of(one.image)
            if first_picture.shape == answer.shape:
                key = f"{one.task} {one.option} {one.words}"
                pairs[answer.shape].append((key, first_picture, answer))
    names: dict[str, int] = {}
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for group in pairs.values():
        first, made = (
            tokenizer.encode(torch.from_numpy(np.stack([pair[side] for pair in group])).permute(0, 3, 1, 2) / 255)
            for side in (1, 2)
        )
        changed = (made >= known) & (first < known)
        rows = changed.nonzero()[:, 0].tolist()
        asked = torch.tensor([names.setdefault(group[row][0], len(names)) for row in rows], dtype=torch.int64)
        found.append((made[changed].cpu() - known, first[changed].cpu(), asked))
    added = tokenizer.codebook_size - known
    old, wanted = torch.zeros(added, known), torch.zeros(added, max(1, len(names)))
    for codes, before, asked in found:
        ones = torch.ones(len(codes))
        old.index_put_((codes, before), ones, accumulate=True)
        wanted.index_put_((codes, asked), ones, accumulate=True)
    return StandIns(old=old, asked=wanted)


@torch.no_grad()
def place_stand_ins(table: Tensor, start: int, found: StandIns, generator: Generator) -> None:
    """Set the rows of added codes in the head's table, in place: where a pair of pictures shows what they stand for.

    row_n = sum_o p(o | n) row_o + sum_a p(a | n) d_a,  d_a ~ N(0, (APART std(old rows))^2)

    with o the old codes and a what was asked for. A network that has learnt to copy a picture then makes its grey
    version, or its map, by adding one direction, in place of learning every patch anew.

    Args:
        table: the head's rows [V, d]; those from `start` on are the codes, old ones first.
        start: first id of the codes.
        found: what they stand for.
        generator: draws the directions.
    """
    known = found.old.shape[1]
    old = table[start : start + known].float()
    seen = found.old.sum(1) > 0
    directions = torch.randn(found.asked.shape[1], old.shape[1], generator=generator) * (APART * old.std())
    rows = _shares(found.old[seen]) @ old + _shares(found.asked[seen]) @ directions
    table[start + known + seen.nonzero().squeeze(1)] = rows.to(table)


def _shares(counts: Tensor) -> Tensor:
    return counts / counts.sum(1, keepdim=True)
