"""Low-rank adapters on a model that there is: one task learnt further, at a hundredth of the optimiser's memory."""

from __future__ import annotations

from dimoo.backbone.config import LoRAConfig
from dimoo.core.config import override
from dimoo.data.config import MixtureConfig, Phase, WorldSourceConfig
from recipes.config import DiffusionRecipe, OptimizerConfig, RunConfig
from recipes.named.stages import sft
from recipes.named.world import mini_world


def with_lora(recipe: DiffusionRecipe, lora: LoRAConfig | None = None) -> DiffusionRecipe:
    """The same recipe on adapters in place of all weights.

    Raises:
        ConfigError: it has no `warm_start`.
    """
    return override(recipe, [f"lora={(LoRAConfig() if lora is None else lora).model_dump_json()}"])


def lora() -> DiffusionRecipe:
    """Adapters for `mini` on restyled pictures; runs/lora/export/adapter is what `dimoo.load(adapter=...)` takes.

    Command: python -m recipes.run lora
    Hardware, time, scores: see docs/training.md
    """
    base = sft()
    changed = base.model_copy(
        update={
            # Another seed than those `mini` was trained with: examples are drawn from it.
            "run": RunConfig(name="lora", seed=4, steps=300, batch_size=16, sample_every=300),
            "optimizer": OptimizerConfig(lr=1e-3, weight_decay=0.0, warmup_steps=20, decay_share=0.5),
            "source": WorldSourceConfig(phases=(Phase(share=1.0, world=mini_world(), tasks={"restyle": 1.0}),)),
            "mixture": MixtureConfig(text_to_image=1.0),
            "ema": 0.0,
            "warm_start": "mini",
        }
    )
    return with_lora(changed, LoRAConfig(rank=8, alpha=16.0))
