"""Every step, pack and example of a run has draws of its own, and the same ones whenever it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch
from tiny_recipes import Tiny

from dimoo.data.example import Source
from dimoo.denoise.objective import Noisy
from recipes.learning.assemble import diffusion_module
from recipes.learning.making import StepDocuments
from recipes.ranks import Ranks


@dataclass(frozen=True)
class Repeated:
    """One example again and again."""

    source: Source
    size: int | None = None

    def example(self, index: int) -> object:
        del index
        return self.source.example(0)


def test_times_and_masks_of_a_pack_are_its_own(tiny: Tiny) -> None:
    module = diffusion_module(tiny("world_base", "accumulate=2"))
    packs = [noisy for step in (0, 1, 2) for noisy in module.corrupted(step)]
    assert len(packs) == 6
    for one, other in combinations(packs, 2):
        count = min(len(one.groups.progress), len(other.groups.progress))
        assert not torch.equal(one.groups.progress[:count], other.groups.progress[:count])
    again: list[Noisy] = [noisy for step in (0, 1, 2) for noisy in module.corrupted(step)]
    for one, same in zip(packs, again, strict=True):
        assert torch.equal(one.groups.progress, same.groups.progress)
        assert torch.equal(one.ids, same.ids)


def test_what_a_document_leaves_out_is_its_own_draw(tiny: Tiny) -> None:
    recipe = tiny("world_base", "mixture.dropout=0.5", "accumulate=1", "run.batch_size=8")
    module = diffusion_module(recipe)
    maker = StepDocuments(
        recipe=module.recipe,
        builder=module.builder,
        source=Repeated(module.source),  # type: ignore[arg-type]
        ranks=Ranks(),
    )

    def documents(step: int) -> list[tuple[int, ...]]:
        return [tuple(document.ids.tolist()) for pack in maker(step).values() for document in pack.values()]

    steps = [documents(step) for step in range(4)]
    assert all(len(set(step)) > 1 for step in steps), "alike in all places of a step"
    assert len({tuple(step) for step in steps}) == 4, "alike in several steps"
    assert [documents(step) for step in range(4)] == steps
