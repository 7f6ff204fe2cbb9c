"""Examples -> training documents: draws what is asked of each example and encodes its media."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Generator, Tensor

from dimoo.core.errors import DataError, RequestError
from dimoo.data.blocks import active_block
from dimoo.data.config import DropoutConfig, MixtureConfig
from dimoo.data.encoded import encode_pictures
from dimoo.data.example import Codes, Example, Picture, Pixels, TaskExample
from dimoo.diffusion.guidance import CONDITION
from dimoo.presets.tasks import STANDARD, TaskText
from dimoo.tasks.problem import Problem
from dimoo.tasks.problems import CAPTION_REQUEST, problem
from dimoo.tasks.regions import touched
from dimoo.tasks.speech import entry_of, say, usual_tokens
from dimoo.tokenizers.base import Tokenizer
from dimoo.tokenizers.document import Document
from dimoo.tokenizers.prompts import Grid, Prompts, Words


@dataclass(frozen=True, kw_only=True)
class DocumentBuilder:
    """Turns examples into documents by the weights of a mixture."""

    prompts: Prompts
    image_tokenizer: Tokenizer
    mixture: MixtureConfig
    tasks: Mapping[str, TaskText] = field(default_factory=lambda: STANDARD)
    """How each task is said."""

    def build(self, examples: Sequence[Example[Picture]], generators: Sequence[Generator]) -> list[Document]:
        """One document per example; every draw for it comes from its own generator.

        Raises:
            DataError: an example has no picture where its task needs one, nothing that the mixture can ask of it, or
                too long a text; or its pictures are codes of another image tokenizer.
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
            branch = self._branch(built, generator)
            if self.mixture.text_block is not None:
                mask = self.prompts.vocabulary.mask
                built = replace(built, answer=active_block(built.answer, self.mixture.text_block, mask, generator))
            documents.append(built.document(branch))
        return documents

    def _branch(self, built: Problem, generator: Generator) -> str:
        dropout = self.mixture.dropout
        if isinstance(dropout, DropoutConfig):
            return built.independent_branch(words=dropout.words, pictures=dropout.pictures, generator=generator)
        return built.training_branch(dropout, generator)

    def _choose(self, example: Example[Picture], generator: Generator) -> TaskExample[Picture]:
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
                mixture.pair if caption is not None else 0.0,
            ]
        )
        if float(weights.sum()) == 0:
            raise DataError(
                f"an example with caption {caption!r} and {len(qa)} questions has nothing that the mixture asks for"
            )
        kind = int(torch.multinomial(weights, 1, generator=generator))
        if kind in (0, 3):
            return TaskExample(task="generate", words=caption or "", image=example.image, learn_words=kind == 3)
        if kind == 1:
            return TaskExample(task="ask", words=CAPTION_REQUEST, images=(example.image,), text=caption)
        question, answer = qa[int(torch.randint(len(qa), (), generator=generator))]
        return TaskExample(task="ask", words=question, images=(example.image,), text=answer)

    def _problem(self, one: TaskExample[Picture], grids: Mapping[int, Grid]) -> Problem:
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
        family = entry_of(self.tasks, one.task).family
        found = problem(self.prompts, family, said, answer)
        if not one.learn_words:
            return found
        if one.images:
            raise DataError(f"the words of the {one.task!r} example cannot be learnt: it has pictures in its request")
        learnt = self.prompts.learnt_context(family, "".join(piece for piece in said if isinstance(piece, str)))
        return replace(found, branches={**found.branches, CONDITION: learnt})

    def _answer(self, one: TaskExample[Picture], grid: Grid) -> Grid:
        """A picture as an answer: a code is given where all its pixels are."""
        if one.given is None:
            return grid
        given = torch.from_numpy(~touched(~one.given, self.image_tokenizer.downsampling))
        return Grid(modality=grid.modality, shape=grid.shape, codes=grid.codes, codebooks=grid.codebooks, given=given)

    def _encode(self, pictures: Iterable[Picture]) -> dict[int, Grid]:
        """The code grids of pictures by identity; those that are codes already are taken as they are."""
        tokenizer, codes, pixels = self.image_tokenizer, dict[int, Tensor](), list[Pixels]()
        for picture in pictures:
            if not isinstance(picture, Codes):
                pixels.append(picture)
            elif picture.fingerprint == self._fingerprint:
                codes[id(picture)] = torch.tensor(picture.codes, dtype=torch.int64)
            else:
                raise DataError(
                    f"the codes are those of image tokenizer {picture.fingerprint}, but this model's is"
                    f" {self._fingerprint}; encode the pictures with it, or train with the one that encoded them"
                )
        codes |= encode_pictures(pixels, tokenizer)
        return {key: Grid.of(tokenizer.modality, found, tokenizer.codebooks) for key, found in codes.items()}

    @cached_property
    def _fingerprint(self) -> str:
        return self.image_tokenizer.fingerprint
