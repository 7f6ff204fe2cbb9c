"""Recipes -> modules ready to train, and trained modules -> exported folders."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from typing_extensions import assert_never

from dimoo.backbone.build import build_backbone
from dimoo.backbone.compiled import compiled
from dimoo.backbone.init import grow_codes, initialise, place_codes
from dimoo.backbone.model import Backbone
from dimoo.backbone.recompute import recomputed
from dimoo.core.config import parse
from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.data.build import build_source
from dimoo.data.config import WorldSourceConfig
from dimoo.data.documents import DocumentBuilder
from dimoo.data.example import Source
from dimoo.denoise.objective import MaskedObjective
from dimoo.diffusion import build as parts
from dimoo.evaluation.suites import WORLD_FILE
from dimoo.presets.config import ModelConfig
from dimoo.tasks.model import Dimoo
from dimoo.tokenizers.image.build import build_image_tokenizer, build_objective
from dimoo.tokenizers.image.config import VectorQuantizerConfig
from dimoo.tokenizers.image.extend import extended
from dimoo.tokenizers.image.files import load_image_tokenizer, save_image_tokenizer
from dimoo.tokenizers.image.tokenizer import ImageTokenizer
from dimoo.tokenizers.prompts import Prompts
from dimoo.tokenizers.text import SPECIAL_TOKENS, TextTokenizer
from dimoo.tokenizers.vocabulary import Vocabulary
from dimoo.weights.checkpoint import Checkpoint
from dimoo.weights.hub import MINI, resolve
from dimoo.weights.layout import TEXT, with_fingerprints
from dimoo.weights.ours import IMAGE
from recipes.config import DiffusionRecipe, Recipe, TokenizerRecipe
from recipes.diffusion import DiffusionModule
from recipes.growth import place_stand_ins, stand_ins
from recipes.tokenizer import TokenizerModule

PAIRED = 16_384
"""Examples in which a warm start with fewer codes looks for what the added ones stand for."""

MAX_TOKENS = 2048
"""What a request and its answer may take together, of models that recipes make: far beyond what they were taught."""


def build_module(recipe: Recipe) -> TokenizerModule | DiffusionModule:
    """Everything that a run of any kind needs; see `tokenizer_module` and `diffusion_module`."""
    match recipe:
        case TokenizerRecipe():
            return tokenizer_module(recipe)
        case DiffusionRecipe():
            return diffusion_module(recipe)
        case _:
            assert_never(recipe)


def tokenizer_module(recipe: TokenizerRecipe) -> TokenizerModule:
    """Everything that a tokenizer run needs; weights are fresh, or those of the tokenizer that it `extends`.

    Raises:
        ConfigError: the tokenizer that is extended differs from the recipe's in more than the number of codes.
        CheckpointError: it cannot be read.
    """
    run = recipe.run
    return TokenizerModule(
        recipe,
        tokenizer=_tokenizer(recipe),
        objective=build_objective(recipe.objective, generator(run.seed, "tokenizer", "discriminator")),
        source=build_source(recipe.source, seed=run.seed, examples=run.steps * run.batch_size),
    )


def diffusion_module(recipe: DiffusionRecipe, backbone: Backbone | None = None) -> DiffusionModule:
    """Everything that a diffusion run needs; weights are fresh, or those of `warm_start`.

    Args:
        recipe: the full config.
        backbone: one to train in place of that; to look at a step, it may be on the meta device.

    Raises:
        ConfigError: the vocabulary of the tokenizers does not fit the backbone, or not that of the warm start.
        CheckpointError: a tokenizer or the warm start cannot be read.
    """
    run = recipe.run
    image = load_image_tokenizer(_tokenizer_folder(recipe.image_tokenizer))
    text = TextTokenizer.load(MINI / TEXT if recipe.text_tokenizer == "mini" else Path(recipe.text_tokenizer))
    vocabulary = make_vocabulary(text, image, total=recipe.backbone.vocab_size)
    prompts = Prompts(text=text, vocabulary=vocabulary, template=recipe.template)
    schedule = parts.build_schedule(recipe.schedule)
    source = build_source(recipe.source, seed=run.seed, examples=run.steps * run.batch_size)
    if backbone is None:
        backbone = _backbone(recipe, vocabulary, image, source)
    return DiffusionModule(
        recipe,
        backbone=recomputed(compiled(backbone) if recipe.compile else backbone, recipe.recompute),
        builder=DocumentBuilder(prompts=prompts, image_tokenizer=image, mixture=recipe.mixture, tasks=recipe.tasks),
        source=source,
        objective=MaskedObjective(
            vocabulary=vocabulary,
            schedule=schedule,
            times=parts.build_times(recipe.times),
            corruption=parts.build_corruption(recipe.corruption),
            weight=parts.build_loss_weight(recipe.loss_weight, schedule),
            full_up_to=recipe.full_up_to,
            slice_loss=recipe.slice_loss,
            chunk=recipe.loss_chunk,
        ),
    )


def make_vocabulary(text: TextTokenizer, image: ImageTokenizer, *, total: int) -> Vocabulary:
    """The id space of a model of `total` ids: image codes last, text ids before them.

    Raises:
        ConfigError: the text tokenizer does not fit below the image codes.
    """
    codes = image.codebook_size * image.codebooks
    text_size = total - codes
    if text_size < text.size:
        raise ConfigError(
            f"backbone.vocab_size is {total}, but {text.size} text ids and {codes} image codes need"
            f" {text.size + codes}; set it to at least that"
        )
    named = {name: text.id_of(token) for name, token in SPECIAL_TOKENS.items()}
    opening, closing = named.pop("image_start"), named.pop("image_end")
    return parse(Vocabulary, {"text_size": text_size, **named}).with_modality(
        image.modality, codes, opening=opening, closing=closing
    )


def model_of(module: DiffusionModule) -> Dimoo:
    """The model that a diffusion module trains, as users will load it."""
    recipe, builder = module.recipe, module.builder
    config = ModelConfig(
        name=recipe.run.name,
        backbone=recipe.backbone,
        vocabulary=builder.prompts.vocabulary,
        template=recipe.template,
        tasks=recipe.tasks,
        image=recipe.sampling,
        answer_tokens=recipe.mixture.question_tokens,
        caption_tokens=recipe.mixture.caption_tokens,
        max_tokens=MAX_TOKENS,
    )
    return Dimoo(
        with_fingerprints(config, builder.prompts.text, builder.image_tokenizer),
        backbone=module.backbone,
        text_tokenizer=builder.prompts.text,
        image_tokenizer=builder.image_tokenizer,
    )


def export(module: TokenizerModule | DiffusionModule, folder: Path) -> None:
    """Write what was trained to a folder that `dimoo` loads, and the world that it was trained for, if it was."""
    if isinstance(module, TokenizerModule):
        save_image_tokenizer(module.tokenizer, folder)
    else:
        model_of(module).save(folder, dtype=torch.bfloat16)
        source = module.recipe.source
        if isinstance(source, WorldSourceConfig):
            source.phases[-1].world.save(folder / WORLD_FILE)


def _tokenizer_folder(name: str) -> Path:
    return MINI / IMAGE if name == "mini" else Path(name)


def _tokenizer(recipe: TokenizerRecipe) -> ImageTokenizer:
    if recipe.extends is None:
        return build_image_tokenizer(recipe.tokenizer, generator(recipe.run.seed, "tokenizer", "weights"))
    old, wanted = load_image_tokenizer(_tokenizer_folder(recipe.extends)), recipe.tokenizer.quantizer
    if not isinstance(wanted, VectorQuantizerConfig):
        raise ConfigError(f"extends needs a learned codebook, not {wanted.kind!r}; take quantizer vq")
    tokenizer = extended(old, wanted.size)
    if tokenizer.config != recipe.tokenizer:
        raise ConfigError(
            f"the tokenizer {recipe.extends!r} has {old.config}, the recipe {recipe.tokenizer}; they may differ in the"
            " number of codes only"
        )
    return tokenizer


def _backbone(recipe: DiffusionRecipe, vocabulary: Vocabulary, image: ImageTokenizer, source: Source) -> Backbone:
    backbone = build_backbone(recipe.backbone)
    if recipe.warm_start is None:
        seed = recipe.run.seed
        initialise(backbone, generator(seed, "train", "weights"))
        if recipe.place_codes:
            start, _ = vocabulary.columns(image.modality)
            place_codes(backbone, start, _code_vectors(image), generator(seed, "train", "codes"))
        return backbone
    checkpoint = Checkpoint.open(resolve(recipe.warm_start))
    before = checkpoint.backbone_config().vocab_size
    if before == recipe.backbone.vocab_size:
        checkpoint.filling(backbone).into(backbone)
        return backbone
    known = checkpoint.parts().config.vocabulary.text_size
    if known != vocabulary.text_size:
        raise ConfigError(
            f"{recipe.warm_start!r} has {known} text ids, but backbone.vocab_size {recipe.backbone.vocab_size} leaves"
            f" {vocabulary.text_size} below the image codes; set it to {known + vocabulary.size - vocabulary.text_size}"
        )
    small = build_backbone(recipe.backbone.model_copy(update={"vocab_size": before}))
    checkpoint.filling(small).into(small)
    start, _ = vocabulary.columns(image.modality)
    grown = grow_codes(small, _code_vectors(image), start)
    found = stand_ins(source, image, known=before - start, examples=PAIRED)
    place_stand_ins(grown, start, found, generator(recipe.run.seed, "train", "stand-ins"))
    return grown


def _code_vectors(image: ImageTokenizer) -> Tensor:
    """One vector per code, [K, C]."""
    return image.quantizer.lookup(torch.arange(image.codebook_size)[None, None])[0, :, 0].T
