"""What a diffusion run starts from: tokenizers, id space, and a backbone with its first weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.init import grown_rows, initialise, place_codes, rows_with_codes
from dimoo.backbone.lora import begin_adapters
from dimoo.backbone.model import Backbone
from dimoo.core.config import parse
from dimoo.core.errors import CheckpointError, ConfigError
from dimoo.core.rng import generator
from dimoo.core.sharded import fill
from dimoo.data.example import Source
from dimoo.presets.config import ModelConfig
from dimoo.tasks.grow import multimodal
from dimoo.tokenizers.image.tokenizer import ImageTokenizer
from dimoo.tokenizers.text import SPECIAL_TOKENS, TextTokenizer
from dimoo.tokenizers.vocabulary import Vocabulary
from dimoo.weights.checkpoint import Checkpoint, Filling
from dimoo.weights.hub import MINI, resolve
from dimoo.weights.image import load_image_tokenizer
from dimoo.weights.layout import TEXT, Parts, with_fingerprints
from recipes.config import OF_WARM_START, DiffusionRecipe
from recipes.learning.growth import place_stand_ins, stand_ins
from recipes.learning.kept import fingerprint_of

MAX_TOKENS = 2048
"""What a request and its answer may take together, of models from scratch: far beyond what they were taught."""
SHAPE = tuple(name for name in BackboneConfig.model_fields if name not in ("vocab_size", "attention"))
"""Settings of the backbone that a warm start must share: weights fit another `rope_theta`, but mean something else."""
PAIRED = 16_384
"""Examples in which a warm start with fewer codes looks for what the added ones stand for."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Tokenizers and id space of a run, and where its weights come from."""

    recipe: DiffusionRecipe
    text: TextTokenizer
    image: ImageTokenizer
    vocabulary: Vocabulary
    before: ModelConfig | None = None
    """That of the warm start, where its text tokenizer is taken."""

    @classmethod
    def of(cls, recipe: DiffusionRecipe) -> Start:
        """Read the tokenizers that a recipe names.

        Raises:
            ConfigError: their ids do not fit `backbone.vocab_size`, or not those of the warm start.
            CheckpointError: a tokenizer cannot be read, or not that of the warm start, where it is to be taken.
        """
        image = load_image_tokenizer(recipe.image_tokenizer)
        if recipe.text_tokenizer == OF_WARM_START:
            parts = _opened(recipe).parts()
            text, vocabulary = _with_codes(recipe, parts, image)
            return cls(recipe=recipe, text=text, image=image, vocabulary=vocabulary, before=parts.config)
        text = TextTokenizer.load(MINI / TEXT if recipe.text_tokenizer == "mini" else Path(recipe.text_tokenizer))
        vocabulary = make_vocabulary(text, image, total=recipe.backbone.vocab_size)
        return cls(recipe=recipe, text=text, image=image, vocabulary=vocabulary)

    def model_config(self) -> ModelConfig:
        """What is trained, as it is exported: how the warm start is used where its text tokenizer is, else anew."""
        recipe = self.recipe
        settings = {
            "name": recipe.run.name,
            "backbone": recipe.backbone,
            "vocabulary": self.vocabulary,
            "template": recipe.template,
            "tasks": recipe.tasks,
            "image": recipe.sampling,
            "answer_tokens": recipe.mixture.question_tokens,
            "caption_tokens": recipe.mixture.caption_tokens,
        }
        if self.before is None:
            config = ModelConfig.model_validate({**settings, "max_tokens": MAX_TOKENS})
        else:
            config = self.before.model_copy(update=settings)
        return with_fingerprints(config, self.text, self.image)

    @cached_property
    def known(self) -> int:
        """Ids below this have rows in the warm start; those from it on are new.

        Raises:
            ConfigError: its text ids are not the recipe's, or its codes not those of the image tokenizer.
            CheckpointError: it cannot be read.
        """
        checkpoint = _opened(self.recipe)
        rows, total = checkpoint.backbone_config().vocab_size, self.recipe.backbone.vocab_size
        parts = checkpoint.parts()
        if self.recipe.text_tokenizer != OF_WARM_START and parts.text.fingerprint != self.text.fingerprint:
            raise ConfigError(
                f"{self.recipe.warm_start!r} has another text tokenizer than {self.recipe.text_tokenizer!r}: its rows"
                " stand for other words; set text_tokenizer to warm_start"
            )
        if parts.image is None:
            return parts.text.size
        if not _has_codes_of(self.image, parts.image):
            raise ConfigError(
                f"{self.recipe.warm_start!r} has another image tokenizer than {self.recipe.image_tokenizer!r}: its rows"
                " stand for other codes; set image_tokenizer to its own, or to one that extends it"
            )
        text_size = parts.config.vocabulary.text_size
        if text_size != self.vocabulary.text_size:
            raise ConfigError(
                f"{self.recipe.warm_start!r} has {text_size} text ids, but backbone.vocab_size {total} leaves"
                f" {self.vocabulary.text_size} below the image codes; set it to"
                f" {text_size + self.vocabulary.size - self.vocabulary.text_size}"
            )
        return rows

    def check(self) -> None:
        """See that `fill` can do its work; of the warm start only headers are read.

        Raises:
            ConfigError: the warm start does not fit; only new rows are to be trained, and there are none; or new ids
                have rows that neither the warm start nor adapters would hold.
            CheckpointError: it cannot be read.
        """
        recipe, total = self.recipe, self.recipe.backbone.vocab_size
        if recipe.warm_start is None:
            return
        if recipe.new_rows_steps and self.known == total:
            raise ConfigError(
                f"new_rows_steps is {recipe.new_rows_steps}, but {recipe.warm_start!r} knows all {total} ids; set it to"
                " 0"
            )
        if recipe.lora is not None and len(recipe.lora.modules_to_save) < 2 and self.known < total:
            raise ConfigError(
                f"{recipe.warm_start!r} lacks the ids from {self.known} to {total - 1}, whose rows adapters do not"
                " hold; set lora.modules_to_save to embedding and unembedding"
            )
        _ = self._filling

    def fill(self, backbone: Backbone, source: Source | None) -> None:
        """Give a backbone, which may have adapters and may be sharded, its first weights in place.

        One tensor is made at a time, and each process takes its part of it: so it holds its parts and one tensor, or
        two of a table that grows. Values are the same for any number of processes.

        From scratch they are drawn from the seed, codes as their vectors lie (`place_codes`). A warm start gives all of
        them; rows that a text-only one lacks are drawn as the kept rows are distributed (`grown_rows`), codes that one
        with fewer of them lacks begin as what they stand for in pairs of pictures of the source
        (`recipes.learning.growth`).

        Args:
            backbone: whose weights are there, with any values.
            source: of the pairs; None: tables that grow are left as they are, for a checkpoint to give.

        Raises:
            ConfigError: the warm start does not fit.
            CheckpointError: it cannot be read.
        """
        recipe, seed = self.recipe, self.recipe.run.seed
        if recipe.warm_start is None:
            initialise(backbone, generator(seed, "train", "weights"))
            if recipe.place_codes:
                place_codes(backbone, self._first_code, self._code_vectors, generator(seed, "train", "codes"))
        elif self.known == recipe.backbone.vocab_size:
            self._filling.into(backbone)
        else:
            self._grow(backbone, source)
        if recipe.lora is not None:
            begin_adapters(backbone, recipe.lora, generator(seed, "train", "adapters"))

    @cached_property
    def fingerprint(self) -> str | None:
        """Which weights the warm start has, for which all are read; None: there is none."""
        return None if self.recipe.warm_start is None else fingerprint_of(self._filling)

    def _grow(self, backbone: Backbone, source: Source | None) -> None:
        """All weights of the warm start, with more rows in the tables of ids."""
        seed, tables = self.recipe.run.seed, {"embedding.weight", "unembedding.weight"}
        own = backbone.state_dict()
        self._filling.only(own.keys() - tables).into(backbone)
        if source is None:
            return
        new_ids = generator(seed, "train", "new ids")
        for table in sorted(tables):  # drawn in this order, however they are stored
            ((_, rows),) = self._filling.only({table}).values()
            rows = rows.to(own[table].dtype)
            if self.known <= self._first_code:  # a text-only model: no code has a row
                fill(own[table], grown_rows(rows[: self.known], len(own[table]), new_ids))
                continue
            rows = rows_with_codes(rows, self._code_vectors, self._first_code)
            if table == "unembedding.weight":
                found = stand_ins(source, self.image, known=self.known - self._first_code, examples=PAIRED)
                place_stand_ins(rows, self._first_code, found, generator(seed, "train", "stand-ins"))
            fill(own[table], rows)

    @cached_property
    def _filling(self) -> Filling:
        """The tensors of the warm start, unread."""
        checkpoint = _opened(self.recipe)
        theirs = checkpoint.backbone_config()
        _require_shape(str(self.recipe.warm_start), theirs, self.recipe.backbone)
        rows = theirs.vocab_size
        with torch.device("meta"):
            shape = build_backbone(self.recipe.backbone.model_copy(update={"vocab_size": rows}))
        return checkpoint.filling(shape)

    @property
    def _first_code(self) -> int:
        return self.vocabulary.columns(self.image.modality)[0]

    @cached_property
    def _code_vectors(self) -> Tensor:
        """One vector per code, [K, C]."""
        return _vectors(self.image)


