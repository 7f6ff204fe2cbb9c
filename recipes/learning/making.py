"""The documents of a step, made by whichever process is asked."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn
from typing_extensions import Self

from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.data.documents import DocumentBuilder
from dimoo.data.example import Source
from dimoo.tokenizers.document import Document
from recipes.config import DiffusionRecipe
from recipes.learning.packing import require_room
from recipes.ranks import Ranks


@dataclass(frozen=True, kw_only=True)
class StepDocuments:
    """The documents of an optimiser step that a process learns from: a function of the seed and the step."""

    recipe: DiffusionRecipe
    builder: DocumentBuilder
    source: Source
    ranks: Ranks
    """The process that learns from them, among all."""

    def on_cpu(self) -> Self:
        """The same with an image tokenizer of its own there, for a process without a device."""
        tokenizer = self.builder.image_tokenizer
        if isinstance(tokenizer, nn.Module):
            tokenizer = copy.deepcopy(tokenizer).cpu()
        return replace(self, builder=replace(self.builder, image_tokenizer=tokenizer))

    def __call__(self, step: int) -> dict[int, dict[int, Document]]:
        """Make those of a step.

        Returns:
            By the number of the pack that they go into, and by that of the example that each is made of.

        Raises:
            ConfigError: there are more packs than examples.
            DataError: an example cannot be read, or makes no document.
        """
        size, count = self.recipe.run.batch_size, self.recipe.accumulate * self.ranks.world
        if count > size:
            raise ConfigError(
                f"{size} examples a step cannot be dealt to {self.recipe.accumulate} packs on each of"
                f" {self.ranks.world} processes; set run.batch_size to at least {count}, or accumulate lower"
            )
        return {
            index: self._pack(step, range(size)[index::count])
            for index in range(self.ranks.rank, count, self.ranks.world)
        }

    def _pack(self, step: int, places: Sequence[int]) -> dict[int, Document]:
        run = self.recipe.run
        numbers = [step * run.batch_size + place for place in places]
        examples = [self.source.example(number) for number in numbers]
        generators = [generator(run.seed, "train", "document", step, place) for place in places]
        documents = self.builder.build(examples, generators)
        require_room(documents, numbers, self.recipe.pack_tokens)
        return dict(zip(numbers, documents, strict=True))
