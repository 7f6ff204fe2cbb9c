"""Answers in words learnt a block at a time, as they are made where text is sampled in blocks from left to right."""

from __future__ import annotations

import torch
from torch import Generator

from dimoo.tokenizers.document import GIVEN, Document
from dimoo.tokenizers.vocabulary import TEXT


def active_block(answer: Document, length: int, mask_id: int, generator: Generator) -> Document:
    """The answer with one block of its words left as targets: what is before it is given, what is after it hidden.

    The targets of text, padding included, are cut into blocks of `length` in order, and one of them is drawn evenly.
    Those before keep their ids and are no targets any more; those after are the mask id and no targets. So the network
    sees in training what block decoding shows it (Blockwise SFT, arXiv 2508.19529; the objective of block diffusion,
    arXiv 2503.09573, under full attention). Targets of other modalities stay as they are.

    Args:
        answer: with known words.
        length: tokens of a block, at least 1.
        mask_id: the id that hides a token.
        generator: draws the block.
    """
    words = [number for number, target in enumerate(answer.targets) if target.modality == TEXT]
    places = torch.isin(answer.group, torch.tensor(words)).nonzero().squeeze(1)
    blocks = torch.split(places, length)
    if len(blocks) < 2:
        return answer
    drawn = int(torch.randint(len(blocks), (), generator=generator))
    before, after = torch.cat([places[:0], *blocks[:drawn]]), torch.cat([places[:0], *blocks[drawn + 1 :]])
    ids, group = answer.ids.clone(), answer.group.clone()
    ids[after] = mask_id
    group[torch.cat([before, after])] = GIVEN
    # Groups that have no position left are dropped, and the others numbered anew.
    left, numbered = torch.unique(group[group != GIVEN], return_inverse=True)
    group[group != GIVEN] = numbered
    return Document(ids=ids, group=group, targets=tuple(answer.targets[number] for number in left.tolist()))