def _vectors(image: ImageTokenizer) -> Tensor:
    return image.quantizer.lookup(torch.arange(image.codebook_size)[None, None])[0, :, 0].T


def _has_codes_of(image: ImageTokenizer, before: ImageTokenizer) -> bool:
    """Whether the codes of a tokenizer mean what those of another do: it is that one, or extends it."""
    if image.codebook_size <= before.codebook_size:
        return image.fingerprint == before.fingerprint
    ours, theirs = _vectors(image), _vectors(before)
    return ours.shape[1] == theirs.shape[1] and torch.equal(ours[: len(theirs)], theirs)


def _opened(recipe: DiffusionRecipe) -> Checkpoint:
    """The warm start, unread.

    Raises:
        CheckpointError: there is none; names the setting.
    """
    try:
        return Checkpoint.open(resolve(str(recipe.warm_start)))
    except CheckpointError as error:
        raise CheckpointError(f"warm_start: {error}; train it before, or start from another with --from") from error


def _require_shape(place: str, theirs: BackboneConfig, ours: BackboneConfig) -> None:
    """That weights of a checkpoint fit: also heads, of which weights of one shape may be any number."""
    pairs = {f"backbone.{name}": (getattr(ours, name), getattr(theirs, name)) for name in SHAPE}
    other = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if other:
        differ = ", ".join(f"{name} {own} against its {its}" for name, (own, its) in other.items())
        wanted = " ".join(f"--set {name}={its}" for name, (_, its) in other.items())
        raise ConfigError(f"{place!r} has another shape than the recipe: {differ}; take its: {wanted}")


