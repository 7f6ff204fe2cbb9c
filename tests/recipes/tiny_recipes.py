"""The real recipes, cut down through the same overrides that users have, and ways to look at what a run left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

import dimoo
from dimoo.core.config import override
from recipes import registry
from recipes.config import Recipe
from recipes.learning.diffusion import DiffusionModule
from recipes.learning.steps import StepModule
from recipes.learning.tokenizer import TokenizerModule
from recipes.running.saving import META

MODULES: dict[str, type[StepModule]] = {"world_base": DiffusionModule, "world_tokenizer": TokenizerModule}
Tiny = Callable[..., Recipe]
"""tiny(name, *changes): the type of the fixture of that name."""
Beginnings = Mapping[str, tuple[str, ...]]
"""Changes by recipe that say what it goes on from."""
COMMON = (
    "run.precision=fp32",
    "run.batch_size=4",
    "run.steps=7",
    "run.save_every=2",
    "run.log_every=1",
    "run.sample_every=1000",
    "optimizer.warmup_steps=2",
)
DIFFUSION = (
    "backbone.d_model=16",
    "backbone.layers=1",
    "backbone.heads=2",
    "backbone.kv_heads=2",
    "backbone.mlp_hidden=24",
    "backbone.vocab_size=1056",
    "accumulate=2",
    "mixture.question=0.5",
    "mixture.caption=0.5",
)
TOKENIZER = (
    "fit_pictures=16",
    "tokenizer.network.width=8",
    'tokenizer.quantizer={"kind":"vq","size":32,"dim":4,"revive_after":2}',
    'objective.adversary={"kind":"hinge","width":4,"depth":1,"start_step":1}',
)


def cut(name: str, folder: Path, image_tokenizer: Path, *changes: str) -> Recipe:
    """A recipe at toy size that writes into `folder`."""
    recipe = registry.get(name)
    own = TOKENIZER if recipe.kind == "tokenizer" else (*DIFFUSION, f"image_tokenizer={image_tokenizer}")
    return override(recipe, [*COMMON, *own, f"run.folder={folder}", *changes])


def of_text(talker: Path, codes: int = 32, added: int = 10) -> tuple[str, ...]:
    """Changes that let a recipe start from a text-only checkpoint, with some rows to spare."""
    before = dimoo.load(talker)
    shape = before.config.backbone.model_copy(update={"vocab_size": before.prompts.text.size + added + 6 + codes})
    return (
        f"warm_start={talker}",
        "text_tokenizer=warm_start",
        f"backbone={shape.model_dump_json()}",
        "mixture.question_tokens=24",
        "mixture.caption_tokens=128",
    )


def checkpoint(run: Path) -> dict[str, Any]:
    """The last checkpoint of a run folder; one in parts is put together."""
    path = run / "checkpoints" / "last.ckpt"
    if path.is_file():
        state: dict[str, Any] = torch.load(path, weights_only=True)
        return state
    whole = path.with_suffix(".whole")
    dcp_to_torch_save(path, whole)
    together: dict[str, Any] = torch.load(whole, weights_only=True)
    whole.unlink()
    return {**together, **torch.load(path / META, weights_only=True)}


def averages(state: dict[str, Any]) -> dict[str, Tensor]:
    """The averaged weights in a checkpoint, by their names in the backbone."""
    entries = state["optimizer_states"][0]["state"].items()
    return {name.removeprefix("backbone."): entry["average"] for name, entry in entries}


def differences(a: Any, b: Any, where: str = "") -> Iterator[str]:
    """Where two nests of plain values and tensors differ, bit for bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.dtype != b.dtype or not torch.equal(a, b):
            yield where
    elif isinstance(a, dict) and isinstance(b, dict):
        for key in a.keys() | b.keys():
            yield from differences(a.get(key), b.get(key), f"{where}.{key}")
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        for index, (left, right) in enumerate(zip(a, b, strict=True)):
            yield from differences(left, right, f"{where}.{index}")
    elif a != b:
        yield where


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def before_step(
    patch: pytest.MonkeyPatch, kind: type[StepModule], step: int | None, act: Callable[[Any], None]
) -> None:
    """Let something happen to the module at the start of one step (None: of every step)."""
    original = kind.training_step

    def training_step(self: StepModule, batch: int, batch_idx: int) -> None:
        if step in (None, self.steps_done):
            act(self)
        original(self, batch, batch_idx)

    patch.setattr(kind, "training_step", training_step)


def power_cut(module: StepModule) -> None:
    raise ConnectionError("power cut")
