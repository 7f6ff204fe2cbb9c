"""Text <-> ids, on the `tokenizers` library: any `tokenizer.json` loads, and a small BPE can be trained."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as HfTokenizer

from dimoo.core.errors import CheckpointError

SPECIAL_TOKENS = {
    "mask": "<|mask|>",
    "pad": "<|pad|>",
    "end_of_text": "<|endoftext|>",
    "end_of_line": "<end_of_line>",
    "unconditional": "<uncondition>",
    "answer_start": "<answer>",
    "answer_end": "</answer>",
    "image_start": "<IMAGE>",
    "image_end": "</IMAGE>",
}
"""Special tokens that a tokenizer trained here gets, by the vocabulary's names."""
PROMPT_TAGS = ("<system>", "</system>", "<user>", "</user>")
"""Tags of the prompt template; single tokens so that a prompt's borders cost one id each."""


_TAG = re.compile(r"<[^\s<>]+>")


class TextTokenizer:
    """A `tokenizers.Tokenizer` with the few calls that dimoo needs. Immutable."""

    def __init__(self, tokenizer: HfTokenizer) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, path: Path) -> TextTokenizer:
        """Read a `tokenizer.json`.

        Raises:
            CheckpointError: the file is missing or is not a tokenizer.
        """
        if not path.is_file():
            raise CheckpointError(f"no text tokenizer at {path}")
        try:
            return cls(HfTokenizer.from_file(str(path)))
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(f"{path} is not a tokenizer.json: {error}") from error

    def save(self, path: Path) -> None:
        """Write `tokenizer.json`."""
        path.write_text(self._tokenizer.to_str(pretty=True), encoding="utf-8")

    @cached_property
    def size(self) -> int:
        """One past the largest id, special tokens included."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @cached_property
    def fingerprint(self) -> str:
        """Digest of what decides the ids: tokens, merges, added tokens; not of how a version of the library writes."""
        whole = json.loads(self._tokenizer.to_str())
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in whole["model"].get("merges") or ()]
        added = sorted((entry["id"], entry["content"]) for entry in whole.get("added_tokens") or ())
        tokens = sorted(self._tokenizer.get_vocab(with_added_tokens=False).items())
        digest = hashlib.blake2b(json.dumps([tokens, merges, added]).encode(), digest_size=8)
        return digest.hexdigest()

    @cached_property
    def markup(self) -> Mapping[int, str]:
        """Tokens that mean something to the model rather than to a reader, by id: special ones, and `<tags>`.

        Tags count whether or not the tokenizer's file calls them special. Other added words (a tokenizer may have
        "http://" or runs of spaces) are a user's to use.
        """
        every = self._tokenizer.get_added_tokens_decoder().items()
        return {index: added.content for index, added in every if added.special or _TAG.fullmatch(added.content)}

    def encode(self, text: str, *, framed: bool = False) -> list[int]:
        """Ids of a string; special tokens written out in it become their single ids.

        Args:
            text: the string.
            framed: put around it what the tokenizer puts around a whole text (its post-processor: mostly nothing).
        """
        return list(self._tokenizer.encode(text, add_special_tokens=framed).ids)

    def defuse(self, text: str) -> str:
        """Make user text safe to place in a template: the spelling of a token of `markup` encodes as words."""
        for content in self.markup.values():
            # A zero-width space after the first character keeps the look and breaks the match.
            text = text.replace(content, content[0] + "\u200b" + content[1:])
        return text

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, those of `markup` left out."""
        words = [index for index in ids if index not in self.markup]
        return str(self._tokenizer.decode(words, skip_special_tokens=True)).strip()

    def token(self, index: int) -> str | None:
        """The spelling of an id, None where it has none."""
        found: str | None = self._tokenizer.id_to_token(index)
        return found

    def has(self, token: str) -> bool:
        """Whether this is one of its tokens."""
        return self._tokenizer.token_to_id(token) is not None

    def id_of(self, token: str) -> int:
        """The id of one token.

        Raises:
            CheckpointError: the tokenizer does not have it.
        """
        index = self._tokenizer.token_to_id(token)
        if index is None:
            raise CheckpointError(f"the text tokenizer has no token {token!r}; add it before building a vocabulary")
        return int(index)

    def with_tokens(self, tokens: Sequence[str]) -> TextTokenizer:
        """A new tokenizer that also has these special tokens: at the next free ids in order, those it has as they are.

        Raises:
            CheckpointError: the ids that the library gives are not the next free ones: the tokenizer's ids have gaps.
        """
        new = [token for token in dict.fromkeys(tokens) if not self.has(token)]
        copy = HfTokenizer.from_str(self._tokenizer.to_str())
        # Not normalized: only the exact spelling is the token, which is what `defuse` breaks.
        copy.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in new])
        grown = TextTokenizer(copy)
        ids = [grown.id_of(token) for token in new]
        if ids != list(range(self.size, self.size + len(new))):
            raise CheckpointError(
                f"the new tokens {new} got the ids {ids} in a text tokenizer whose ids end at {self.size - 1}; its ids"
                " have gaps: renumber them without"
            )
        return grown


def train_bpe(texts: Iterable[str], *, size: int) -> TextTokenizer:
    """Train a byte-level BPE (any UTF-8 string round-trips) with dimoo's special tokens as its first ids."""
    tokenizer = HfTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[*SPECIAL_TOKENS.values(), *PROMPT_TAGS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return TextTokenizer(tokenizer)
