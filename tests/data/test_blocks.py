"""Answers learnt a block at a time: what is given, what is to be predicted, what is hidden."""

from __future__ import annotations

from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimoo.core.rng import generator
from dimoo.data.blocks import active_block
from dimoo.tokenizers.document import GIVEN, Document, Target, join

MASK = 0
TEXT = Target(modality="text", kind="text", columns=(0, 50))
PADDING = Target(modality="text", kind="padding", columns=(0, 50))
IMAGE = Target(modality="image", kind="image", columns=(50, 60))


def answer(words: int, padding: int) -> Document:
    """A picture of 6 codes, then words and padding, with given ids around them."""
    return join(
        [
            Document.given([1]),
            Document.target([50, 51, 52, 53, 54, 55], IMAGE),
            Document.given([2]),
            Document.target(range(10, 10 + words), TEXT),
            *([Document.target([3] * padding, PADDING)] if padding else []),
            Document.given([4]),
        ]
    )


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(0, 9), st.integers(1, 8), st.integers(0, 99))
def test_one_block_is_learnt_what_is_before_it_given_and_what_is_after_it_hidden(
    words: int, padding: int, length: int, seed: int
) -> None:
    whole = answer(words, padding)
    before = (whole.ids.clone(), whole.group.clone())
    made = active_block(whole, length, MASK, generator(seed))
    assert torch.equal(whole.ids, before[0])
    assert torch.equal(whole.group, before[1])
    places = list(range(8, 8 + words + padding))
    learnt = [place for place in places if made.group[place] != GIVEN]
    first = (learnt[0] - 8) // length * length
    assert learnt == places[first : first + length]
    for place in range(len(whole)):
        if place in places and place > learnt[-1]:
            assert (int(made.ids[place]), int(made.group[place])) == (MASK, GIVEN)
            continue
        assert made.ids[place] == whole.ids[place]
        if (place in places and place < learnt[0]) or whole.group[place] == GIVEN:
            assert made.group[place] == GIVEN
        else:  # of what is learnt, and of the picture, the target is the one before
            assert made.targets[made.group[place]] == whole.targets[whole.group[place]]
    assert sorted(set(made.group.tolist()) - {GIVEN}) == list(range(len(made.targets)))


def test_every_block_is_drawn_equally_often() -> None:
    rng, count = generator(0), 3000
    drawn = Counter(
        int((active_block(answer(9, 3), 5, MASK, rng).group[8:20] != GIVEN).nonzero()[0]) for _ in range(count)
    )
    assert drawn.keys() == {0, 5, 10}
    assert all(abs(number - count / 3) < 5 * (count * 2 / 9) ** 0.5 for number in drawn.values())


def test_an_answer_of_one_block_and_one_without_words_stay() -> None:
    whole = answer(4, 2)
    assert active_block(whole, 6, MASK, generator(0)) is whole
    picture = join([Document.given([1]), Document.target([50, 51], IMAGE)])
    assert active_block(picture, 1, MASK, generator(0)) is picture
