"""Adapters are what is learnt, kept and exported; the base stays as it was."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_recipes import Beginnings, Tiny, before_step, checkpoint, differences
from torch.utils.flop_counter import FlopCounterMode
from two_processes import TORCHRUN, assert_same, two

import dimoo
from dimoo.backbone.config import LoRAConfig
from dimoo.core.errors import CheckpointError, ConfigError
from dimoo.weights.checkpoint import Checkpoint
from dimoo.weights.shards import write
from recipes import registry
from recipes.config import DiffusionRecipe
from recipes.learning.assemble import diffusion_module
from recipes.learning.diffusion import DiffusionModule
from recipes.learning.kept import fingerprint_of
from recipes.named.lora import with_lora
from recipes.registry import RECIPES
from recipes.run import export_run, run
from recipes.running.estimate import estimate

WORLD = 'source={"kind":"world","phases":[{"share":1.0,"world":{"nouns":5}}]}'
LACKS = r"lacks the ids from 1056 to 1071.*lora\.modules_to_save"
SMALL = ("run.steps=4", "optimizer.lr=0.01")


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "export/adapter/adapter_model.safetensors")


@pytest.fixture
def first(beginnings: Beginnings) -> str:
    """The model that the recipe adapts."""
    (change,) = beginnings["lora"]
    return change.removeprefix("warm_start=")


def test_the_exported_model_is_the_base_with_the_exported_adapter(tiny: Tiny, first: str) -> None:
    folder = run(tiny("lora", *SMALL, "run.sample_every=4"))
    assert json.loads((folder / "export/adapter/adapter_config.json").read_text())["base_model_name_or_path"] == first
    base, learnt = dimoo.load_backbone(first), dimoo.load_backbone(first, adapter=folder / "export/adapter")
    exported = load_file(folder / "export/model.safetensors")
    assert exported.keys() == learnt.state_dict().keys()
    for name, weight in learnt.state_dict().items():
        assert torch.equal(exported[name], weight.bfloat16())
        inside = name.startswith("blocks.") and "norm" not in name
        assert torch.equal(weight, base.state_dict()[name]) == (not inside)
    # Folders near the right one name it.
    for wrong, right in ((folder, "export"), (folder / "export", "export/adapter")):
        with pytest.raises(CheckpointError, match=f"give .*{right}"):
            dimoo.load_backbone(first, adapter=wrong)
    state = checkpoint(folder)
    trained = [name for name in state["state_dict"] if name.endswith((".A", ".B"))]
    assert len(state["optimizer_states"][0]["state"]) == len(trained) == len(state["state_dict"]) == 14
    assert (folder / "pictures/step0000004.png").is_file()
    picture = dimoo.load(folder / "export").generate("a cat", size=(32, 32), seed=1)[0]
    assert picture.size == (32, 32)


def test_it_resumes_exactly_and_exports_what_a_checkpoint_holds(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tiny("lora", *SMALL, "run.name=whole"))
    recipe = tiny("lora", *SMALL, "run.name=parts")

    with monkeypatch.context() as patch:
        before_step(patch, DiffusionModule, 3, _out)
        with pytest.raises(ConnectionError):
            run(recipe)
    folder = export_run(recipe)
    halfway = adapter(folder)
    assert run(recipe, resume=True) == folder
    (one, other) = (checkpoint(each) for each in (whole, folder))
    for part in ("state_dict", "optimizer_states", "steps_done"):
        assert list(differences(one[part], other[part])) == []
    assert list(differences(adapter(whole), adapter(folder))) == []
    assert list(differences(halfway, adapter(folder))) != []


def test_a_checkpoint_holds_what_is_trained_and_goes_on_with_no_other_base(
    tiny: Tiny, first: str, tmp_path: Path
) -> None:
    """The base is changed where it lies, its shape stays; then given back."""
    base = Path(shutil.copytree(first, tmp_path / "base"))
    recipe = tiny("lora", *SMALL, f"warm_start={base}", 'lora={"modules_to_save":["unembedding"]}')
    folder = run(recipe)
    kept = checkpoint(folder)["state_dict"].keys()
    assert {name for name in kept if not name.endswith((".A", ".B"))} == {"backbone.unembedding.weight"}
    weights = load_file(base / "model.safetensors")
    save_file({**weights, "norm.weight": weights["norm.weight"] + 1}, base / "model.safetensors")
    for go_on in (partial(run, resume=True), export_run):
        with pytest.raises(CheckpointError, match=r"the adapters in the checkpoint belong to weights with the finger"):
            go_on(recipe)
    save_file(weights, base / "model.safetensors")
    before = adapter(folder)
    shutil.rmtree(folder / "export")
    run(recipe, resume=True)
    assert list(differences(adapter(folder), before)) == []


def test_a_base_is_known_by_its_weights_in_whatever_files(first: str, tmp_path: Path) -> None:
    base = Checkpoint.open(Path(first))
    weights = load_file(Path(first) / "model.safetensors")
    found = []
    for number, changes in enumerate(({}, {"embedding.weight": weights["embedding.weight"].flip(0)})):
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder, {**weights, **changes}, shard_size=10_000)
        assert len(list(folder.glob("*.safetensors"))) > 1
        found.append(fingerprint_of(replace(base, folder=folder).filling(base.skeleton())))
    assert found[0] == fingerprint_of(base.filling(base.skeleton())) != found[1]


def test_a_base_is_known_by_more_than_its_bytes(first: str, tmp_path: Path) -> None:
    """Two tensors of one shape exchanged, and the same bits as numbers of another kind, are other weights."""
    base = Checkpoint.open(Path(first))
    plain = {name: weight.bfloat16() for name, weight in load_file(Path(first) / "model.safetensors").items()}
    one, other = "embedding.weight", "unembedding.weight"
    assert plain[one].shape == plain[other].shape
    changed = (plain, {**plain, one: plain[other], other: plain[one]})
    found = []
    for number, weights in enumerate((*changed, {name: value.view(torch.float16) for name, value in plain.items()})):
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder, weights, shard_size=1_000_000)
        found.append(fingerprint_of(replace(base, folder=folder).filling(base.skeleton())))
    assert len(set(found)) == 3


@pytest.mark.parametrize("name", ["backbone.blocks.0.mlp.up.A", "backbone.unembedding.weight"])
def test_what_is_trained_must_be_in_a_checkpoint(name: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny("lora", *SMALL, 'lora={"modules_to_save":["unembedding"]}')
    with monkeypatch.context() as patch:
        before_step(patch, DiffusionModule, 3, _out)
        with pytest.raises(ConnectionError):
            run(recipe)
    folder = Path(recipe.run.folder) / recipe.run.name
    state = checkpoint(folder)
    del state["state_dict"][name]
    torch.save(state, folder / "checkpoints/last.ckpt")
    monkeypatch.setattr(DiffusionModule, "strict_loading", False)  # as in a sharded run, whose base Lightning misses
    for go_on in (partial(run, resume=True), export_run):
        with pytest.raises(CheckpointError, match=f"lacks 1 of the weights that are trained, the first of them {name}"):
            go_on(recipe)


def test_a_checkpoint_of_before_bases_were_noted_is_named(tiny: Tiny) -> None:
    recipe = tiny("lora", *SMALL)
    folder = run(recipe)
    state = checkpoint(folder)
    del state["base"]
    torch.save(state, folder / "checkpoints/last.ckpt")
    with pytest.raises(CheckpointError, match=r"was written by an older dimoo, which did not note the weights"):
        export_run(recipe)


@pytest.mark.parametrize(
    "change",
    [
        'lora={"rank":4}',
        'lora={"rank":8,"alpha":1.0}',
        'lora={"rank":8,"alpha":16.0,"targets":["attention.query"]}',
        'lora={"rank":8,"alpha":16.0,"modules_to_save":["embedding"]}',
        "ema=0.5",
        "recompute=all",
    ],
)
def test_each_setting_changes_what_is_learnt(tiny: Tiny, change: str) -> None:
    before = adapter(run(tiny("lora", *SMALL, "run.name=before")))
    folder = run(tiny("lora", *SMALL, "run.name=after", change))
    after = adapter(folder)
    assert (list(differences(before, after)) == []) == (change == "recompute=all")
    if "targets" in change:
        assert len(after) == 2
    if "embedding" in change:
        assert "base_model.model.model.transformer.wte.weight" in after


@pytest.mark.slow
@pytest.mark.parametrize(("begun", "kind"), [("alone", "whole"), ("shared", "whole"), ("shared", "parts")])
def test_parts_in_two_processes(begun: str, kind: str, tiny: Tiny, image_tokenizer: Path, first: str) -> None:
    """Each holds a half of every matrix (FSDP2), of which some are trained and some not, and goes on from a checkpoint
    of the others alone, be it one process's or theirs."""
    more = ("ema=0.6", 'lora={"rank":5,"modules_to_save":["embedding"]}', WORLD)
    whole = run(tiny("lora", "run.name=whole", "accumulate=4", *more))
    own = ["run.name=parts", "run.parallel=fsdp", f"warm_start={first}", *more]
    shared = [*own, "accumulate=2", "run.devices=2", f"run.checkpoints={kind}"]
    if begun == "alone":
        with pytest.MonkeyPatch.context() as patch:
            before_step(patch, DiffusionModule, 4, _out)
            with pytest.raises(ConnectionError):
                run(tiny("lora", *own, "accumulate=4"))
    else:
        two(TORCHRUN, whole.parent, image_tokenizer, *shared, "--stop-after", "4", steps=4, recipe="lora")
    state = checkpoint(whole.parent / "parts")
    assert state["steps_done"] == 4
    assert len(state["state_dict"]) == 15
    two(TORCHRUN, whole.parent, image_tokenizer, *shared, "--resume", recipe="lora")
    assert_same(whole, whole.parent / "parts")
    for name, value in adapter(whole).items():
        torch.testing.assert_close(adapter(whole.parent / "parts")[name], value, rtol=0, atol=2e-6)


