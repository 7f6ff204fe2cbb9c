"""The paper's stages at 8B: its rates and batches (SPEC section 3), on data of your own.

Each takes `source` (a JSONL file or what `dimoo encode` made of one, docs/training.md) and the number of devices and
machines. `--estimate` says what a process holds. They have not been run at this size: no score stands beside them.
"""

from __future__ import annotations

from dimoo.data.config import JsonlSourceConfig, MixtureConfig
from dimoo.diffusion.config import CosineConfig, ExactCountConfig, MeanOverMaskedConfig, UniformTimesConfig
from dimoo.presets import llada_8b
from dimoo.presets import lumina_dimoo_8b as lumina
from recipes.config import OF_WARM_START, DiffusionRecipe, OptimizerConfig, RunConfig
from recipes.named.lora import with_lora

LANGUAGE = "GSAI-ML/LLaDA-8B-Instruct"
CODES = lumina.VOCABULARY.modality("image").size


def pretrain_8b() -> DiffusionRecipe:
    """Stage I: LLaDA-8B learns captioned pictures of 256 x 256 pixels, both sides masked.

    Command: python -m recipes.run pretrain_8b --set source.path=pairs.jsonl
    then at 512: python -m recipes.run pretrain_8b --from runs/pretrain_8b/export --set source.path=pairs.jsonl
    --set source.size=512 --set run.name=pretrain_8b_512 --set recompute=all
    Hardware: 64 GPUs of 80 GB (the paper does not say what its authors had), of which `--estimate` says 45, 24 at 512
    Steps: 80 million pairs once in batches of 1,024
    """
    return DiffusionRecipe(
        run=RunConfig(
            name="pretrain_8b",
            steps=78_125,
            batch_size=1024,
            precision="bf16",
            save_every=500,
            sample_every=1000,
            devices=8,
            nodes=8,
            parallel="fsdp",
            checkpoints="parts",
        ),
        optimizer=OptimizerConfig(lr=2e-4, warmup_steps=0, decay_share=0.0),
        source=JsonlSourceConfig(path="data/pairs.jsonl", size=256),
        image_tokenizer=lumina.REPOSITORY,
        text_tokenizer=OF_WARM_START,
        template=lumina.TEMPLATE,
        tasks=dict(lumina.TASKS),
        # All rows of LLaDA's tables, in whose unused end the tags go, and the codes behind them.
        backbone=llada_8b.BACKBONE.model_copy(update={"vocab_size": llada_8b.BACKBONE.vocab_size + CODES}),
        mixture=MixtureConfig(
            pair=1.0,
            text_to_image=0.0,
            question=0.0,
            caption=0.0,
            question_tokens=lumina.ANSWER_TOKENS,
            caption_tokens=lumina.CAPTION_TOKENS,
        ),
        schedule=CosineConfig(),
        times=UniformTimesConfig(),
        corruption=ExactCountConfig(),
        loss_weight=MeanOverMaskedConfig(),
        loss_chunk=1024,
        recompute="selective",
        sampling=lumina.image_settings(),
        ema=0.0,
        warm_start=LANGUAGE,
    )


def midtrain_8b() -> DiffusionRecipe:
    """Stage II: pictures of 1024 x 1024 pixels and questions, the answer alone masked, from `pretrain_8b` at 512.

    Command: python -m recipes.run midtrain_8b --set source.path=rows.jsonl
    Hardware: as `pretrain_8b`; 34 GB for each
    Steps: 20,000 are our guess, for the paper does not say how many it took. It has the pictures of image-to-image
    tasks at 512; a source has one size, so encode those by themselves, or take 512 for all
    """
    base = pretrain_8b()
    return base.model_copy(
        update={
            "run": base.run.model_copy(update={"name": "midtrain_8b", "seed": 1, "steps": 20_000, "batch_size": 512}),
            "source": JsonlSourceConfig(path="data/rows.jsonl", size=lumina.GENERATION_TARGET),
            "recompute": "all",
            "mixture": base.mixture.model_copy(
                update={"pair": 0.0, "text_to_image": 0.5, "question": 0.35, "caption": 0.15}
            ),
            "warm_start": "runs/pretrain_8b_512/export",
        }
    )


def sft_8b() -> DiffusionRecipe:
    """Stage III: as stage II at a tenth of the rate, on better questions, pictures and image-to-image tasks.

    Command: python -m recipes.run sft_8b --set source.path=rows.jsonl
    from the released model: python -m recipes.run sft_8b --from Alpha-VLLM/Lumina-DiMOO
    --set backbone.vocab_size=134548 --set source.path=rows.jsonl
    Hardware: as `midtrain_8b`
    Steps: 30 million examples once in batches of 512
    """
    base = midtrain_8b()
    return base.model_copy(
        update={
            "run": base.run.model_copy(update={"name": "sft_8b", "seed": 2, "steps": 58_594}),
            "optimizer": base.optimizer.model_copy(update={"lr": 2e-5}),
            "warm_start": "runs/midtrain_8b/export",
        }
    )


def lora_8b() -> DiffusionRecipe:
    """Adapters for the released model on rows of your own, on one GPU.

    Command: python -m recipes.run lora_8b --set source.path=rows.jsonl
    Hardware: what `--estimate` says, in bf16 with all blocks recomputed
    """
    base = sft_8b()
    run = {"name": "lora_8b", "seed": 3, "steps": 2_000, "batch_size": 16, "devices": 1, "nodes": 1}
    run |= {"parallel": "ddp", "checkpoints": "whole"}
    changed = base.model_copy(
        update={
            "run": base.run.model_copy(update=run),
            "optimizer": base.optimizer.model_copy(update={"lr": 1e-4, "weight_decay": 0.0, "warmup_steps": 50}),
            "source": JsonlSourceConfig(path="data/rows.jsonl", size=lumina.INPUT_TARGET),
            "backbone": lumina.BACKBONE,
            "accumulate": 16,
            "warm_start": lumina.REPOSITORY,
        }
    )
    return with_lora(changed)
