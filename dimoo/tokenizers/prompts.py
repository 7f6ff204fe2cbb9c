"""The prompt template: the only code that turns a task's words and codes into token ids, for training and sampling.

    <system>S</system><user>P [images]</user>   then   <answer><IMAGE> rows </IMAGE></answer>
                                                or     <answer> text </answer> pad ... </answer>

Input images stand just before the final `</user>`. The unconditional prompt keeps S and replaces P.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import torch
from torch import Tensor

from dimoo.core.errors import CheckpointError, ConfigError, RequestError
from dimoo.tokenizers.document import GIVEN, Document, Target, join
from dimoo.tokenizers.layout import GridLayout
from dimoo.tokenizers.template import PromptTemplate
from dimoo.tokenizers.text import PROMPT_TAGS, SPECIAL_TOKENS, TextTokenizer
from dimoo.tokenizers.vocabulary import TEXT, Vocabulary

SYSTEM, SYSTEM_END, USER, USER_END = PROMPT_TAGS
UNCONDITIONAL = SPECIAL_TOKENS["unconditional"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """A piece of a modality inside a sequence."""

    modality: str
    shape: tuple[int, ...]
    codes: Tensor | None = None
    """int64 [*shape] (or [*shape, codebooks]); None where all of them are to be made."""
    keep: Tensor | None = None
    """bool [*shape]: at which positions the codes are known; the others are to be made. None: at all of them."""
    codebooks: int = 1

    @classmethod
    def of(cls, modality: str, codes: Tensor, codebooks: int = 1) -> Grid:
        """A grid whose codes are known: int64 [*shape], with several codebooks [*shape, codebooks]."""
        shape = tuple(codes.shape if codebooks == 1 else codes.shape[:-1])
        return cls(modality=modality, shape=shape, codes=codes, codebooks=codebooks)


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Builds contexts (what is given) and answers (what is denoised) with one tokenizer, vocabulary and template.

    Raises:
        CheckpointError: `</user>` or `<uncondition>` is no single id of the tokenizer, or the latter is another than in
            the vocabulary.
            A text-only model has no tags, and can build none of this.
    """

    text: TextTokenizer
    vocabulary: Vocabulary
    template: PromptTemplate

    def __post_init__(self) -> None:
        if not self.vocabulary.modalities:
            return
        # The released tokenizer may spell the other tags in several ids; pictures go before the one that closes.
        for tag in (USER_END, UNCONDITIONAL):
            if len(ids := self.text.encode(tag)) != 1:
                raise CheckpointError(
                    f"the text tokenizer splits the prompt tag {tag!r} into {len(ids)} ids; add it as a special token"
                )
        if self.text.encode(UNCONDITIONAL) != [self.vocabulary.unconditional]:
            raise CheckpointError(
                f"the text tokenizer gives {UNCONDITIONAL!r} the id {self.text.id_of(UNCONDITIONAL)}, the vocabulary"
                f" {self.vocabulary.unconditional}; take the tokenizer that the vocabulary was made for"
            )

    def context(self, task: str, prompt: str | None, grids: Sequence[Grid] = ()) -> Document:
        """Ids of `<system>S</system><user>P [grids]</user>`.

        Args:
            task: the task family, a key of the template's `systems`.
            prompt: the user's words; None gives the unconditional prompt.
            grids: input images (sounds, ...) in order.

        Raises:
            ConfigError: the template does not know the task.
            RequestError: the text is longer than the template allows.
            CheckpointError: the tokenizer puts something behind a text.
        """
        words = UNCONDITIONAL if prompt is None else self.text.defuse(prompt)
        whole = f"{SYSTEM}{self._system(task)}{SYSTEM_END}{USER}{words}{USER_END}"
        ids = self.text.encode(whole, framed=True)
        if ids[-1] != self.text.id_of(USER_END):
            raise CheckpointError(
                f"the text tokenizer ends a prompt with {self.text.token(ids[-1])!r}, not with {USER_END!r}: take its"
                " post-processor out"
            )
        if len(ids) > self.template.max_prompt_tokens:
            raise RequestError(
                f"the prompt takes {len(ids)} tokens, more than the {self.template.max_prompt_tokens} that this model"
                f" takes; shorten {(prompt or '')[:60]!r}..."
            )
        pieces = [self._grid(grid, target=False) for grid in grids]
        return join([Document.given(ids[:-1]), *pieces, Document.given(ids[-1:])])

    def grid_answer(self, grid: Grid) -> Document:
        """`<answer><IMAGE> rows </IMAGE></answer>`: every code is a target, masked where it is to be made.

        Each codebook is a group of targets of its own, with its own range of ids.
        """
        start, end = self.vocabulary.special("answer_start"), self.vocabulary.special("answer_end")
        return join([Document.given([start]), self._grid(grid, target=True), Document.given([end])])

    def text_answer(self, answer: str | None, length: int) -> Document:
        """`<answer>` + `length` targets + a given `</answer>`.

        With an answer the targets are its tokens and `</answer>` (one group: they share a masking ratio) and then
        padding (a group of its own); without, they are all masked.

        Raises:
            RequestError: the answer and its end do not fit in `length`.
        """
        vocabulary = self.vocabulary
        target = Target(modality=TEXT, kind="text", columns=vocabulary.columns(TEXT))
        ending = vocabulary.special("answer_end")
        start, end = Document.given([vocabulary.special("answer_start")]), Document.given([ending])
        if answer is None:
            return join([start, Document.target([vocabulary.mask] * length, target), end])
        ids = [*self.text.encode(self.text.defuse(answer)), ending]
        if len(ids) > length:
            raise RequestError(f"the answer takes {len(ids)} tokens, more than the {length} that are planned for it")
        body = [Document.target(ids, target)]
        if len(ids) < length:
            padding = replace(target, kind="padding")
            body.append(Document.target([vocabulary.pad] * (length - len(ids)), padding))
        return join([start, *body, end])

    def grid_of_answer(self, grid: Grid, ids: Tensor) -> Tensor:
        """The codes [*shape] of an image answer, the inverse of `grid_answer`: ids int64 [n].

        Raises:
            DataError: a position holds no code.
        """
        # Two given tokens open the answer (<answer><IMAGE>) and two close it.
        return self.layout(grid).to_codes(ids[2:-2])

    def read_text(self, ids: Tensor) -> str:
        """The words of a text answer: everything before its first `</answer>`."""
        end = self.vocabulary.special("answer_end")
        tokens = takewhile(lambda token: token != end, ids.tolist())
        return self.text.decode([token for token in tokens if token < self.vocabulary.text_size])

    def layout(self, grid: Grid) -> GridLayout:
        """How a grid lies in the sequence."""
        entry = self.vocabulary.modality(grid.modality)
        return GridLayout(
            grid=grid.shape,
            start=entry.start,
            codebook_size=entry.size // grid.codebooks,
            end_of_line=self.vocabulary.special("end_of_line"),
            codebooks=grid.codebooks,
        )

    def _grid(self, grid: Grid, *, target: bool) -> Document:
        entry, layout = self.vocabulary.modality(grid.modality), self.layout(grid)
        books = layout.books()
        is_code = books >= 0
        if grid.codes is None:
            ids = torch.where(is_code, self.vocabulary.mask, layout.end_of_line)
        else:
            ids = layout.to_sequence(grid.codes)
            if grid.keep is not None:
                keep = grid.keep.flatten().cpu().repeat_interleave(grid.codebooks)
                ids[is_code] = torch.where(keep, ids[is_code], self.vocabulary.mask)
        body = Document.given(ids)
        if target:
            targets = tuple(
                Target(modality=grid.modality, kind=grid.modality, columns=layout.columns(book))
                for book in range(grid.codebooks)
            )
            body = Document(ids=ids, group=torch.where(is_code, books, GIVEN), targets=targets)
        return join([Document.given([entry.opening]), body, Document.given([entry.closing])])

    def _system(self, task: str) -> str:
        systems: Mapping[str, str] = self.template.systems
        if task not in systems:
            raise ConfigError(f"the prompt template has no task {task!r}; known: {', '.join(systems) or 'none'}")
        return systems[task]
