"""What a checkpoint folder's layout is: how its files say what the model is, and what its tensors are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.model import Backbone
from dimoo.core.errors import CheckpointError
from dimoo.presets import lumina_dimoo_8b
from dimoo.presets.config import ModelConfig
from dimoo.tokenizers.base import Tokenizer
from dimoo.tokenizers.image.tokenizer import ImageTokenizer
from dimoo.tokenizers.text import TextTokenizer
from dimoo.weights.rules import Rename

CONFIG, TEXT, CARD = "config.json", "tokenizer.json", "README.md"
PADDING, MULTIPLE = 512, 64


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A model without its backbone's weights."""

    config: ModelConfig
    text: TextTokenizer
    image: ImageTokenizer | None
    """None: a text-only model."""


class Layout(Protocol):
    """One way to lay a model out in a folder, both ways."""

    @property
    def name(self) -> str:
        """As in `save(layout=...)`."""

    def fits(self, settings: Mapping[str, Any]) -> bool:
        """Whether a folder with this config.json has this layout."""

    def backbone(self, settings: Mapping[str, Any]) -> BackboneConfig:
        """The backbone's shape.

        Raises:
            CheckpointError: config.json does not describe one that we have.
        """

    def read(self, folder: Path, settings: Mapping[str, Any]) -> Parts:
        """Everything but the backbone's weights.

        Raises:
            CheckpointError: a file is missing, corrupt or does not fit the others.
        """

    def write(self, parts: Parts, folder: Path, like: Path | None = None) -> None:
        """The inverse of `read`, into an empty folder; settings of `like` that we do not read are taken over.

        Raises:
            CheckpointError: the layout has no place for something.
        """

    def rules(self, model: Backbone) -> Sequence[Rename]:
        """The table between our names of the model's tensors and the layout's; every name in it is required."""


def fits_rows(ids: int, rows: int) -> bool:
    """Whether tables of `rows` rows are those of `ids` ids: as many, or padded up to a multiple as hardware likes it.

    Any other number of rows means that the ids are not those of the tables.
    """
    return rows == ids or (0 < rows - ids < PADDING and rows % MULTIPLE == 0)


def check(parts: Parts) -> None:
    """Refuse parts that do not belong together.

    Raises:
        CheckpointError: lists all of `misfits`.
    """
    if found := misfits(parts):
        raise CheckpointError("; ".join(found))


def misfits(parts: Parts) -> list[str]:
    """Why parts do not belong together: vocabulary against backbone, tokenizers against vocabulary, fingerprints."""
    config, vocabulary, found = parts.config, parts.config.vocabulary, list[str]()
    if vocabulary.size > config.backbone.vocab_size:
        found.append(
            f"the vocabulary has {vocabulary.size} ids, the backbone {config.backbone.vocab_size}; it needs as many"
        )
    # The tags of the released tokenizer may lie behind the ids of codes; no prompt has them.
    if parts.text.size > vocabulary.text_size and vocabulary != lumina_dimoo_8b.VOCABULARY:
        found.append(
            f"the text tokenizer has {parts.text.size} ids, the vocabulary room for {vocabulary.text_size}: text and"
            " codes would overlap; take the tokenizer that the model was trained with"
        )
    codes = {entry.name: entry.size for entry in vocabulary.modalities}
    own = {} if parts.image is None else {parts.image.modality: parts.image.codebook_size * parts.image.codebooks}
    if codes != own:
        found.append(
            f"the vocabulary has codes for {codes or 'no modality'}, the tokenizers give {own or 'none'}; each modality"
            " needs its own tokenizer, with as many codes as the vocabulary has"
        )
    given = {"text": parts.text.fingerprint, "image": None if parts.image is None else parts.image.fingerprint}
    for what, wanted in (("text", config.text_fingerprint), ("image", config.image_fingerprint)):
        if wanted is not None and wanted != given[what]:
            found.append(
                f"the {what} tokenizer has the fingerprint {given[what]}, the model was trained with {wanted};"
                f" take the tokenizer that it was trained with, or set {what}_fingerprint in config.json to null"
            )
    return found


def with_fingerprints(config: ModelConfig, text: TextTokenizer, image: Tokenizer | None) -> ModelConfig:
    """The config of a model that is trained with these tokenizers: loading will refuse others."""
    image_fingerprint = None if image is None else image.fingerprint
    return config.model_copy(update={"text_fingerprint": text.fingerprint, "image_fingerprint": image_fingerprint})
