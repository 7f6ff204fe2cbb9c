"""What a run logs of its predictions and its speed, against plain loops."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_recipes import Tiny, before_step

import recipes.watching.progress
from dimoo.core.errors import ConfigError
from dimoo.denoise.objective import MaskedObjective
from recipes.config import DiffusionRecipe
from recipes.learning.assemble import diffusion_module
from recipes.learning.diagnostics import predictions
from recipes.learning.diffusion import DiffusionModule
from recipes.learning.operations import peak_operations
from recipes.learning.steps import StepModule
from recipes.ranks import Ranks
from recipes.run import run
from recipes.running import environment
from recipes.running.estimate import estimate
from recipes.running.trainer import _peak
from recipes.watching.logs import read_rows
from recipes.watching.progress import RunProgress

ROOT = Path(__file__).parents[2]


def module_of(tiny: Tiny, *changes: str) -> DiffusionModule:
    recipe = tiny("world_base", "run.batch_size=12", *changes)
    assert isinstance(recipe, DiffusionRecipe)
    return diffusion_module(recipe)


def plain(module: DiffusionModule, noisy: list[Any]) -> dict[str, float]:
    """Token by token."""
    found: dict[str, list[float]] = {}
    for entry in noisy:
        loss = module.objective.loss(module.backbone, entry, measure=True)
        sizes = entry.batch.sizes().tolist()
        for place, group in enumerate(entry.groups.group.tolist()):
            kind = entry.batch.targets[group].kind
            masked = int((entry.groups.group == group).sum())
            percent = next(end for end in (25, 50, 75, 100) if 100 * masked <= end * sizes[group])
            values = {"nll": loss.nll[place], "accuracy": loss.hits.correct[place], "entropy": loss.hits.entropy[place]}
            for name, value in values.items():
                found.setdefault(f"{name}/{kind}", []).append(float(value))
                if name != "entropy":
                    found.setdefault(f"{name}/{kind}/share_{percent}", []).append(float(value))
    return {name: sum(values) / len(values) for name, values in found.items()}


@pytest.mark.parametrize(
    "changes",
    [
        ("corruption=" + json.dumps({"kind": "bernoulli"}), "full_up_to=0"),
        ("complementary=true", "pack_tokens=300"),
        ("slice_loss=false",),
    ],
)
def test_means_by_kind_and_share_are_those_of_the_tokens(tiny: Tiny, changes: tuple[str, ...]) -> None:
    module = module_of(tiny, *changes)
    noisy = module.corrupted(0)
    losses = [module.objective.loss(module.backbone, entry, measure=True) for entry in noisy]
    found = predictions(module.kinds(), noisy, losses, Ranks(), torch.device("cpu"))
    wanted = plain(module, noisy)
    assert set(found.shown) == {"nll/image", "nll/text", "nll/padding"}
    assert not found.shown.keys() & found.details.keys()
    assert {**found.shown, **found.details} == pytest.approx(wanted, rel=1e-6)
    assert len({name.rpartition("_")[2] for name in wanted if "share" in name}) >= 3


def test_two_processes_speak_once_and_mean_over_both(tiny: Tiny) -> None:
    module = module_of(tiny)
    noisy = module.corrupted(0)
    losses = [module.objective.loss(module.backbone, entry, measure=True) for entry in noisy]
    calls: list[int] = []

    class Both(Ranks):
        """Another process has the last pack."""

        def sums(self, values: Any, device: torch.device) -> list[float]:
            calls.append(len(values))
            own = predictions_of_last(values)
            return [value + other for value, other in zip(values, own, strict=True)]

    def predictions_of_last(values: Any) -> list[float]:
        heard: list[list[float]] = []

        class Ear(Ranks):
            def sums(self, values: Any, device: torch.device) -> list[float]:
                heard.append(list(values))
                return list(values)

        predictions(module.kinds(), noisy[-1:], losses[-1:], Ear(), device)
        return heard[0]

    device = torch.device("cpu")
    assert len(noisy) == 2
    split = predictions(module.kinds(), noisy[:-1], losses[:-1], Both(), device)
    assert len(calls) == 1
    alone = predictions(module.kinds(), noisy, losses, Ranks(), device)
    assert {**split.shown, **split.details} == pytest.approx({**alone.shown, **alone.details}, rel=1e-12)


def test_a_run_measures_the_steps_that_it_logs_and_shows_a_short_line(
    tiny: Tiny, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[bool] = []
    original = MaskedObjective.loss

    def loss(self: Any, *inputs: Any, measure: bool = False) -> Any:
        measured.append(measure)
        return original(self, *inputs, measure=measure)

    monkeypatch.setattr(MaskedObjective, "loss", loss)
    changes = (
        "run.log_every=3",
        "run.peak_tflops=0.001",
        "accumulate=1",
        "optimizer.lr=0.01",
        "ema=0",
        "mixture.question=9",
        "optimizer.decay_share=0.25",
    )
    folder = run(tiny("world_base", *changes))
    assert measured == [False, False, True, False, False, True, True]
    learnt, speed = read_rows(folder / "csv/metrics.csv"), read_rows(folder / "csv/speed/metrics.csv")
    assert [row["step"] for row in learnt] == [row["step"] for row in speed] == [3, 6, 7]
    for row in learnt:
        assert {"loss", "lr", "grad_norm", "tokens", "nll/text", "accuracy/text", "entropy/text"} <= row.keys()
        assert not row.keys() & {"tokens/s", "mfu", "memory_gb"}
        assert any(name.startswith("accuracy/text/share_") for name in row)
    assert [row["lr"] for row in learnt] == pytest.approx([0.01, 0.01, 0.01 * (0.1 + 0.9 / (7 * 0.25))])
    assert all(row.keys() == {"step", "tokens/s", "waiting", "mfu", "memory_gb"} for row in speed)
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert {"mfu", "tokens/s", "entropy/text", "lr"} <= set(events.Tags()["scalars"])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step")]
    assert len(lines) == 3
    for line, row in zip(lines, speed, strict=True):
        assert f" {row['tokens/s']:,.0f} tokens/s  mfu {row['mfu']:.4g}  loss " in line
        names = {name for name in line.split("  ")[3:] for name in name.split()[:1]}
        assert names <= {"mfu", "loss", "grad_norm", "nll/text", "nll/padding", "nll/image"}


def test_columns_that_appear_late_are_kept_when_a_run_goes_on(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """One document a step: kinds come and go. The speed of steps done before stays as it was."""
    changes = ("run.batch_size=1", "accumulate=1", "run.steps=9", "run.save_every=3", "mixture.question=0.6")
    whole = run(tiny("world_base", *changes, "run.name=whole"))

    def stop(module: StepModule) -> None:
        raise ConnectionError("out")

    with monkeypatch.context() as patch:
        before_step(patch, DiffusionModule, 5, stop)
        with pytest.raises(ConnectionError):
            run(tiny("world_base", *changes, "run.name=broken"))
    folder = whole.parent / "broken"
    speed = folder / "csv/speed/metrics.csv"
    before = read_rows(speed)
    whole_rows = speed.read_text()
    row = whole_rows.splitlines()[-1]
    for cut in range(1, len(row) + 1):
        speed.write_text(whole_rows + row[:cut])  # a row that was being written
        assert read_rows(speed) == before
    run(tiny("world_base", *changes, "run.name=broken"), resume=True)
    assert (folder / "csv/metrics.csv").read_text() == (whole / "csv/metrics.csv").read_text()
    with (folder / "csv/metrics.csv").open(newline="") as file:
        names = [[name for name, value in row.items() if value] for row in csv.DictReader(file)]
    assert not set(names[0]) >= set(names[-1])
    assert read_rows(speed)[:3] == before[:3]
    assert [row["step"] for row in read_rows(speed)] == list(range(1, 10))


def test_mfu_is_operations_per_second_over_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(recipes.watching.progress, "time", clock)
    said: list[dict[str, float]] = []
    logger = SimpleNamespace(log_metrics=lambda values, step: said.append(values), save=lambda: None)
    trainer: Any = SimpleNamespace(loggers=[logger], callback_metrics={})
    module = StepModule()
    progress = RunProgress(steps=4, every=2, console=Console(quiet=True), peak=lambda device: 50.0)
    progress.on_train_start(trainer, module)
    for step in range(4):
        progress.on_train_batch_start(trainer, module, None, 0)
        clock.now += 2.0
        module.steps_done, module.items, module.operations = step + 1, 6, 20.0 if step < 2 else 40.0
        progress.on_train_batch_end(trainer, module, None, None, 0)
    assert [row["items/s"] for row in said] == [3.0, 3.0]
    assert [row["mfu"] for row in said] == pytest.approx([40 / 4 / 50, 80 / 4 / 50])
    assert all(0.05 < row["memory_gb"] < 1000 for row in said)


def test_operations_of_a_step_are_those_that_are_foretold(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[float] = []
    before_step(monkeypatch, DiffusionModule, 1, lambda module: found.append(module.operations))
    recipe = tiny("world_base", "run.steps=2")
    run(recipe, dry=True)
    assert found == [estimate(recipe).total_operations]


def test_what_devices_can_do() -> None:
    cpu = torch.device("cpu")
    assert peak_operations(cpu, torch.float32, None) is None
    assert peak_operations(cpu, torch.float32, 1.5) == 1.5e12
    run_of_twelve: Any = SimpleNamespace(precision="fp32", peak_tflops=2.0, devices=3, nodes=4)
    assert _peak(run_of_twelve, cpu) == 24e12


def test_a_tokenizer_has_no_mfu(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match=r"operations of a tokenizer are not counted; leave run\.peak_tflops out"):
        tiny("world_tokenizer", "run.peak_tflops=1")


def test_what_a_run_was_made_with_is_kept_for_every_start(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path.home()
    monkeypatch.setattr(
        sys,
        "argv",
        [str(ROOT / "recipes" / "run.py"), "world_base", "--set", f"run.folder={home}/runs", "a b"],
    )

    def stop(module: StepModule) -> None:
        raise ConnectionError("out")

    with monkeypatch.context() as patch:
        before_step(patch, DiffusionModule, 3, stop)
        with pytest.raises(ConnectionError):
            run(tiny("world_base"))
    folder = run(tiny("world_base"), resume=True)
    run(tiny("world_base"), resume=True)  # it has finished: nothing is made
    entries = json.loads((folder / "environment.json").read_text())
    assert [entry["after_step"] for entry in entries] == [0, 2]
    for entry in entries:
        assert entry["torch"] == torch.__version__
        assert entry["precision"] == "32-true"
        assert entry["cpu_threads"] == torch.get_num_threads()
        assert entry["command"] == "python -m recipes.run world_base --set 'run.folder=~/runs' 'a b'"
        assert str(home) not in json.dumps(entry)


def test_the_checkout_is_this_one() -> None:
    program = ROOT / "recipes" / "run.py"
    assert environment.CHECKOUT.resolve() == ROOT.resolve()
    assert environment.command([str(program), "pretrain"]) == "python -m recipes.run pretrain"
    assert environment.command([str(environment.__file__), "pretrain"]) == "environment.py pretrain"


def test_other_programs_are_named_alone() -> None:
    assert environment.command(["/home/somebody/bin/dimoo", "train", "pretrain"]) == "dimoo train pretrain"
    assert environment.command(["/elsewhere/recipes/run.py"]) == "run.py"


def test_the_state_of_a_checkout(tmp_path: Path) -> None:
    assert environment.git_state(tmp_path) is None

    def git(*words: str) -> str:
        who = ("-c", "user.name=n", "-c", "user.email=e@e.org")
        found = environment._git(tmp_path, *who, *words)
        assert found is not None, words
        return found

    git("init")
    (tmp_path / "a.txt").write_text("1")
    git("add", "a.txt")
    git("commit", "-m", "one")
    commit = git("rev-parse", "HEAD")
    assert environment.git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "new.txt").write_text("1")
    assert environment.git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "a.txt").write_text("2")
    assert environment.git_state(tmp_path) == {"commit": commit, "dirty": True}
    (tmp_path / "inside").mkdir()
    assert environment.git_state(tmp_path / "inside") is None  # a package installed somewhere in a checkout
