"""Examples -> training documents: draws what is asked of each example and encodes its media."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Generator, Tensor

from dimoo.core.errors import DataError, RequestError
from dimoo.data.blocks import active_block
from dimoo.data.config import DropoutConfig, MixtureConfig
from dimoo.data.encoded import encode_pictures
from dimoo.data.example import Codes, Example, Picture, Pixels, TaskExample
from dimoo.data.rows import check
from dimoo.diffusion.guidance import CONDITION
from dimoo.presets.tasks import STANDARD, TaskText
from dimoo.tasks.problem import Problem
from dimoo.tasks.problems import CAPTION_REQUEST, problem
from dimoo.tasks.regions import touched
from dimoo.tasks.speech import entry_of, say, usual_tokens
from dimoo.tokenizers.base import Tokenizer
from dimoo.tokenizers.document import Document
from dimoo.tokenizers.prompts import Grid, Prompts, Words

GENERATE, CAPTION, QUESTION, PAIR = range(4)
"""What can be asked about a picture, by its place among the mixture's weights."""


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

    def check(self, example: Example[Picture]) -> None:
        """A `Check`: that whatever may be drawn for an example can be built; its pictures are not encoded.

        Raises:
            DataError: as `rows.check`; or the mixture asks for nothing that the example has, or some of its words take
                more tokens than are planned for them.
        """
        check(example, self.tasks)
        faults = [fault for one in self._requests(example) for fault in self._faults(one)]
        if faults:
            raise DataError("; ".join(dict.fromkeys(faults)))

    def _branch(self, built: Problem, generator: Generator) -> str:
        dropout = self.mixture.dropout
        if isinstance(dropout, DropoutConfig):
            return built.independent_branch(words=dropout.words, pictures=dropout.pictures, generator=generator)
        return built.training_branch(dropout, generator)

    def _choose(self, example: Example[Picture], generator: Generator) -> TaskExample[Picture]:
        """What is asked of an example: one of its tasks, or something about its picture by the mixture's weights."""
        if example.tasks:
            return example.tasks[int(torch.randint(len(example.tasks), (), generator=generator))]
        kind = int(torch.multinomial(torch.tensor(self._weights(example)), 1, generator=generator))
        turn = int(torch.randint(len(example.qa), (), generator=generator)) if kind == QUESTION else 0
        return _asked(example, kind, turn)

    def _requests(self, example: Example[Picture]) -> Iterator[TaskExample[Picture]]:
        """Everything that may be asked of an example."""
        if example.tasks:
            yield from example.tasks
            return
        for kind, weight in enumerate(self._weights(example)):
            for turn in range(len(example.qa) if kind == QUESTION else 1):
                if weight:
                    yield _asked(example, kind, turn)

    def _weights(self, example: Example[Picture]) -> list[float]:
        """Of what can be asked about its picture."""
        mixture, caption, qa = self.mixture, example.caption, example.qa
        if example.image is None:
            raise DataError(f"the example with caption {caption!r} has no picture")
        weights = [
            mixture.text_to_image if caption is not None else 0.0,
            mixture.caption if caption is not None else 0.0,
            mixture.question if qa else 0.0,
            mixture.pair if caption is not None else 0.0,
        ]
        if not any(weights):
            raise DataError(
                f"an example with caption {caption!r} and {len(qa)} questions has nothing that the mixture asks for"
            )
        return weights

    def _problem(self, one: TaskExample[Picture], grids: Mapping[int, Grid]) -> Problem:
        said = self._said(one, grids)
        made = [] if one.image is None else [self._answer(one, grids[id(one.image)])]
        family = entry_of(self.tasks, one.task).family
        found = problem(self.prompts, family, said, [*made, *self._words(one)])
        if not one.learn_words:
            return found
        if one.images:
            raise DataError(f"the words of the {one.task!r} example cannot be learnt: it has pictures in its request")
        learnt = self.prompts.learnt_context(family, "".join(piece for piece in said if isinstance(piece, str)))
        return replace(found, branches={**found.branches, CONDITION: learnt})

    def _said(self, one: TaskExample[Picture], grids: Mapping[int, Grid]) -> list[str | Grid]:
        images = [grids[id(picture)] for picture in one.images]
        return say(self.tasks, one.task, words=one.words, option=one.option, images=images)

    def _words(self, one: TaskExample[Picture]) -> list[Words]:
        """The answer's part in words, where it has one."""
        lengths = {True: self.mixture.caption_tokens, False: self.mixture.question_tokens}
        return [] if one.text is None else [Words(text=one.text, length=lengths[_is_long(one)])]

    def _faults(self, one: TaskExample[Picture]) -> Iterator[str]:
        """Which of its words take too many tokens; no document is made, for all rows are looked at."""
        said = say(self.tasks, one.task, words=one.words, option=one.option, images=one.images)
        words = "".join(piece for piece in said if isinstance(piece, str))
        try:
            self.prompts.check_context(entry_of(self.tasks, one.task).family, words)
        except RequestError as error:
            yield f"{error}, or raise template.max_prompt_tokens"
        for part in self._words(one):
            try:
                self.prompts.words_ids(part)
            except RequestError as error:
                yield f"{error}; shorten it, or raise mixture.{'caption' if _is_long(one) else 'question'}_tokens"

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


def _asked(example: Example[Picture], kind: int, turn: int) -> TaskExample[Picture]:
    """Something about an example's picture; of its questions that of one turn."""
    assert example.image is not None
    if kind in (GENERATE, PAIR):
        return TaskExample(task="generate", words=example.caption or "", image=example.image, learn_words=kind == PAIR)
    words, text = (CAPTION_REQUEST, example.caption) if kind == CAPTION else example.qa[turn]
    return TaskExample(task="ask", words=words, images=(example.image,), text=text)


def _is_long(one: TaskExample[Picture]) -> bool:
    """Whether as many tokens are planned for the answer's words as for a caption."""
    return bool(usual_tokens(one.words, images=len(one.images), pictured=one.image is not None, caption=1, answer=0))
