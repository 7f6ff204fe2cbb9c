"""Recipes -> modules ready to train, and trained modules -> exported folders."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from typing_extensions import assert_never

from dimoo.backbone.build import build_backbone
from dimoo.backbone.compiled import compiled
from dimoo.backbone.lora import adapted, merged
from dimoo.backbone.model import Backbone
from dimoo.backbone.recompute import recomputed
from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.data.build import build_source
from dimoo.data.checking import Progress, unseen
from dimoo.data.config import WorldSourceConfig
from dimoo.data.documents import DocumentBuilder
from dimoo.data.example import Source
from dimoo.denoise.objective import MaskedObjective
from dimoo.diffusion import build as parts
from dimoo.evaluation.suites import WORLD_FILE
from dimoo.tasks.model import Dimoo
from dimoo.tokenizers.image.build import build_image_tokenizer, build_objective
from dimoo.tokenizers.image.config import VectorQuantizerConfig
from dimoo.tokenizers.image.extend import extended
from dimoo.tokenizers.image.files import save_image_tokenizer
from dimoo.tokenizers.image.tokenizer import ImageTokenizer
from dimoo.tokenizers.prompts import Prompts
from dimoo.tokenizers.vocabulary import Vocabulary
from dimoo.weights.adapters import write_adapter
from dimoo.weights.image import load_image_tokenizer
from recipes.config import DiffusionRecipe, Recipe, TokenizerRecipe
from recipes.learning.diffusion import DiffusionModule
from recipes.learning.start import Start
from recipes.learning.tokenizer import TokenizerModule

ADAPTER = "adapter"


def build_module(
    recipe: Recipe,
    *,
    filled: bool = True,
    restored: bool = False,
    source: Source | None = None,
    progress: Progress = unseen,
) -> TokenizerModule | DiffusionModule:
    """Everything that a run of any kind needs; see `tokenizer_module` and `diffusion_module`."""
    match recipe:
        case TokenizerRecipe():
            return tokenizer_module(recipe, source=source, progress=progress)
        case DiffusionRecipe():
            return diffusion_module(recipe, filled=filled, restored=restored, source=source, progress=progress)
        case _:
            assert_never(recipe)


def tokenizer_module(
    recipe: TokenizerRecipe, *, source: Source | None = None, progress: Progress = unseen
) -> TokenizerModule:
    """Everything that a tokenizer run needs; weights are fresh, or those of the tokenizer that it `extends`.

    Args:
        recipe: the full config.
        source: of examples, in place of the recipe's.
        progress: is told how many rows of files are looked at.

    Raises:
        ConfigError: the tokenizer that is extended differs from the recipe's in more than the number of codes.
        CheckpointError: it cannot be read.
    """
    run = recipe.run
    if source is None:
        source = build_source(recipe.source, seed=run.seed, examples=run.steps * run.batch_size, progress=progress)
    return TokenizerModule(
        recipe,
        tokenizer=_tokenizer(recipe),
        objective=build_objective(recipe.objective, generator(run.seed, "tokenizer", "discriminator")),
        source=source,
    )


def diffusion_module(
    recipe: DiffusionRecipe,
    backbone: Backbone | None = None,
    *,
    filled: bool = True,
    restored: bool = False,
    source: Source | None = None,
    progress: Progress = unseen,
) -> DiffusionModule:
    """Everything that a diffusion run needs; weights are fresh, or those of `warm_start`.

    Args:
        recipe: the full config.
        backbone: one to train in place of that; to look at a step, it may be on the meta device.
        filled: whether the weights are there; else they are on the meta device, for `configure_model` to fill, which
            gives each process of a sharded run its part alone.
        restored: whether a checkpoint of the run will be read into it: only the weights that it does not hold are
            given, the base of adapters.
        source: of examples, in place of the recipe's.
        progress: is told how many rows of files are looked at.

    Raises:
        ConfigError: the vocabulary of the tokenizers does not fit the backbone, or not that of the warm start; or new
            ids have rows that neither the warm start nor adapters would hold.
        CheckpointError: a tokenizer or the warm start cannot be read.
    """
    run = recipe.run
    start = Start.of(recipe)
    image, vocabulary = start.image, start.vocabulary
    prompts = Prompts(text=start.text, vocabulary=vocabulary, template=recipe.template)
    schedule = parts.build_schedule(recipe.schedule)
    builder = DocumentBuilder(prompts=prompts, image_tokenizer=image, mixture=recipe.mixture, tasks=recipe.tasks)
    if source is None:
        examples = run.steps * run.batch_size
        source = build_source(recipe.source, seed=run.seed, examples=examples, check=builder.check, progress=progress)
    own = backbone is None
    if backbone is None:
        if not restored:
            start.check()
        with torch.device("meta"):
            backbone = build_backbone(recipe.backbone)
    if recipe.lora is not None:
        backbone = adapted(backbone, recipe.lora, generator(run.seed, "train", "adapters"))
    fill = _as_it_is
    if own and (not restored or recipe.lora is not None):
        fill = partial(start.fill, source=None if restored else source)
    if own and filled:
        fill(backbone.to_empty(device="cpu"))
    return DiffusionModule(
        recipe,
        backbone=recomputed(compiled(backbone) if recipe.compile else backbone, recipe.recompute),
        fill=fill,
        builder=builder,
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
            kind_weights=_kind_weights(recipe, vocabulary),
        ),
        model_config=start.model_config(),
        first_new=lambda: start.known,
        base=start.fingerprint if own and recipe.lora is not None else None,
    )


def _as_it_is(backbone: Backbone) -> None:
    """Nothing: its weights are given, or will be."""


def _kind_weights(recipe: DiffusionRecipe, vocabulary: Vocabulary) -> dict[str, float]:
    kinds = ["text", "padding", *(modality.name for modality in vocabulary.modalities)]
    unknown = [kind for kind in recipe.kind_weights if kind not in kinds]
    if unknown:
        raise ConfigError(f"kind_weights names {unknown[0]!r}; the targets of this model are {', '.join(kinds)}")
    if all(recipe.kind_weights.get(kind, 1.0) == 0 for kind in kinds):
        raise ConfigError(f"kind_weights is 0 for {', '.join(kinds)}: nothing would be learnt; leave one of them out")
    return recipe.kind_weights


def model_of(module: DiffusionModule) -> Dimoo:
    """The model that a diffusion module trains, as users will load it."""
    builder = module.builder
    return Dimoo(
        module.model_config,
        backbone=module.backbone,
        text_tokenizer=builder.prompts.text,
        image_tokenizer=builder.image_tokenizer,
    )


def export(module: TokenizerModule | DiffusionModule, folder: Path) -> None:
    """Write what was trained to a folder that `dimoo` loads, and the world that it was trained for, if it was.

    Adapters are folded into the weights there, and lie by themselves in the folder `ADAPTER` in it.
    """
    if isinstance(module, TokenizerModule):
        save_image_tokenizer(module.tokenizer, folder)
    else:
        model, base = model_of(module), module.recipe.warm_start
        if module.recipe.lora is not None:
            model.backbone = merged(module.backbone)
        model.save(folder, dtype=torch.bfloat16)
        if module.recipe.lora is not None:
            write_adapter(folder / ADAPTER, module.backbone, base=base)
        source = module.recipe.source
        if isinstance(source, WorldSourceConfig):
            source.phases[-1].world.save(folder / WORLD_FILE)


def _tokenizer(recipe: TokenizerRecipe) -> ImageTokenizer:
    if recipe.extends is None:
        return build_image_tokenizer(recipe.tokenizer, generator(recipe.run.seed, "tokenizer", "weights"))
    old, wanted = load_image_tokenizer(recipe.extends), recipe.tokenizer.quantizer
    if not isinstance(wanted, VectorQuantizerConfig):
        raise ConfigError(f"extends needs a learned codebook, not {wanted.kind!r}; take quantizer vq")
    tokenizer = extended(old, wanted.size)
    if tokenizer.config != recipe.tokenizer:
        raise ConfigError(
            f"the tokenizer {recipe.extends!r} has {old.config}, the recipe {recipe.tokenizer}; they may differ in the"
            " number of codes only"
        )
    return tokenizer
