"""The recipes of the built-in world: together they make the bundled model, `mini`, from nothing."""

from __future__ import annotations

from dimoo.backbone.config import BackboneConfig
from dimoo.data.config import MixtureConfig, Phase, WorldSourceConfig
from dimoo.data.world.config import WorldConfig
from dimoo.diffusion.config import AntitheticTimesConfig, CosineConfig, ExactCountConfig, MeanOverMaskedConfig
from dimoo.presets.families import TEXT_TO_IMAGE, UNDERSTANDING
from dimoo.tokenizers.image.config import (
    ImageTokenizerConfig,
    ObjectiveConfig,
    PatchNetworkConfig,
    VectorQuantizerConfig,
)
from dimoo.tokenizers.template import PromptTemplate
from recipes.config import DiffusionRecipe, OptimizerConfig, RunConfig, TokenizerRecipe

CODES = 2048
TEXT_IDS = 1024
NOUNS = 24
COLORS = ("white", "blue", "green", "pink", "yellow", "purple")


def mini_world() -> WorldConfig:
    """The scenes that `mini` is trained for and evaluated on."""
    return WorldConfig(
        nouns=NOUNS,
        canvases=((64, 64), (48, 48), (48, 64), (64, 48), (32, 32)),
        canvas_weights=(0.55, 0.15, 0.1, 0.1, 0.1),
        align=8,
        colors=COLORS,
        object_counts=(0.5, 0.35, 0.1, 0.05),
        repeat_share=0.3,
        two_tone=0.15,
    )


def easy_world() -> WorldConfig:
    """One object on a small canvas: where nouns are bound to pictures, at a third of the cost."""
    return WorldConfig(
        nouns=NOUNS,
        canvases=((32, 32), (40, 40), (48, 48)),
        canvas_weights=(0.5, 0.3, 0.2),
        align=8,
        colors=COLORS,
        object_counts=(1.0, 0.0, 0.0, 0.0),
        two_tone=0.1,
    )


def world_tokenizer() -> TokenizerRecipe:
    """The image tokenizer of `mini`: 8x8 pixel patches, 2,048 codes, VQ from scratch.

    Command: python -m recipes.run world_tokenizer
    Hardware, time, scores: see dimoo/assets/mini/README.md
    """
    crowded = mini_world().model_copy(update={"object_counts": (0.25, 0.3, 0.25, 0.2)})
    return TokenizerRecipe(
        run=RunConfig(name="world_tokenizer", steps=700, batch_size=32, sample_every=100),
        optimizer=OptimizerConfig(lr=1e-3, weight_decay=1e-4, decay_share=0.5),
        source=WorldSourceConfig(phases=(Phase(share=1.0, world=crowded),)),
        tokenizer=ImageTokenizerConfig(
            network=PatchNetworkConfig(patch=8, width=128, encoder_blocks=1, decoder_blocks=3),
            quantizer=VectorQuantizerConfig(size=CODES, dim=3 * 8 * 8, revive_after=500),
        ),
        objective=ObjectiveConfig(l1=1.0, l2=4.0, gradient=0.5),
    )


def world_base() -> DiffusionRecipe:
    """The transformer of `mini`: text-to-image, questions and captions, jointly, from scratch.

    Command: python -m recipes.run world_base --set image_tokenizer=runs/world_tokenizer/export
    Hardware, time, scores: see dimoo/assets/mini/README.md
    """
    return DiffusionRecipe(
        run=RunConfig(name="world_base", steps=27_000, batch_size=16, sample_every=1000, save_every=250),
        optimizer=OptimizerConfig(lr=1e-3, warmup_steps=200, decay_share=0.25),
        source=WorldSourceConfig(
            phases=(Phase(share=0.1333, world=easy_world()), Phase(share=0.8667, world=mini_world()))
        ),
        image_tokenizer="mini",
        text_tokenizer="mini",
        template=PromptTemplate(systems={TEXT_TO_IMAGE: "draw", UNDERSTANDING: "answer"}, max_prompt_tokens=256),
        backbone=BackboneConfig(
            d_model=192,
            layers=6,
            heads=6,
            kv_heads=6,
            mlp_hidden=512,
            vocab_size=TEXT_IDS + CODES,
            rope_theta=10_000.0,
        ),
        mixture=MixtureConfig(text_to_image=0.55, question=0.3, caption=0.15),
        schedule=CosineConfig(),
        times=AntitheticTimesConfig(),
        corruption=ExactCountConfig(),
        loss_weight=MeanOverMaskedConfig(),
        slice_loss=True,
        ema=0.998,
    )
