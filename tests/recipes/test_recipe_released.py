"""The recipes at 8B: the paper's rates, and an estimate on the meta device."""

from __future__ import annotations

from pathlib import Path

import pytest

from dimoo.core.config import override
from dimoo.core.errors import ConfigError
from dimoo.presets import llada_8b
from recipes import registry
from recipes.config import DiffusionRecipe
from recipes.running.absent import present
from recipes.running.estimate import estimate

HERE = (
    "text_tokenizer=mini",
    "image_tokenizer=mini",
    "source=" + registry.get("world_base").source.model_dump_json(),
    "mixture.question_tokens=8",
    "mixture.caption_tokens=24",
)
"""What stands in for checkpoints and data that are not here. The rows of ids that are missing are there, unused."""


def named(name: str, *changes: str) -> DiffusionRecipe:
    return DiffusionRecipe.model_validate(override(registry.get(name), list(changes)))


@pytest.mark.parametrize(
    ("name", "lr", "batch"), [("pretrain_8b", 2e-4, 1024), ("midtrain_8b", 2e-4, 512), ("sft_8b", 2e-5, 512)]
)
def test_rates_are_those_of_the_paper(name: str, lr: float, batch: int) -> None:
    recipe = named(name)
    optimizer = recipe.optimizer
    assert (optimizer.lr, recipe.run.batch_size) == (lr, batch)
    assert (optimizer.betas, optimizer.weight_decay, optimizer.clip) == ((0.9, 0.95), 0.1, 1.0)
    assert (optimizer.warmup_steps, optimizer.decay_share) == (0, 0.0)
    assert (recipe.mixture.pair > 0) == (name == "pretrain_8b")
    assert recipe.mixture.dropout == 0.1
    assert not recipe.slice_loss


def test_the_first_stage_fits_the_devices_that_it_names() -> None:
    """With the bundled tokenizers and the world; the network is the real one."""
    found = estimate(named("pretrain_8b", *HERE, "run.batch_size=128", "warm_start=null"))
    rows, width = llada_8b.BACKBONE.vocab_size + 8192, llada_8b.BACKBONE.d_model
    assert found.parameters["embedding"] == found.parameters["head"] == rows * width
    assert sum(found.parameters.values()) == 8_015_581_184 + 2 * 8192 * width
    assert found.processes == 64
    assert found.memory["weights"] == 4 * -(-sum(found.parameters.values()) // 64)
    assert sum(found.memory.values()) < 80e9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("pretrain_8b", (), 45),
        ("pretrain_8b", ("source.size=512", "recompute=all"), 24),
        ("midtrain_8b", (), 34),
        ("sft_8b", (), 34),
    ],
)
def test_every_stage_fits_the_devices_that_it_names(name: str, changes: tuple[str, ...], said: int) -> None:
    """At its own batch, with pictures of its own size, as its docstring says."""
    found = estimate(named(name, *changes))
    assert found.processes == 64
    assert round(sum(found.memory.values()) / 1e9) == said


def test_adapters_of_the_released_model_fit_one_device() -> None:
    found = estimate(named("lora_8b", *HERE))
    assert found.memory["gradients"] == 4 * found.parameters["adapters"]
    assert found.memory["AdamW"] == 8 * found.parameters["adapters"]
    assert sum(found.memory.values()) < 80e9


SMALL = ("backbone.d_model=64", "backbone.layers=1", "backbone.heads=2", "backbone.kv_heads=2", "run.batch_size=4")
ALONE = ("run.devices=1", "run.nodes=1", "run.checkpoints=whole")


def test_an_estimate_needs_no_file_that_is_not_here() -> None:
    """Neither of the released model nor of a run, nor the data: their shapes are known."""
    recipe = named("sft_8b", *SMALL, *ALONE, "source.size=512")
    found = estimate(recipe)
    for name in ("Alpha-VLLM/Lumina-DiMOO", "runs/midtrain_8b/export", "data/rows.jsonl", "512 x 512 pixels"):
        assert name in found.note
    assert found.parameters["embedding"] == 64 * recipe.backbone.vocab_size
    picture, words = 32 * 33 + 2, recipe.mixture.caption_tokens  # codes with the ends of their rows, and tags
    assert 4 * picture < found.tokens < 4 * (picture + words + 400)
    larger = estimate(named("sft_8b", *SMALL, *ALONE, "source.size=1024"))
    assert larger.tokens - found.tokens == 4 * (64 * 65 - 32 * 33)


def test_an_estimate_says_which_files_it_cannot_do_without(tmp_path: Path) -> None:
    changes = (*SMALL, *ALONE, f"image_tokenizer={tmp_path / 'none'}", 'source={"kind":"shards","path":"away"}')
    with pytest.raises(
        ConfigError, match=r"needs what is not here: image_tokenizer .*none, .* source.path away; put it"
    ):
        estimate(named("sft_8b", *changes))
    here = named("pretrain")
    assert present(here, tmp_path) == (here, "")
    assert list(tmp_path.iterdir()) == []