def make_vocabulary(text: TextTokenizer, image: ImageTokenizer, *, total: int) -> Vocabulary:
    """The id space of a model of `total` ids: image codes last, text ids before them.

    Raises:
        ConfigError: the text tokenizer does not fit below the image codes.
    """
    text_size = _text_size(text, image, total)
    named = {name: text.id_of(token) for name, token in SPECIAL_TOKENS.items()}
    opening, closing = named.pop("image_start"), named.pop("image_end")
    return parse(Vocabulary, {"text_size": text_size, **named}).with_modality(
        image.modality, image.codebook_size * image.codebooks, opening=opening, closing=closing
    )


def _text_size(text: TextTokenizer, image: ImageTokenizer, total: int) -> int:
    codes = image.codebook_size * image.codebooks
    if total - codes < text.size:
        raise ConfigError(
            f"backbone.vocab_size is {total}, but {text.size} text ids and {codes} image codes need"
            f" {text.size + codes}; set it to at least that"
        )
    return total - codes


def _with_codes(recipe: DiffusionRecipe, parts: Parts, image: ImageTokenizer) -> tuple[TextTokenizer, Vocabulary]:
    """Text tokenizer and ids of the warm start, with those of pictures added where it is a text-only model."""
    vocabulary, total = parts.config.vocabulary, recipe.backbone.vocab_size
    if not vocabulary.modalities:
        text, vocabulary = multimodal(vocabulary, parts.text, image)
        return text, vocabulary.shifted(_text_size(text, image, total))
    codes = {entry.name: entry.size for entry in vocabulary.modalities}
    if codes != {image.modality: image.codebook_size * image.codebooks} or total != parts.config.backbone.vocab_size:
        raise ConfigError(
            f"{recipe.warm_start!r} has {parts.config.backbone.vocab_size} ids with codes for {codes}, the recipe"
            f" {total} with {image.codebook_size * image.codebooks} codes for {image.modality!r}; set"
            " backbone.vocab_size and image_tokenizer to what the checkpoint has"
        )
    return parts.text, vocabulary
