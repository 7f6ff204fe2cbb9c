"""The prompt template: the only code that turns a task's words and codes into token ids, for training and sampling.

    <system>S</system><user>P [images]</user>   then   <answer><IMAGE> rows </IMAGE></answer>
                                                or     <answer> text </answer> pad ... </answer>
                                                or     both, one after the other in one <answer> ... </answer>

Input images mostly stand just before the final `</user>`; words may follow them. The unconditional prompt keeps S and
replaces P.
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
    """int64 [*shape] (or [*shape, codebooks]), -1 where a code is to be made; None: all of them are."""
    given: Tensor | None = None
    """bool [*shape]: codes that are known beforehand, so that training neither masks nor predicts them. In sampling
    it makes no difference: codes that are not -1 are never masked. None: no code is."""
    codebooks: int = 1

    @classmethod
    def of(cls, modality: str, codes: Tensor, codebooks: int = 1) -> Grid:
        """A grid whose codes are known: int64 [*shape], with several codebooks [*shape, codebooks]."""
        shape = tuple(codes.shape if codebooks == 1 else codes.shape[:-1])
        return cls(modality=modality, shape=shape, codes=codes, codebooks=codebooks)


@dataclass(frozen=True, kw_only=True)
class Words:
    """An answer in words, or a part of one."""

    length: int
    """Tokens planned for it, its end included."""
    text: str | None = None
    """The known words in training; None where they are to be made."""


Said = Sequence[str | Grid | None]
"""What a user says: words and pieces of media in order. None stands for words that were left out."""


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

    def context(self, task: str, said: str | Said | None) -> Document:
        """Ids of `<system>S</system><user> words [grid] words [grid] ... </user>`.

        Everything up to the first grid is tokenised in one call together with the tags.

        Args:
            task: the task family, a key of the template's `systems`.
            said: the user's words, or words and grids in order; None gives the unconditional prompt.

        Raises:
            ConfigError: the template does not know the task.
            RequestError: the text is longer than the template allows.
            CheckpointError: the tokenizer puts something behind a text.
        """
        pieces: Said = [said] if said is None or isinstance(said, str) else said
        first = 0
        while first < len(pieces) and not isinstance(pieces[first], Grid):
            first += 1
        opening = "".join(map(self._words, pieces[:first]))
        ids = self._opening(task, opening)
        documents, count = [Document.given(ids[:-1])], len(ids)
        for piece in pieces[first:]:
            if isinstance(piece, Grid):
                documents.append(self._grid(piece, target=False))
            else:
                more = self.text.encode(self._words(piece))
                documents.append(Document.given(more))
                count += len(more)
        self._require_room(count, opening)
        return join([*documents, Document.given(ids[-1:])])

    def check_context(self, task: str, words: str) -> None:
        """See that words make a context, with or without grids behind them; no document is made.

        Raises:
            As `context`.
        """
        safe = self._words(words)
        self._require_room(len(self._opening(task, safe)), safe)

    def learnt_context(self, task: str, words: str) -> Document:
        """The context of words alone, with the words as a group of targets: of a pair both sides are learnt.

        The words are what the prompt has between that of no words and its end.

        Raises:
            As `context`.
        """
        whole, silent = self.context(task, words).ids, self.context(task, "").ids[:-1]
        same = int((whole[: len(silent)] == silent).long().cumprod(0).sum())
        target = Target(modality=TEXT, kind="text", columns=self.vocabulary.columns(TEXT))
        parts = [Document.given(whole[:same]), Document.given(whole[-1:])]
        if same < len(whole) - 1:
            parts.insert(1, Document.target(whole[same:-1], target))
        return join(parts)

    def answer(self, parts: Sequence[Grid | Words]) -> Document:
        """`<answer>` + the parts, which are to be denoised together, + `</answer>`.

        Raises:
            RequestError: known words and their end do not fit in the planned length.
        """
        start, end = self.vocabulary.special("answer_start"), self.vocabulary.special("answer_end")
        return join([Document.given([start]), *map(self._part, parts), Document.given([end])])

    def words_ids(self, part: Words) -> list[int]:
        """The ids of known words and their end, without padding.

        Raises:
            RequestError: they do not fit in the planned length.
        """
        assert part.text is not None
        ids = [*self.text.encode(self.text.defuse(part.text)), self.vocabulary.special("answer_end")]
        if len(ids) > part.length:
            raise RequestError(
                f"the answer takes {len(ids)} tokens, more than the {part.length} that are planned for it"
            )
        return ids

    def parts_of(self, parts: Sequence[Grid | Words], ids: Tensor, *, unknown: int | None = None) -> list[Tensor | str]:
        """The inverse of `answer`: ids int64 [n] -> the codes [*shape] or the words of each part.

        Args:
            parts: of the answer.
            ids: int64 [n].
            unknown: the id of codes that are not made yet, which become -1; None: there is none such.

        Raises:
            DataError: a position of a grid holds no code.
        """
        found: list[Tensor | str] = []
        offset = 1  # behind <answer>
        for part in parts:
            length = part.length if isinstance(part, Words) else self.layout(part).length + 2
            piece = ids[offset : offset + length]
            if isinstance(part, Words):
                found.append(self.read_text(piece))
            else:  # tags open and close a grid
                found.append(self.layout(part).to_codes(piece[1:-1], unknown=unknown))
            offset += length
        return found

    def grid_answer(self, grid: Grid) -> Document:
        """`<answer><IMAGE> rows </IMAGE></answer>`: every code is a target, masked where it is to be made.

        Each codebook is a group of targets of its own, with its own range of ids.
        """
        return self.answer([grid])

    def text_answer(self, answer: str | None, length: int) -> Document:
        """`<answer>` + `length` targets + a given `</answer>`.

        With an answer the targets are its tokens and `</answer>` (one group: they share a masking ratio) and then
        padding (a group of its own); without, they are all masked.

        Raises:
            RequestError: the answer and its end do not fit in `length`.
        """
        return self.answer([Words(length=length, text=answer)])

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

    def _opening(self, task: str, words: str) -> list[int]:
        """Ids of `<system>S</system><user> words </user>`."""
        whole = f"{SYSTEM}{self._system(task)}{SYSTEM_END}{USER}{words}{USER_END}"
        ids = self.text.encode(whole, framed=True)
        if ids[-1] != self.text.id_of(USER_END):
            raise CheckpointError(
                f"the text tokenizer ends a prompt with {self.text.token(ids[-1])!r}, not with {USER_END!r}: take its"
                " post-processor out"
            )
        return ids

    def _require_room(self, count: int, words: str) -> None:
        if count > self.template.max_prompt_tokens:
            raise RequestError(
                f"the prompt takes {count} tokens, more than the {self.template.max_prompt_tokens} that this model"
                f" takes; shorten {words[:60]!r}..."
            )

    def _words(self, words: str | Grid | None) -> str:
        assert not isinstance(words, Grid)
        return UNCONDITIONAL if words is None else self.text.defuse(words)

    def _part(self, part: Grid | Words) -> Document:
        return self._text(part) if isinstance(part, Words) else self._grid(part, target=True)

    def _text(self, part: Words) -> Document:
        vocabulary = self.vocabulary
        target = Target(modality=TEXT, kind="text", columns=vocabulary.columns(TEXT))
        if part.text is None:
            return Document.target([vocabulary.mask] * part.length, target)
        ids = self.words_ids(part)
        body = [Document.target(ids, target)]
        if len(ids) < part.length:
            padding = replace(target, kind="padding")
            body.append(Document.target([vocabulary.pad] * (part.length - len(ids)), padding))
        return join(body)

    def _grid(self, grid: Grid, *, target: bool) -> Document:
        entry, layout = self.vocabulary.modality(grid.modality), self.layout(grid)
        books = layout.books()
        is_code = books >= 0
        if grid.codes is None:
            ids = torch.where(is_code, self.vocabulary.mask, layout.end_of_line)
        else:
            codes = grid.codes.cpu()
            ids = layout.to_sequence(torch.where(codes == -1, 0, codes))
            ids[is_code] = torch.where(codes.flatten() == -1, self.vocabulary.mask, ids[is_code])
        body = Document.given(ids)
        if target:
            targets = tuple(
                Target(modality=grid.modality, kind=grid.modality, columns=layout.columns(book))
                for book in range(grid.codebooks)
            )
            if grid.given is not None:
                books[is_code] = books[is_code].masked_fill(
                    grid.given.flatten().cpu().repeat_interleave(grid.codebooks), GIVEN
                )
            body = Document(ids=ids, group=torch.where(is_code, books, GIVEN), targets=targets)
        return join([Document.given([entry.opening]), body, Document.given([entry.closing])])

    def _system(self, task: str) -> str:
        systems: Mapping[str, str] = self.template.systems
        if task not in systems:
            raise ConfigError(f"the prompt template has no task {task!r}; known: {', '.join(systems) or 'none'}")
        return systems[task]
