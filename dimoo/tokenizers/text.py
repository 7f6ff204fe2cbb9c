"""Text <-> ids, on the `tokenizers` library: any `tokenizer.json` loads, and a small BPE can be trained."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer as HfTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

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

    @property
    def size(self) -> int:
        """Number of ids, special tokens included."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    @property
    def fingerprint(self) -> str:
        """Digest of the whole tokenizer."""
        return hashlib.blake2b(self._tokenizer.to_str().encode(), digest_size=8).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Ids of a string; special tokens written out in it become their single ids."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def defuse(self, text: str) -> str:
        """Make user text safe to place in a template: the spelling of a special token or tag encodes as words."""
        for added in self._tokenizer.get_added_tokens_decoder().values():
            # Added words that are not special (a tokenizer may have "http://" or runs of spaces) are a user's to use.
            if added.special or added.content in PROMPT_TAGS:
                # A zero-width space after the first character keeps the look and breaks the match.
                text = text.replace(added.content, added.content[0] + "\u200b" + added.content[1:])
        return text

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def id_of(self, token: str) -> int:
        """The id of one token.

        Raises:
            CheckpointError: the tokenizer does not have it.
        """
        index = self._tokenizer.token_to_id(token)
        if index is None:
            raise CheckpointError(f"the text tokenizer has no token {token!r}; add it before building a vocabulary")
        return int(index)


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
