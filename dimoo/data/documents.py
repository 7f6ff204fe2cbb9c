"""Examples -> training documents: draws what is asked of each example and encodes its media."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from dimoo.core.errors import DataError, RequestError
from dimoo.data.config import MixtureConfig
from dimoo.data.example import Example
from dimoo.tasks.problem import Problem
from dimoo.tasks.problems import CAPTION_REQUEST, text_to_image, understanding
from dimoo.tokenizers.base import Tokenizer
from dimoo.tokenizers.document import Document
from dimoo.tokenizers.prompts import Grid, Prompts


@dataclass(frozen=True, kw_only=True)
class DocumentBuilder:
    """Turns examples into documents by the weights of a mixture."""

    prompts: Prompts
    image_tokenizer: Tokenizer
    mixture: MixtureConfig

    def build(self, examples: Sequence[Example], generator: Generator) -> list[Document]:
        """One document per example; every draw comes from `generator`.

        Raises:
            DataError: an example has no picture, nothing that the mixture can ask of it, or too long a text.
        """
        documents = []
        for example, grid in zip(examples, self._encode(examples), strict=True):
            try:
                problem = self._problem(example, grid, generator)
            except RequestError as error:
                raise DataError(
                    f"the example with caption {example.caption!r}: {error}; shorten it, or raise"
                    " mixture.caption_tokens, mixture.question_tokens or template.max_prompt_tokens"
                ) from error
            documents.append(problem.document(problem.training_branch(self.mixture.dropout, generator)))
        return documents

    def _problem(self, example: Example, grid: Grid, generator: Generator) -> Problem:
        mixture, caption, qa = self.mixture, example.caption, example.qa
        weights = torch.tensor(
            [
                mixture.text_to_image if caption is not None else 0.0,
                mixture.caption if caption is not None else 0.0,
                mixture.question if qa else 0.0,
            ]
        )
        if float(weights.sum()) == 0:
            raise DataError(
                f"an example with caption {caption!r} and {len(qa)} questions has nothing that the mixture asks for"
            )
        kind = int(torch.multinomial(weights, 1, generator=generator))
        if kind == 0:
            return text_to_image(self.prompts, caption or "", grid)
        if kind == 1:
            length = mixture.caption_tokens
            return understanding(self.prompts, CAPTION_REQUEST, [grid], caption, length=length)
        question, answer = qa[int(torch.randint(len(qa), (), generator=generator))]
        return understanding(self.prompts, question, [grid], answer, length=mixture.question_tokens)

    def _encode(self, examples: Sequence[Example]) -> list[Grid]:
        """The code grids of the examples' pictures; pictures of one size are encoded together."""
        by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, example in enumerate(examples):
            if example.image is None:
                raise DataError(f"the example with caption {example.caption!r} has no picture")
            by_shape[example.image.shape].append(index)
        codes: dict[int, Tensor] = {}
        for indices in by_shape.values():
            pictures = np.stack([np.asarray(examples[index].image) for index in indices])
            pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
            codes.update(zip(indices, self.image_tokenizer.encode(pixels), strict=True))
        tokenizer = self.image_tokenizer
        return [Grid.of(tokenizer.modality, codes[index], tokenizer.codebooks) for index in range(len(examples))]
