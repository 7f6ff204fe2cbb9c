"""Codes that were added: what they stand for in pairs of pictures, and the rows that follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.init import initialise
from dimoo.core.rng import generator
from dimoo.data.example import Example, TaskExample
from recipes.learning.growth import APART, StandIns, place_stand_ins, stand_ins

KNOWN, ALL = 4, 7


class Shades:
    """A tokenizer of one code a pixel: its red value."""

    modality, codebooks, downsampling, codebook_size, fingerprint = "image", 1, (1, 1), ALL, "shades"

    def encode(self, media: torch.Tensor) -> torch.Tensor:
        return (media[:, 0] * 255).round().long()


class Pairs:
    """Two tasks over 1x2 pictures, one of another size, one without a picture before."""

    size = 4

    def example(self, index: int) -> Example:
        pictures = {name: np.array([codes], np.uint8)[..., None].repeat(3, 2) for name, codes in SHADES.items()}
        return Example(
            tasks=(
                [
                    TaskExample(task="restyle", words="grey", images=(pictures["a"],), image=pictures["grey a"]),
                    TaskExample(task="predict", option="mask", images=(pictures["b"],), image=pictures["mask b"]),
                    TaskExample(task="subject", images=(pictures["long"],), image=pictures["grey a"]),
                    TaskExample(task="generate", words="a", image=pictures["grey a"]),
                ][index],
            )
        )


SHADES = {"a": [0, 1], "grey a": [5, 4], "b": [3, 3], "mask b": [6, 2], "long": [0, 1, 2]}


def test_counts_are_those_of_pairs_at_one_place() -> None:
    found = stand_ins(Pairs(), Shades(), known=KNOWN, examples=4)
    expected = torch.zeros(ALL - KNOWN, KNOWN)
    expected[5 - KNOWN, 0] = expected[4 - KNOWN, 1] = expected[6 - KNOWN, 3] = 1
    assert torch.equal(found.old, expected)
    assert torch.equal(found.asked, torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))


def test_rows_are_means_of_what_they_stand_for_and_a_direction() -> None:
    config = BackboneConfig(d_model=16, layers=1, heads=2, kv_heads=2, mlp_hidden=16, vocab_size=3 + ALL)
    model = initialise(build_backbone(config), generator(0))
    before = model.unembedding.weight.detach().clone()
    embedding = model.embedding.weight.detach().clone()
    old = torch.tensor([[1.0, 0, 0, 0], [0.0, 0, 0, 0], [0.0, 3, 1, 0]])
    asked = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]])
    place_stand_ins(model.unembedding.weight, 3, StandIns(old=old, asked=asked), generator(1))
    after = model.unembedding.weight.detach()
    codes = before[3 : 3 + KNOWN]
    directions = torch.randn(2, 16, generator=generator(1)) * APART * codes.std()
    torch.testing.assert_close(after[3 + 4], codes[0] + directions[0])
    torch.testing.assert_close(after[3 + 6], 0.75 * codes[1] + 0.25 * codes[2] + directions[1])
    untouched = [*range(3 + KNOWN), 3 + 5]
    assert torch.equal(after[untouched], before[untouched])
    assert torch.equal(model.embedding.weight, embedding)


@pytest.mark.parametrize("examples", [0, 3])
def test_without_pairs_nothing_stands_for_anything(examples: int) -> None:
    class Alone(Pairs):
        def example(self, index: int) -> Example:
            return super().example(3)

    found = stand_ins(Alone(), Shades(), known=KNOWN, examples=examples)
    assert not found.old.any()
    assert not found.asked.any()
