"""Examples -> training documents: draws what is asked of each example and encodes its media."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from dimoo.core.errors import DataError, RequestError
from dimoo.data.config import MixtureConfig
from dimoo.data.example import Example, TaskExample
from dimoo.presets.tasks import STANDARD, TaskText
from dimoo.tasks.problem import Problem
from dimoo.tasks.problems import CAPTION_REQUEST, problem
from dimoo.tasks.regions import touched
from dimoo.tasks.speech import entry_of, say, usual_tokens
from dimoo.tokenizers.base import Tokenizer
from dimoo.tokenizers.document import Document
from dimoo.tokenizers.prompts import Grid, Prompts, Words

Picture = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class DocumentBuilder:
    """Turns examples into documents by the weights of a mixture."""

    prompts: Prompts
    image_tokenizer: Tokenizer
    mixture: MixtureConfig
    tasks: Mapping[str, TaskText] = field(default_factory=lambda: STANDARD)
    """How each task is said."""

    def build(self, examples: Sequence[Example], generators: Sequence[Generator]) -> list[Document]:
        """One document per example; every draw for it comes from its own generator.

        Raises:
            DataError: an example has no picture where its task needs one, nothing that the mixture can ask of it, or
                too long a text.
        """
        pairs = zip(examples, generators, strict=True)
        chosen = [self._choose(example, generator) for example, generator in pairs]
        grids = self._encode(picture for one in chosen for picture in (*one.images, one.image) if picture is not None)
        documents = []
        for one, generator in zip(chosen, generators, strict=True):
            try:
                built = self._problem(one, grids)
            except RequestError as error:
                raise DataError(
                    f"the example of task {one.task!r} with words {one.words!r}: {error}; shorten it, or raise"
                    " mixture.caption_tokens, mixture.question_tokens or template.max_prompt_tokens"
                ) from error
            documents.append(built.document(built.training_branch(self.mixture.dropout, generator)))
        return documents

    def _choose(self, example: Example, generator: Generator) -> TaskExample:
        """What is asked of an example: one of its tasks, or something about its picture by the mixture's weights."""
        if example.tasks:
            return example.tasks[int(torch.randint(len(example.tasks), (), generator=generator))]
        mixture, caption, qa = self.mixture, example.caption, example.qa
        if example.image is None:
            raise DataError(f"the example with caption {caption!r} has no picture")
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
            return TaskExample(task="generate", words=caption or "", image=example.image)
        if kind == 1:
            return TaskExample(task="ask", words=CAPTION_REQUEST, images=(example.image,), text=caption)
        question, answer = qa[int(torch.randint(len(qa), (), generator=generator))]
        return TaskExample(task="ask", words=question, images=(example.image,), text=answer)

    def _problem(self, one: TaskExample, grids: Mapping[int, Grid]) -> Problem:
        said = say(
            self.tasks,
            one.task,
            words=one.words,
            option=one.option,
            images=[grids[id(picture)] for picture in one.images],
        )
        answer: list[Grid | Words] = []
        if one.image is not None:
            answer.append(self._answer(one, grids[id(one.image)]))
        if one.text is not None:
            length = usual_tokens(
                one.words,
                images=len(one.images),
                pictured=one.image is not None,
                caption=self.mixture.caption_tokens,
                answer=self.mixture.question_tokens,
            )
            answer.append(Words(text=one.text, length=length))
        return problem(self.prompts, entry_of(self.tasks, one.task).family, said, answer)

    def _answer(self, one: TaskExample, grid: Grid) -> Grid:
        """A picture as an answer: a code is given where all its pixels are."""
        if one.given is None:
            return grid
        given = torch.from_numpy(~touched(~one.given, self.image_tokenizer.downsampling))
        return Grid(modality=grid.modality, shape=grid.shape, codes=grid.codes, codebooks=grid.codebooks, given=given)

    def _encode(self, pictures: Iterable[Picture]) -> dict[int, Grid]:
        """The code grids of pictures by identity; those of one size are encoded together."""
        by_shape: dict[tuple[int, ...], dict[int, Picture]] = defaultdict(dict)
        for picture in pictures:
            by_shape[picture.shape][id(picture)] = picture
        codes: dict[int, Tensor] = {}
        for group in by_shape.values():
            stacked = np.stack([np.asarray(picture) for picture in group.values()])
            pixels = torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255
            codes.update(zip(group, self.image_tokenizer.encode(pixels), strict=True))
        tokenizer = self.image_tokenizer
        return {key: Grid.of(tokenizer.modality, found, tokenizer.codebooks) for key, found in codes.items()}
