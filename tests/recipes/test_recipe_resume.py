"""k steps + resume + rest equals all steps in one go, bit for bit, however the run was broken off."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from same_runs import assert_same_run, renamed
from tiny_recipes import MODULES, Tiny, averages, before_step, checkpoint, differences, files, power_cut
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save

from dimoo.core.errors import CheckpointError, ConfigError, TrainingError
from dimoo.denoise.objective import MaskedObjective
from recipes.learning.diffusion import DiffusionModule
from recipes.learning.steps import StepModule
from recipes.run import export_run, main, run
from recipes.running.saving import META


def ctrl_c(module: StepModule) -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("step", [2, 5])
def test_after_a_crash_between_or_at_checkpoints_the_rest_is_exact(
    name: str, step: int, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tiny(name, "run.name=whole"))
    broken = tiny(name, "run.name=broken")
    with monkeypatch.context() as patch:
        before_step(patch, MODULES[name], step, power_cut)
        with pytest.raises(ConnectionError, match="power cut"):
            run(broken)
    folder = Path(broken.run.folder) / "broken"
    assert checkpoint(folder)["steps_done"] == step // 2 * 2
    assert not (folder / "export").exists()
    torch.manual_seed(987)  # no draw may come from the global generator
    run(broken, resume=True)
    renamed(folder / "export", "broken", "whole")
    assert_same_run(whole, folder)


@pytest.mark.parametrize("name", MODULES)
def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on(
    name: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tiny(name, "run.folder=" + tiny(name).run.folder + "/other"))
    recipe = tiny(name, "run.save_every=1000")
    listener = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        before_step(patch, MODULES[name], 3, ctrl_c)
        with pytest.raises(TrainingError, match=r"after step 4 of 7; go on with --resume"):
            run(recipe)
    folder = Path(recipe.run.folder) / name
    assert checkpoint(folder)["steps_done"] == 4
    assert not (folder / "export").exists()
    assert signal.getsignal(signal.SIGINT) is listener
    run(recipe, resume=True)
    assert signal.getsignal(signal.SIGINT) is listener
    assert_same_run(whole, folder)


def test_a_second_ctrl_c_stops_at_once_and_leaves_the_checkpoint_alone(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(module: StepModule) -> None:
        ctrl_c(module)
        ctrl_c(module)

    recipe = tiny("world_base")
    listener = signal.getsignal(signal.SIGINT)
    before_step(monkeypatch, DiffusionModule, 3, twice)
    with pytest.raises(TrainingError, match=r"in the middle of step 4; --resume goes on from the last"):
        run(recipe)
    folder = Path(recipe.run.folder) / "world_base"
    assert checkpoint(folder)["steps_done"] == 2
    assert not (folder / "export").exists()
    assert signal.getsignal(signal.SIGINT) is listener


def test_ctrl_c_in_the_last_step_lets_the_run_finish(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    before_step(monkeypatch, DiffusionModule, 6, ctrl_c)
    assert (run(tiny("world_base")) / "export" / "model.safetensors").is_file()


@pytest.mark.parametrize("name", MODULES)
def test_resuming_a_finished_run_trains_no_more_and_exports_the_same(name: str, tiny: Tiny) -> None:
    recipe = tiny(name)
    folder = run(recipe)
    before = files(folder)
    for path in (folder / "export").rglob("*.safetensors"):
        path.unlink()
    run(recipe, resume=True)
    assert files(folder) == before


def test_there_must_be_something_to_resume(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny("world_base")
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*last\.ckpt; start"):
        run(recipe, resume=True)
    assert not Path(recipe.run.folder).exists()
    with monkeypatch.context() as patch:
        before_step(patch, DiffusionModule, 1, power_cut)
        with pytest.raises(ConnectionError):
            run(recipe)
    with pytest.raises(CheckpointError, match="start the run without --resume"):
        run(recipe, resume=True)
    run(recipe)


def test_a_corrupt_checkpoint_is_named(tiny: Tiny) -> None:
    recipe = tiny("world_base")
    path = run(recipe) / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"last\.ckpt is corrupt"):
        run(recipe, resume=True)


def test_another_recipe_may_not_take_over_a_run(tiny: Tiny) -> None:
    folder = run(tiny("world_base"))
    before = files(folder)
    others = {
        "optimizer.lr, run.seed": tiny("world_base", "optimizer.lr=0.5", "run.seed=1"),
        "schedule.exponent, schedule.kind": tiny("world_base", 'schedule={"kind":"power","exponent":2}'),
        "kind": tiny("world_tokenizer", "run.name=world_base"),
    }
    for names, changed in others.items():
        with pytest.raises(ConfigError, match=rf"differs from the one in .*recipe\.json in {names}; resume"):
            run(changed, resume=True)
        with pytest.raises(ConfigError, match=r"holds a run already; go on with --resume, or .*run\.name="):
            run(changed)
    assert files(folder) == before


def test_the_command_reports_a_broken_off_run(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny("world_base")
    monkeypatch.setattr("recipes.registry.get", lambda name: recipe)
    with monkeypatch.context() as patch:
        before_step(patch, DiffusionModule, 3, ctrl_c)
        assert main(["world_base"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: stopped after step 4 of 7; go on with --resume"
    assert main(["world_base", "--resume"]) == 0
    assert capsys.readouterr().err.replace("\n", "").endswith(f"done: {recipe.run.folder}/world_base")


def test_after_a_crash_between_two_packs_of_a_step_the_rest_is_exact(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first pack of step 3 has given its gradients, the second has not."""
    whole = run(tiny("world_base", "run.name=whole"))
    broken = tiny("world_base", "run.name=broken")
    loss, calls = MaskedObjective.loss, [0]

    def crash(self: MaskedObjective, *inputs: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2 * 3 + 2:
            raise ConnectionError("power cut")
        return loss(self, *inputs, **named)

    with monkeypatch.context() as patch:
        patch.setattr(MaskedObjective, "loss", crash)
        with pytest.raises(ConnectionError, match="power cut"):
            run(broken)
    folder = run(broken, resume=True)
    renamed(folder / "export", "broken", "whole")
    assert_same_run(whole, folder)


def test_an_unfinished_run_can_be_exported_and_goes_on(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny("world_base", "ema=0.6")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        export_run(recipe)
    with monkeypatch.context() as patch:
        before_step(patch, DiffusionModule, 5, power_cut)
        with pytest.raises(ConnectionError):
            run(recipe)
    folder = export_run(recipe)
    state = checkpoint(folder)
    for weights, wanted in (
        ("average", averages(state)["embedding.weight"]),
        ("last", state["state_dict"]["backbone.embedding.weight"]),
    ):
        export_run(recipe, weights)  # type: ignore[arg-type]
        exported = load_file(folder / "export/model.safetensors")["embedding.weight"]
        assert torch.equal(exported, wanted.to(exported.dtype))
    with pytest.raises(ConfigError, match=r"differs .* optimizer\.lr"):
        export_run(tiny("world_base", "ema=0.6", "optimizer.lr=0.5"))
    run(tiny("world_base", "ema=0.6", "run.log_every=3", "run.save_every=4", "run.sample_every=9"), resume=True)
    assert checkpoint(folder)["steps_done"] == 7


@pytest.mark.parametrize("decay", ["0", "0.6"])
def test_a_checkpoint_in_parts_is_exported_as_a_file_is(decay: str, tiny: Tiny) -> None:
    """Or found corrupt where a part is lost."""
    recipe = tiny("world_base", "run.steps=2", f"ema={decay}")
    folder = run(recipe)
    path, state = folder / "checkpoints/last.ckpt", checkpoint(folder)
    path.unlink()
    tensors = {"state_dict": state.pop("state_dict"), "optimizer_0": state.pop("optimizer_states")[0]}
    save(tensors, storage_writer=FileSystemWriter(path), no_dist=True)
    torch.save(state, path / META)
    before = load_file(folder / "export/model.safetensors")
    shutil.rmtree(folder / "export")
    export_run(recipe)
    assert list(differences(load_file(folder / "export/model.safetensors"), before)) == []
    export_run(recipe, "last")
    last = load_file(folder / "export/model.safetensors")
    for name, weight in tensors["state_dict"].items():
        assert torch.equal(last[name.removeprefix("backbone.")], weight.bfloat16())
    assert (list(differences(last, before)) == []) == (decay == "0")
    next(path.glob("*.distcp")).unlink()
    with pytest.raises(CheckpointError, match=r"last\.ckpt is corrupt"):
        export_run(recipe)


def test_without_an_average_the_last_weights_are_kept(tiny: Tiny) -> None:
    state = checkpoint(run(tiny("world_base", "ema=0", "run.steps=2")))
    assert all("average" not in entry for entry in state["optimizer_states"][0]["state"].values())


def test_sample_pictures_show_the_average_and_training_goes_on_as_it_would(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recipes.watching import pictures

    shown = []
    original = pictures.samples

    def spy(module: DiffusionModule, examples: Any) -> Any:
        shown.append(module.backbone.embedding.weight.detach().clone())
        return original(module, examples)

    plain = checkpoint(run(tiny("world_base", "ema=0.6", "run.steps=2", "run.name=plain")))
    monkeypatch.setattr(pictures, "samples", spy)
    seen = checkpoint(run(tiny("world_base", "ema=0.6", "run.steps=2", "run.sample_every=2")))
    assert len(shown) == 1
    assert torch.equal(shown[0], averages(seen)["embedding.weight"])
    assert not torch.equal(shown[0], seen["state_dict"]["backbone.embedding.weight"])
    assert list(differences(plain["state_dict"], seen["state_dict"])) == []


def test_a_run_is_resumed_by_its_folder_with_the_settings_that_it_has(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No `--set` has to be said again, and the folder may have been moved."""
    whole = run(tiny("world_base", "run.name=whole"))
    broken = tiny("world_base", "run.name=broken")
    with monkeypatch.context() as patch:
        before_step(patch, DiffusionModule, 5, power_cut)
        with pytest.raises(ConnectionError):
            run(broken)
    moved = whole.parent / "elsewhere" / "moved"
    moved.parent.mkdir()
    (Path(broken.run.folder) / "broken").rename(moved)
    assert main(["world_base", "--resume", str(moved)]) == 0
    renamed(moved / "export", "moved", "whole")
    assert_same_run(whole, moved)
    shutil.rmtree(moved / "export")
    with monkeypatch.context() as patch:
        patch.chdir(moved)
        assert main(["world_base", "--export", "."]) == 0
    renamed(moved / "export", "moved", "whole")
    assert_same_run(whole, moved)
    assert main(["world_tokenizer", "--resume", str(moved)]) == 1
    assert main(["world_base", "--resume", str(moved / "export")]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "is of another kind than 'tokenizer'" in said
    assert "it has no recipe.json" in said
