"""The paper's stages on the built-in world; its first four recipes made `mini` from nothing."""

from __future__ import annotations

from dimoo.data.config import MixtureConfig, Phase, WorldSourceConfig
from dimoo.tokenizers.image.config import FiniteScalarQuantizerConfig, VectorQuantizerConfig
from dimoo.tokenizers.template import PromptTemplate
from recipes.config import DiffusionRecipe, OptimizerConfig, RunConfig, TokenizerRecipe
from recipes.named.mixtures import (
    ALL_TASKS,
    FINISHING_TASKS,
    MAP_TASKS,
    MORE_TASKS,
    POLISHED_TASKS,
    QUESTION_TASKS,
    REFINED_TASKS,
)
from recipes.named.world import (
    ALL_CODES,
    EARLY,
    SYSTEMS,
    TASKS,
    easy_world,
    mini_world,
    pair_world,
    world_all,
    world_base,
    world_tokenizer,
)

WIDE = (0.35, 0.15, 0.05, 0.05, 0.4)
"""How often each canvas of `mini_world` is drawn once tasks with several pictures are among the examples."""


def tokenizer_vq() -> TokenizerRecipe:
    """An image tokenizer for every task of the world from scratch: 8x8 pixel patches, 6,144 learned codes.

    Command: python -m recipes.run tokenizer_vq
    Hardware, time: not measured (`world_tokenizer` and `world_all_tokenizer` made the bundled one)
    """
    base = world_tokenizer()
    shown = {task: weight for task, weight in ALL_TASKS.items() if task != "chat"}
    quantizer = VectorQuantizerConfig(size=ALL_CODES, dim=3 * 8 * 8, revive_after=500)
    return base.model_copy(
        update={
            "run": RunConfig(name="tokenizer_vq", steps=1_000, batch_size=32, sample_every=100),
            "source": WorldSourceConfig(phases=(Phase(share=1.0, world=pair_world(WIDE), tasks=shown),)),
            "tokenizer": base.tokenizer.model_copy(update={"quantizer": quantizer}),
            "fit_pictures": 4096,
        }
    )


def tokenizer_fsq() -> TokenizerRecipe:
    """The same with finite scalar quantization (arXiv 2309.15505): 8 x 8 x 8 x 4 x 3 = 6,144 codes, no codebook.

    Command: python -m recipes.run tokenizer_fsq
    Hardware, time: as `tokenizer_vq`
    """
    base = tokenizer_vq()
    quantizer = FiniteScalarQuantizerConfig(levels=(8, 8, 8, 4, 3))
    return base.model_copy(
        update={
            "run": base.run.model_copy(update={"name": "tokenizer_fsq"}),
            "tokenizer": base.tokenizer.model_copy(update={"quantizer": quantizer}),
        }
    )


def pretrain() -> DiffusionRecipe:
    """Stage I: captioned pictures with both sides masked, from scratch, among them questions and captions.

    Command: python -m recipes.run pretrain
    Hardware, time, scores: see docs/training.md
    """
    base = world_base()
    return base.model_copy(
        update={
            "run": RunConfig(name="pretrain", steps=6_000, batch_size=32, sample_every=2000, validate_every=2000),
            "optimizer": OptimizerConfig(lr=1e-3, warmup_steps=200, decay_share=0.1),
            "source": WorldSourceConfig(
                phases=(Phase(share=0.2, world=easy_world()), Phase(share=0.8, world=mini_world()))
            ),
            "template": PromptTemplate(systems=SYSTEMS, max_prompt_tokens=256),
            "tasks": TASKS,
            "mixture": MixtureConfig(pair=0.35, text_to_image=0.25, question=0.3, caption=0.1),
            "sampling": world_all().sampling,
        }
    )


