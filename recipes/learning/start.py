"""What a diffusion run starts from: tokenizers, id space, and a backbone with its first weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from dimoo.backbone.build import build_backbone
from dimoo.backbone.init import grow, grow_codes, initialise, place_codes
from dimoo.backbone.model import Backbone
from dimoo.core.config import parse
from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.data.example import Source
from dimoo.presets.config import ModelConfig
from dimoo.tasks.grow import multimodal
from dimoo.tokenizers.image.tokenizer import ImageTokenizer
from dimoo.tokenizers.text import SPECIAL_TOKENS, TextTokenizer
from dimoo.tokenizers.vocabulary import Vocabulary
from dimoo.weights.checkpoint import Checkpoint
from dimoo.weights.hub import MINI, resolve
from dimoo.weights.image import load_image_tokenizer
from dimoo.weights.layout import TEXT, Parts, with_fingerprints
from recipes.config import OF_WARM_START, DiffusionRecipe
from recipes.learning.growth import place_stand_ins, stand_ins

MAX_TOKENS = 2048
"""What a request and its answer may take together, of models from scratch: far beyond what they were taught."""
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
            parts = Checkpoint.open(resolve(str(recipe.warm_start))).parts()
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
            ConfigError: its text ids are not the recipe's.
            CheckpointError: it cannot be read.
        """
        checkpoint = Checkpoint.open(resolve(str(self.recipe.warm_start)))
        rows, total = checkpoint.backbone_config().vocab_size, self.recipe.backbone.vocab_size
        parts = checkpoint.parts()
        if self.recipe.text_tokenizer != OF_WARM_START and parts.text.fingerprint != self.text.fingerprint:
            raise ConfigError(
                f"{self.recipe.warm_start!r} has another text tokenizer than {self.recipe.text_tokenizer!r}: its rows"
                " stand for other words; set text_tokenizer to warm_start"
            )
        if not parts.config.vocabulary.modalities:
            return parts.text.size
        text_size = parts.config.vocabulary.text_size
        if text_size != self.vocabulary.text_size:
            raise ConfigError(
                f"{self.recipe.warm_start!r} has {text_size} text ids, but backbone.vocab_size {total} leaves"
                f" {self.vocabulary.text_size} below the image codes; set it to"
                f" {text_size + self.vocabulary.size - self.vocabulary.text_size}"
            )
        return rows

    def backbone(self, source: Source) -> Backbone:
        """The backbone with its first weights.

        From scratch they are drawn from the seed, codes as their vectors lie (`place_codes`). A warm start gives all of
        them; rows that a text-only one lacks are drawn as the kept rows are distributed (`grow`), codes that one with
        fewer of them lacks begin as what they stand for in pairs of pictures of the source (`recipes.learning.growth`).

        Raises:
            ConfigError: the warm start does not fit; or only new rows are to be trained, and there are none.
            CheckpointError: it cannot be read.
        """
        recipe, seed, total = self.recipe, self.recipe.run.seed, self.recipe.backbone.vocab_size
        if recipe.warm_start is None:
            backbone = initialise(build_backbone(recipe.backbone), generator(seed, "train", "weights"))
            if recipe.place_codes:
                place_codes(backbone, self._first_code, self._code_vectors, generator(seed, "train", "codes"))
            return backbone
        known = self.known
        if recipe.new_rows_steps and known == total:
            raise ConfigError(
                f"new_rows_steps is {recipe.new_rows_steps}, but {recipe.warm_start!r} knows all {total} ids; set it to"
                " 0"
            )
        checkpoint = Checkpoint.open(resolve(recipe.warm_start))
        rows = checkpoint.backbone_config().vocab_size
        backbone = build_backbone(recipe.backbone.model_copy(update={"vocab_size": rows}))
        checkpoint.filling(backbone).into(backbone)
        if known == total:
            return backbone
        if known <= self._first_code:  # a text-only model: no code has a row
            return grow(backbone, total, generator(seed, "train", "new ids"), kept=known)
        grown = grow_codes(backbone, self._code_vectors, self._first_code)
        found = stand_ins(source, self.image, known=known - self._first_code, examples=PAIRED)
        place_stand_ins(grown, self._first_code, found, generator(seed, "train", "stand-ins"))
        return grown

    @property
    def _first_code(self) -> int:
        return self.vocabulary.columns(self.image.modality)[0]

    @cached_property
    def _code_vectors(self) -> Tensor:
        """One vector per code, [K, C]."""
        return self.image.quantizer.lookup(torch.arange(self.image.codebook_size)[None, None])[0, :, 0].T


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
