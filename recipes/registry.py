"""All recipes by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dimoo.core.errors import ConfigError
from recipes.config import Recipe
from recipes.named import lora, released, stages, world

RECIPES: Mapping[str, Callable[[], Recipe]] = {
    "world_tokenizer": world.world_tokenizer,
    "world_base": world.world_base,
    "world_all_tokenizer": world.world_all_tokenizer,
    "world_all": world.world_all,
    "tokenizer_vq": stages.tokenizer_vq,
    "tokenizer_fsq": stages.tokenizer_fsq,
    "pretrain": stages.pretrain,
    "midtrain": stages.midtrain,
    "sft": stages.sft,
    "sft_finish": stages.sft_finish,
    "sft_questions": stages.sft_questions,
    "lora": lora.lora,
    "pretrain_8b": released.pretrain_8b,
    "midtrain_8b": released.midtrain_8b,
    "sft_8b": released.sft_8b,
    "lora_8b": released.lora_8b,
}


def get(name: str) -> Recipe:
    """A recipe's full config.

    Raises:
        ConfigError: there is no recipe of that name.
    """
    if name not in RECIPES:
        raise ConfigError(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]()
