"""Two processes learn what one does, and go on from each other's checkpoints."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
from llada_like import llada_like
from safetensors.torch import load_file
from tiny_recipes import Tiny, before_step, checkpoint, differences, of_text
from two_processes import HERE, PLAIN, TORCHRUN, assert_same, two

from dimoo.core.errors import ConfigError, TrainingError
from recipes.learning.diffusion import DiffusionModule
from recipes.processes import first_process
from recipes.run import export_run, run
from recipes.running.saving import META, NEW, Beside, checkpoint_path, exchange, last_checkpoint, steps_of


def after_steps(count: int, recipe: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until the checkpoint of that step, which is an even one."""

    def stop(module: DiffusionModule) -> None:
        raise ConnectionError("out")

    with monkeypatch.context() as patch:
        before_step(patch, DiffusionModule, count + 1, stop)
        with pytest.raises(ConnectionError):
            run(recipe)  # type: ignore[arg-type]


def test_copies_in_two_processes(tiny: Tiny, image_tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process takes two packs in turn; two, each with a worker, take one each from where another has come to."""
    whole = run(tiny("world_base", "run.name=whole"))
    begun = tiny("world_base", "run.name=begun")
    after_steps(2, begun, monkeypatch)
    folder = Path(begun.run.folder)
    changes = ("accumulate=1", "run.devices=2", "run.workers=1")
    two(PLAIN, folder, image_tokenizer, "run.name=begun", *changes, "--resume")
    assert_same(whole, folder / "begun")


def test_parts_in_two_processes(tiny: Tiny, image_tokenizer: Path) -> None:
    """Each holds a half of every matrix and of its average (FSDP2), computes two packs of four, and writes its half.

    What validation computes with the averages is forgotten, also where no checkpoint follows at once.
    """
    same = ["ema=0.6", "run.validate_every=3", "run.validate_examples=8"]
    whole = run(tiny("world_base", "run.name=whole", "accumulate=4", *same))
    folder = whole.parent
    changes = ["run.name=parts", "accumulate=2", "run.devices=2", "run.parallel=fsdp", *same]
    changes.append("run.checkpoints=parts")
    two(TORCHRUN, folder, image_tokenizer, *changes, "--stop-after", "4", steps=4)
    two(TORCHRUN, folder, image_tokenizer, *changes, "--resume")
    assert_same(whole, folder / "parts")
    assert [path.name for path in (folder / "parts/checkpoints").iterdir()] == ["last.ckpt"]
    assert (folder / "parts/checkpoints/last.ckpt").is_dir()
    alone = tiny("world_base", "run.name=parts", "accumulate=4", *same)
    with pytest.raises(ConfigError, match=r"is in parts, which only several processes .* go on from"):
        run(alone, resume=True)
    before = load_file(folder / "parts/export/model.safetensors")
    export_run(alone)
    assert list(differences(load_file(folder / "parts/export/model.safetensors"), before)) == []
    export_run(alone, "last")
    after = load_file(folder / "parts/export/model.safetensors")
    last = checkpoint(folder / "parts")["state_dict"]
    for name, weight in after.items():
        assert torch.equal(weight, last[f"backbone.{name}"].to(weight.dtype))
        assert not torch.equal(weight, before[name])


@pytest.mark.parametrize(
    ("launcher", "ranks", "kind"),
    [
        (PLAIN, "1", "data"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((PLAIN, "0", "data"), (PLAIN, "01", "data"), (TORCHRUN, "1", "data"), (PLAIN, "1", "bug"))
        ),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (PLAIN, "0", "killed"),
                (PLAIN, "1", "killed"),
                (PLAIN, "0", "asked"),
                (TORCHRUN, "1", "asked"),
            )
        ),
    ],
)
def test_an_error_of_one_process_is_shown_once(
    launcher: list[str], ranks: str, kind: str, tiny: Tiny, image_tokenizer: Path
) -> None:
    """Whichever process it is of: the others lose their connections, and say nothing of it."""
    folder = Path(tiny("world_base").run.folder)
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    changes = ["run.devices=2", "accumulate=1", "--fail", f"2:{ranks}:{kind}"]
    done = subprocess.run(
        [*launcher, str(HERE / "processes.py"), "world_base", str(folder), str(image_tokenizer), *changes],
        env={**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    first_killed = launcher is PLAIN and (ranks, kind) == ("0", "killed")
    assert done.returncode == (-signal.SIGKILL if first_killed else 1), done.stderr[-3000:]
    # What torchrun says of it in its own words comes after.
    said = list(takewhile(lambda line: "distributed/elastic" not in line, done.stderr.splitlines()))
    lines = [line for line in said if not line.startswith(("step ", "Initializing distributed"))]
    match kind:
        case "data":
            assert lines == ["error: row 7 is bad, for data"]
        case "asked":  # whom it reached: all stop after the same step
            assert lines == ["error: stopped after step 3 of 7; go on with --resume"]
            assert steps_of(last_checkpoint(folder / "world_base")) == 3
        case "killed":
            assert " ".join(lines).startswith("error: another process of this run was lost")
            assert len(lines) < 4
        case _:
            assert "".join(lines).count("Traceback") == 1
            assert lines[-1].endswith("ZeroDivisionError: row 7 is bad, for bug")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "then"), [("alone", "parts"), ("parts", "whole"), ("whole", "parts"), ("whole", "whole")]
)
@pytest.mark.parametrize("phase", [(), ("new_rows_steps=5",)])
def test_sharded_runs_go_on_from_either_kind_of_checkpoint(
    first: str, then: str, phase: tuple[str, ...], tiny: Tiny, image_tokenizer: Path, tmp_path: Path
) -> None:
    """Or from that of one process; also in the middle of a phase in which but the rows of new ids are trained."""
    if phase:
        talker = llada_like().save(tmp_path / "talker")
        phase = (*of_text(talker), *phase)
    whole = run(tiny("world_base", "run.name=whole", "accumulate=4", "ema=0.6", *phase))
    folder = whole.parent
    changes = ["run.name=parts", "accumulate=2", "run.devices=2", "run.parallel=fsdp", "ema=0.6", *phase]
    if first == "alone":
        with pytest.MonkeyPatch.context() as patch:
            after_steps(4, tiny("world_base", "run.name=parts", "accumulate=4", "ema=0.6", *phase), patch)
    else:
        begun = [*changes, f"run.checkpoints={first}"]
        two(TORCHRUN, folder, image_tokenizer, *begun, "--stop-after", "4", steps=4)
    assert steps_of(last_checkpoint(folder / "parts")) == 4
    two(TORCHRUN, folder, image_tokenizer, *changes, f"run.checkpoints={then}", "--resume")
    assert_same(whole, folder / "parts")
    assert [path.name for path in (folder / "parts/checkpoints").iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("after", range(4))
def test_while_a_checkpoint_takes_the_place_of_another_one_of_them_is_found(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off before each of its operations on files, the last of them included."""
    path = checkpoint_path(tmp_path)
    new = path.with_suffix(NEW)
    for place, steps in ((path, 2), (new, 4)):
        place.mkdir(parents=True)
        torch.save({"steps_done": steps, "guard": {}}, place / META)
    done: list[str] = []

    def broken_off(name: str, original: Any) -> Any:
        def call(*inputs: Any, **named: Any) -> Any:
            if len(done) == after:
                raise ConnectionError("power cut")
            done.append(name)
            return original(*inputs, **named)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", broken_off("rename", Path.rename))
        patch.setattr(Path, "replace", broken_off("replace", Path.replace))
        patch.setattr("shutil.rmtree", broken_off("rmtree", shutil.rmtree))
        try:
            exchange(new, path)
        except ConnectionError:
            assert after < 3
    assert steps_of(last_checkpoint(tmp_path)) == (2 if after < 2 else 4)
    if after == 3:
        assert done == ["rename", "replace", "rmtree"]
        assert [entry.name for entry in path.parent.iterdir()] == ["last.ckpt"]


def test_more_packs_than_examples_are_refused(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match=r"batch_size 4 cannot be dealt to 6 packs.*at least 6"):
        tiny("world_base", "accumulate=2", "run.devices=3")
    for change in ("run.parallel=fsdp", "run.devices=2"):
        with pytest.raises(ConfigError, match=r"checkpoints parts needs run.parallel fsdp and several processes"):
            tiny("world_base", "run.checkpoints=parts", change)
    with pytest.raises(ConfigError, match=r"trained by one process"):
        tiny("world_tokenizer", "run.devices=2")


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "0"}, True),
        ({"RANK": "3", "LOCAL_RANK": "0"}, False),
        ({"LOCAL_RANK": "1"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
    ],
)
def test_which_process_writes(environment: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert first_process() is first


def test_a_file_takes_the_place_of_a_checkpoint_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And of one in parts, which may have been kept aside when a run was broken off."""
    path = checkpoint_path(tmp_path)
    path.parent.mkdir()
    new, old = path.with_suffix(NEW), path.with_suffix(".previous")

    def write(steps: int) -> None:
        Beside().save_checkpoint({"steps_done": steps, "guard": {}}, new)

    write(2)
    exchange(new, path)
    write(4)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: pytest.fail("the one before was moved away"))
        exchange(new, path)
    assert steps_of(last_checkpoint(tmp_path)) == 4
    path.unlink()
    old.mkdir()
    torch.save({"steps_done": 4, "guard": {}}, old / META)
    write(6)
    assert steps_of(last_checkpoint(tmp_path)) == 4
    exchange(new, path)
    assert steps_of(last_checkpoint(tmp_path)) == 6
    assert [entry.name for entry in path.parent.iterdir()] == ["last.ckpt"]


def test_checkpoints_are_written_where_they_stay(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder for temporary files may be on another disk, and smaller."""
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    monkeypatch.setattr("shutil.move", lambda *_, **__: pytest.fail("a file was moved, which may be to another disk"))
    folder = Path(tiny("world_base").run.folder) / "world_base"
    assert run(tiny("world_base", "run.steps=2")) == folder
    assert checkpoint(folder)["steps_done"] == 2


def test_a_full_disk_keeps_the_last_checkpoint(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on the size of files stands for it: the write fails in the middle."""
    recipe = tiny("world_base")
    folder = Path(recipe.run.folder) / "world_base"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(module: DiffusionModule) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))

    before_step(monkeypatch, DiffusionModule, 3, fill)
    try:
        with pytest.raises(TrainingError, match=r"checkpoint of step 4 cannot be written: .*the one before is whole"):
            run(recipe)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert checkpoint(folder)["steps_done"] == 2
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["last.ckpt"]