def _out(module: DiffusionModule) -> None:
    raise ConnectionError("out")


def test_what_is_foretold_is_of_what_is_trained(tiny: Tiny) -> None:
    roomy = ("run.batch_size=6", "backbone.layers=3", "backbone.d_model=64", "backbone.mlp_hidden=160")
    recipe = tiny("lora", *roomy, "accumulate=1", "ema=0.9")
    found, plain = estimate(recipe), estimate(recipe.model_copy(update={"lora": None}))
    added = found.parameters["adapters"]
    shapes = 4 * [(64, 64)] + 2 * [(160, 64)] + [(64, 160)]
    assert added == sum(3 * 8 * (outputs + inputs) for outputs, inputs in shapes)
    assert {**plain.parameters, "adapters": added} == found.parameters
    assert found.memory["gradients"] == found.memory["average"] == 4 * added
    assert found.memory["AdamW"] == 8 * added
    assert found.memory["weights"] == plain.memory["weights"] + 4 * added
    blocks, tokens = plain.parameters["blocks"], found.tokens
    assert found.operations["blocks"] == (4 * blocks + 6 * added) * tokens
    assert found.operations["head"] == plain.operations["head"] * 2 / 3


def test_operations_are_those_that_torch_counts(tiny: Tiny) -> None:
    recipe = tiny("lora", "accumulate=1")
    module, found = diffusion_module(recipe), estimate(recipe)
    noisy = module.corrupted(0)
    with FlopCounterMode(display=False) as counter:
        for entry in noisy:
            module.objective.loss(module.backbone, entry).terms.total.backward()
    counts = counter.get_flop_counts()["Global"]
    # What the estimate leaves out: no gradient goes through the first queries, keys and values, nor their A.
    spared = 2 * 3 * (16 * 16 + 8 * 16) * found.tokens
    norms = (2 * 16) * 4 * found.tokens
    assert found.operations["blocks"] + found.operations["head"] - spared - norms == counts[torch.ops.aten.mm]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        (["warm_start=null"], "lora adapts a model that there is; set warm_start"),
        (['lora={"rank":0}'], r"lora\.rank"),
        (['lora={"targets":["q_proj"]}'], r"attention\.query"),
        *(
            (["image_tokenizer=MORE", "backbone.vocab_size=1072", f'lora={{"modules_to_save":{held}}}'], LACKS)
            for held in ("[]", '["embedding"]')
        ),
    ],
)
def test_what_cannot_be_adapted_is_refused(tiny: Tiny, first: str, changes: list[str], part: str) -> None:
    more = str(Path(first).parent / "more")
    with pytest.raises(ConfigError, match=part):
        run(tiny("lora", *(change.replace("MORE", more) for change in changes)), dry=True)


@pytest.mark.parametrize("base", [recipe for recipe in map(registry.get, RECIPES) if recipe.kind == "diffusion"])
def test_any_recipe_with_a_start_takes_adapters(base: DiffusionRecipe) -> None:
    if base.warm_start is None:
        with pytest.raises(ConfigError, match="set warm_start to a checkpoint"):
            with_lora(base)
        return
    made = with_lora(base, LoRAConfig(rank=2))
    assert made == base.model_copy(update={"lora": LoRAConfig(rank=2)})
    assert with_lora(base).lora == LoRAConfig()