def midtrain() -> DiffusionRecipe:
    """Stage II: every task of the world, the answer alone masked.

    Command: python -m recipes.run midtrain
    Hardware, time, scores: not measured
    """
    base = pretrain()
    return base.model_copy(
        update={
            "run": RunConfig(name="midtrain", seed=1, steps=8_000, batch_size=16, sample_every=2000),
            "optimizer": OptimizerConfig(lr=8e-4, warmup_steps=200, decay_share=0.0),
            "source": WorldSourceConfig(
                phases=(
                    Phase(share=0.3, world=pair_world(EARLY), tasks=ALL_TASKS),
                    Phase(share=0.35, world=pair_world(), tasks=MORE_TASKS),
                    Phase(share=0.35, world=pair_world(), tasks=MAP_TASKS),
                )
            ),
            "mixture": MixtureConfig(text_to_image=0.5, question=0.35, caption=0.15),
            "warm_start": "runs/pretrain/export",
        }
    )


def sft() -> DiffusionRecipe:
    """Stage III: every task, from where `pretrain` ends; or, with warm_start=runs/midtrain/export, from `midtrain`.

    Command: python -m recipes.run sft
    Hardware, time, scores: see docs/training.md
    """
    base = pretrain()
    scenes = mini_world().model_copy(update={"canvas_weights": WIDE, "object_counts": (0.55, 0.3, 0.1, 0.05)})
    return base.model_copy(
        update={
            "run": RunConfig(name="sft", seed=2, steps=14_000, batch_size=32, sample_every=2000, validate_every=2000),
            "optimizer": OptimizerConfig(lr=8e-4, warmup_steps=200, decay_share=0.3),
            "source": WorldSourceConfig(
                phases=(
                    Phase(share=0.2, world=pair_world(), tasks=MORE_TASKS),
                    Phase(share=0.2, world=pair_world(), tasks=MAP_TASKS),
                    Phase(share=0.3, world=scenes, tasks=REFINED_TASKS),
                    Phase(share=0.3, world=scenes.model_copy(update={"repeat_share": 0.5}), tasks=POLISHED_TASKS),
                )
            ),
            "mixture": MixtureConfig(text_to_image=0.6, question=0.3, caption=0.1),
            "warm_start": "runs/pretrain/export",
            "full_up_to": 0,  # answers of a few words are sampled in several steps, so they are learnt in part masked
            "kind_weights": {"text": 4.0},  # most targets are codes of pictures
        }
    )


def sft_finish() -> DiffusionRecipe:
    """Stage III goes on: pairs compared, turned views, chat and words with pictures about twice as often.

    Command: python -m recipes.run sft_finish
    Hardware, time, scores: see docs/training.md
    """
    base = sft()
    assert isinstance(base.source, WorldSourceConfig)
    last = base.source.phases[-1]
    return base.model_copy(
        update={
            # Another seed: examples are drawn from it, and these are to be new ones.
            "run": RunConfig(
                name="sft_finish", seed=3, steps=5_000, batch_size=32, sample_every=1000, validate_every=1000
            ),
            "optimizer": OptimizerConfig(lr=6e-4, warmup_steps=200, decay_share=0.5),
            "source": WorldSourceConfig(phases=(last.model_copy(update={"share": 1.0, "tasks": FINISHING_TASKS}),)),
            "warm_start": "runs/sft/export",
        }
    )


def sft_questions() -> DiffusionRecipe:
    """Stage III ends: questions about pictures three times as often, and pairs compared.

    Command: python -m recipes.run sft_questions
    Hardware, time, scores: see docs/training.md
    """
    base = sft_finish()
    assert isinstance(base.source, WorldSourceConfig)
    last = base.source.phases[-1]
    return base.model_copy(
        update={
            "run": RunConfig(
                name="sft_questions", seed=5, steps=4_000, batch_size=32, sample_every=1000, validate_every=1000
            ),
            "optimizer": OptimizerConfig(lr=5e-4, warmup_steps=100, decay_share=0.7),
            "source": WorldSourceConfig(phases=(last.model_copy(update={"tasks": QUESTION_TASKS}),)),
            "mixture": MixtureConfig(text_to_image=0.4, question=0.5, caption=0.1),
            "warm_start": "runs/sft_finish/export",
        }
    )
