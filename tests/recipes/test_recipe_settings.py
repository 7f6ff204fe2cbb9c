"""No parameter lies: every setting changes what a run leaves behind, and bookkeeping changes nothing else."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from functools import cache
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from pydantic import BaseModel
from tiny_recipes import Tiny, cut, files

from dimoo.backbone.block import Attention
from dimoo.backbone.model import Backbone
from dimoo.core.errors import DataError
from dimoo.data.config import MixtureConfig
from dimoo.data.world import WorldConfig, WorldSource
from dimoo.tokenizers.image.build import build_image_tokenizer
from dimoo.tokenizers.image.files import load_image_tokenizer, save_image_tokenizer
from dimoo.tokenizers.text import train_bpe
from recipes.config import DiffusionRecipe, OptimizerConfig, Recipe, RunConfig, TokenizerRecipe
from recipes.run import run

LEARNT = frozenset({"log", "weights"})
"""What changes when something else is learnt."""
RUN = {
    "name": ("other", {"folder"}),
    "folder": ("FOLDER/elsewhere", {"folder"}),
    "seed": ("1", LEARNT),
    "steps": ("5", LEARNT | {"saved"}),
    "batch_size": ("5", LEARNT),
    "workers": ("2", {"workers"}),
    "precision": ("bf16", LEARNT),
    "log_every": ("2", {"log"}),
    "save_every": ("3", {"saved"}),
    "sample_every": ("4", {"pictures"}),
    "validate_every": ("3", {"log"}),
}
OPTIMIZER = {
    "lr": ("0.01", LEARNT),
    "betas": ("[0.5, 0.95]", LEARNT),
    "weight_decay": ("0.9", LEARNT),
    "clip": ("0.01", LEARNT),
    "warmup_steps": ("0", LEARNT),
    "decay_share": ("1.0", LEARNT),
}
SHARED = {
    **{f"run.{name}": entry for name, entry in RUN.items()},
    **{f"optimizer.{name}": entry for name, entry in OPTIMIZER.items()},
    "source": ('{"kind":"world","phases":[{"share":1.0,"world":{"nouns":5}}]}', LEARNT),
}
FIELDS: dict[str, dict[str, tuple[str, Any]]] = {
    "world_tokenizer": {
        **SHARED,
        "run.sample_every": ("4", {"pictures", "log"}),
        "tokenizer": ('{"network":{"kind":"patch","width":12}}', LEARNT),
        "objective": ('{"l1":3.0}', LEARNT),
        "discriminator_lr": ("0.1", LEARNT),
        "fit_pictures": ("40", LEARNT),
        "extends": ("FOLDER/fewer_codes", LEARNT),
    },
    "world_base": {
        **SHARED,
        "image_tokenizer": ("FOLDER/other_image_tokenizer", LEARNT),
        "text_tokenizer": ("FOLDER/tokenizer.json", LEARNT),
        "template": ('{"systems":{"text_to_image":"paint","understanding":"say"}}', LEARNT),
        "tasks": (
            '{"generate":{"family":"text_to_image","text":"see {words}"},'
            '"ask":{"family":"understanding","images":[1,1],"answer":"text","text":"what is {words}"}}',
            LEARNT,
        ),
        "backbone": (
            '{"d_model":16,"layers":2,"heads":2,"kv_heads":2,"mlp_hidden":24,"vocab_size":1056}',
            LEARNT,
        ),
        "mixture.text_to_image": ("0", LEARNT),
        "mixture.question": ("0", LEARNT),
        "mixture.caption": ("0", LEARNT),
        "mixture.question_tokens": ("9", LEARNT),
        "mixture.caption_tokens": ("40", LEARNT),
        "mixture.dropout": ("1.0", LEARNT),
        "mixture.pair": ("1.0", LEARNT),
        "mixture.text_block": ("2", LEARNT),
        "schedule": ('{"kind":"linear"}', LEARNT),
        "times": ('{"kind":"uniform"}', LEARNT),
        "corruption": ('{"kind":"bernoulli"}', LEARNT),
        "loss_weight": ('{"kind":"schedule_weight"}', LEARNT),
        "kind_weights": ('{"image":0.5}', LEARNT),
        "complementary": ("true", LEARNT | {"passes"}),
        "full_up_to": ("100", LEARNT),
        "accumulate": ("1", LEARNT),
        "pack_tokens": ("120", {"passes"}),
        "slice_loss": ("false", LEARNT),
        "loss_chunk": ("3", {"rows at a time"}),
        "compile": ("true", {"compiled"}),
        "recompute": ('"all"', {"passes"}),
        "sampling": ('{"steps":3}', {"sampling"}),
        "ema": ("0.5", {"weights"}),
        "place_codes": ("false", LEARNT),
        "warm_start": ("FOLDER/warm", LEARNT),
    },
}
PROCESSES = {"run.devices", "run.nodes", "run.parallel", "run.checkpoints"}
"""Are tested with several processes, in `test_processes.py`."""
DIAGNOSTICS = {"run.validate_examples", "run.peak_tflops", "optimizer.spike"}
"""Are tested in `test_recipe_validation.py`, `test_recipe_diagnostics.py` and `test_recipe_guard.py`."""
ELSEWHERE = {
    "world_tokenizer": PROCESSES | DIAGNOSTICS,
    "world_base": PROCESSES | DIAGNOSTICS | {"lora", "new_rows_steps"},
}
"""Are tested there, and what goes with others alone where it belongs: `lora` in `test_recipe_lora.py`,
`new_rows_steps` in `test_recipe_start.py`."""
EXPANDED = {"run": RunConfig, "optimizer": OptimizerConfig, "mixture": MixtureConfig}


def outcome(recipe: Recipe) -> dict[str, Any]:
    """What a run leaves behind, part by part."""
    saved: list[int] = []
    workers: list[int] = []
    rows: list[int] = [0]
    compiled: set[str] = set()
    passes: Counter[int] = Counter()
    save, head, project = L.Trainer.save_checkpoint, Backbone.head, Attention.project

    def spy_save(self: L.Trainer, path: Path) -> None:
        saved.append(self.lightning_module.steps_done)
        workers.append(len(active_children()))
        save(self, path)

    def spy_head(self: Backbone, hidden: torch.Tensor, columns: slice | None = None) -> torch.Tensor:
        rows.append(len(hidden))
        return head(self, hidden, columns)

    def spy_project(self: Attention, *inputs: Any) -> Any:
        passes[self.layer] += torch.is_grad_enabled()
        return project(self, *inputs)

    def spy_compile(function: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
        def called(*inputs: Any) -> Any:  # as it is: what torch makes of it is tested elsewhere
            compiled.add(function.__name__)
            return function(*inputs)

        return called

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(L.Trainer, "save_checkpoint", spy_save)
        patch.setattr(Backbone, "head", spy_head)
        patch.setattr(Attention, "project", spy_project)
        patch.setattr(torch, "compile", spy_compile)
        folder = run(recipe)
    return {
        "folder": str(folder),
        "log": (folder / "csv/metrics.csv").read_text(),
        "weights": {name: data for name, data in files(folder / "export").items() if name.endswith("tensors")},
        "pictures": [path.name for path in (folder / "pictures").glob("*")],
        "saved": saved,
        "workers": max(workers),
        "rows at a time": max(rows) <= 3,
        "compiled": sorted(compiled),
        "passes": passes[0] > 2 * recipe.run.steps,  # of at most two packs
        "sampling": json.loads((folder / "export/config.json").read_text()).get("image"),
    }


Plain = Callable[[str], tuple[Path, dict[str, Any]]]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, image_tokenizer: Path) -> Plain:
    """plain(name): a folder with things to choose from, and the outcome of that recipe as it is."""

    @cache
    def make(name: str) -> tuple[Path, dict[str, Any]]:
        folder = tmp_path_factory.mktemp(name)
        config = load_image_tokenizer(image_tokenizer).config
        other = build_image_tokenizer(config, torch.Generator().manual_seed(1))
        save_image_tokenizer(other, folder / "other_image_tokenizer")
        captions = [WorldSource(WorldConfig(), 0).example(index).caption or "" for index in range(100)]
        train_bpe(captions, size=800).save(folder / "tokenizer.json")
        if name == "world_tokenizer":
            whole = cut(name, folder, image_tokenizer)
            assert isinstance(whole, TokenizerRecipe)
            quantizer = whole.tokenizer.quantizer.model_copy(update={"size": 16})
            fewer = whole.tokenizer.model_copy(update={"quantizer": quantizer})
            save_image_tokenizer(build_image_tokenizer(fewer, torch.Generator().manual_seed(2)), folder / "fewer_codes")
        if name == "world_base":
            warm = run(cut(name, folder, image_tokenizer, "run.name=first", "run.seed=7", "run.steps=2"))
            (warm / "export").rename(folder / "warm")
        return folder, outcome(cut(name, folder, image_tokenizer, "run.steps=4"))

    return make


@pytest.mark.parametrize(("name", "field"), [(name, field) for name in FIELDS for field in FIELDS[name]])
def test_a_setting_changes_what_it_says_and_nothing_else(
    name: str, field: str, plain: Plain, image_tokenizer: Path
) -> None:
    folder, before = plain(name)
    value, wanted = FIELDS[name][field]
    # Elsewhere, unless that is the point: a folder holds one run.
    place = () if field in ("run.name", "run.folder") else (f"run.folder={folder / field}",)
    value = value.replace("FOLDER", str(folder))
    after = outcome(cut(name, folder, image_tokenizer, "run.steps=4", *place, f"{field}={value}"))
    if place:
        after["folder"] = before["folder"]
    if field in ("loss_chunk", "pack_tokens"):  # sums in another order: equal but for rounding
        assert losses(after) == pytest.approx(losses(before), rel=1e-5)
        after = {**after, "log": before["log"], "weights": before["weights"]}
    assert {part for part in before if before[part] != after[part]} == set(wanted)


def losses(made: dict[str, Any]) -> list[float]:
    return [float(row["loss"]) for row in csv.DictReader(made["log"].splitlines())]


@pytest.mark.parametrize(("name", "kind"), [("world_base", DiffusionRecipe), ("world_tokenizer", TokenizerRecipe)])
def test_no_setting_is_left_out(name: str, kind: type[BaseModel]) -> None:
    names = set()
    for field in kind.model_fields.keys() - {"kind"}:
        nested = EXPANDED.get(field)
        names |= {field} if nested is None else {f"{field}.{leaf}" for leaf in nested.model_fields}
    assert names == FIELDS[name].keys() | ELSEWHERE[name]


def test_the_longest_prompt_is_kept_to(tiny: Tiny) -> None:
    with pytest.raises(DataError, match=r"more than the 8 that this model takes.*max_prompt_tokens"):
        run(tiny("world_base", "template.max_prompt_tokens=8"), dry=True)
