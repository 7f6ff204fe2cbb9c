"""The built-in world's recipes: the image tokenizer of `mini`, what its other recipes share, and a simple base."""

from __future__ import annotations

from dimoo.backbone.config import BackboneConfig
from dimoo.data.config import MixtureConfig, Phase, WorldSourceConfig
from dimoo.data.world.config import WorldConfig
from dimoo.diffusion.config import (
    AntitheticTimesConfig,
    CategoricalConfig,
    CosineConfig,
    ExactCountConfig,
    MeanOverMaskedConfig,
)
from dimoo.presets import families
from dimoo.presets.config import ImageSettings
from dimoo.presets.tasks import STANDARD, TaskText
from dimoo.tokenizers.image.config import (
    ImageTokenizerConfig,
    ObjectiveConfig,
    PatchNetworkConfig,
    VectorQuantizerConfig,
)
from dimoo.tokenizers.template import PromptTemplate
from recipes.config import DiffusionRecipe, OptimizerConfig, RunConfig, TokenizerRecipe
from recipes.named.mixtures import ALL_TASKS, MAP_TASKS, MORE_TASKS

CODES = 2048
ALL_CODES = 6144
"""With those of maps, styles and views."""
TEXT_IDS = 1024
NOUNS = 24
COLORS = ("white", "blue", "green", "pink", "yellow", "purple")
EARLY = (0.35, 0.3, 0.05, 0.05, 0.25)
"""How often each canvas of `mini_world` is drawn while tasks with several pictures are new."""


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


SYSTEMS = {
    families.TEXT_TO_IMAGE: "draw",
    families.UNDERSTANDING: "answer",
    families.EDITING: "edit",
    families.SUBJECT: "draw object",
    families.STYLE: "style",
    families.CONTROL: "draw from",
    families.DENSE: "map",
    families.MULTI_VIEW: "turn",
    families.OTHER: "draw and answer",
}
"""The system prompts of `mini`, as short as can be."""
MAPS = {"canny": "edges", "depth": "depth", "mask": "mask", "pose": "points"}
TASKS: dict[str, TaskText] = {
    **STANDARD,
    "control": TaskText(family=families.CONTROL, text="{option}: {words}", options=MAPS, images=(1, 1), size="picture"),
    "predict": TaskText(family=families.DENSE, text="{option}", options=MAPS, images=(1, 1), size="picture"),
    "view": TaskText(
        family=families.MULTI_VIEW,
        text="{option}",
        options={"mirrored": "mirrored", "rotated": "rotated"},
        images=(1, 1),
        size="picture",
    ),
    "style": TaskText(family=families.STYLE, text="as the second", images=(2, 2), size="picture"),
    "subject": TaskText(family=families.SUBJECT, images=(1, 2)),
    "ask": TaskText(family=families.UNDERSTANDING, images=(1, 2), answer="text"),
}
"""What `mini` can be asked, and how it is said to it."""


def pair_world(weights: tuple[float, ...] = (0.2, 0.2, 0.03, 0.03, 0.54)) -> WorldConfig:
    """The scenes of tasks with several pictures: most of them small, where a picture holds little but objects.

    Args:
        weights: how often each of `mini_world`'s canvases is drawn.
    """
    return mini_world().model_copy(
        update={"canvas_weights": weights, "object_counts": (0.6, 0.3, 0.07, 0.03)},
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
    """A transformer of `mini`'s shape: text-to-image, questions and captions, jointly, from scratch.

    Command: python -m recipes.run world_base
    Hardware, time, scores: not measured as it stands
    """
    return DiffusionRecipe(
        run=RunConfig(name="world_base", steps=27_000, batch_size=16, sample_every=1000, save_every=250),
        optimizer=OptimizerConfig(lr=1e-3, warmup_steps=200, decay_share=0.25),
        source=WorldSourceConfig(
            phases=(Phase(share=0.1333, world=easy_world()), Phase(share=0.8667, world=mini_world()))
        ),
        image_tokenizer="mini",
        text_tokenizer="mini",
        template=PromptTemplate(
            systems={name: SYSTEMS[name] for name in (families.TEXT_TO_IMAGE, families.UNDERSTANDING)},
            max_prompt_tokens=256,
        ),
        backbone=BackboneConfig(
            d_model=192,
            layers=6,
            heads=6,
            kv_heads=6,
            mlp_hidden=512,
            vocab_size=TEXT_IDS + ALL_CODES,
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


def world_all_tokenizer() -> TokenizerRecipe:
    """More codes for the image tokenizer of `mini`: maps, styles and views, which plain scenes have none for.

    Command: python -m recipes.run world_all_tokenizer --set extends=runs/world_tokenizer/export
    Hardware, time, scores: see dimoo/assets/mini/README.md
    """
    base = world_tokenizer()
    quantizer = base.tokenizer.quantizer.model_copy(update={"size": ALL_CODES})
    shown = {task: weight for task, weight in ALL_TASKS.items() if task != "chat"}
    phases = (Phase(share=1.0, world=pair_world(EARLY), tasks=shown),)
    return base.model_copy(
        update={
            "run": RunConfig(name="world_all_tokenizer", steps=500, batch_size=24, sample_every=100),
            "optimizer": OptimizerConfig(lr=5e-4, weight_decay=1e-4, decay_share=0.5),
            "source": WorldSourceConfig(phases=phases),
            "tokenizer": base.tokenizer.model_copy(update={"quantizer": quantizer}),
            "extends": "runs/world_tokenizer/export",
            "fit_pictures": 4096,
        }
    )


def world_all() -> DiffusionRecipe:
    """Every task, from the transformer that `world_base` leaves, which may know fewer codes.

    Command: python -m recipes.run world_all --from runs/world_base
    Hardware, time, scores: not measured as it stands
    """
    base = world_base()
    return base.model_copy(
        update={
            "run": RunConfig(name="world_all", steps=8_000, batch_size=16, sample_every=1000, save_every=250),
            "optimizer": OptimizerConfig(lr=8e-4, warmup_steps=200, decay_share=0.3),
            "source": WorldSourceConfig(
                phases=(
                    Phase(share=0.1375, world=pair_world(EARLY), tasks=ALL_TASKS),
                    Phase(share=0.2875, world=pair_world(), tasks=MORE_TASKS),
                    Phase(share=0.325, world=pair_world(), tasks=MAP_TASKS),
                    Phase(share=0.25, world=pair_world(), tasks=MORE_TASKS),
                )
            ),
            "template": PromptTemplate(systems=SYSTEMS, max_prompt_tokens=256),
            "tasks": TASKS,
            "mixture": MixtureConfig(text_to_image=0.45, question=0.4, caption=0.15),
            "sampling": ImageSettings(
                conditions={"no_text": 1.5, "no_image": 0.3}, draw=CategoricalConfig(temperature=0.5)
            ),
        }
    )
