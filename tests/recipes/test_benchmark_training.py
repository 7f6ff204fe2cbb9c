"""Our trainer and the naive one: the same mathematics, and what the benchmark says about them."""

from __future__ import annotations

import argparse
import json
import math
import mmap
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_recipes import Tiny
from torch.testing import assert_close

import benchmarks.training as benchmark
from benchmarks import naive_trainer
from benchmarks.timing import Clock
from benchmarks.trainers import PARTS, WARM_UP, Meter, train_naively, train_ours
from dimoo.core.errors import BackendError, ConfigError, TrainingError
from recipes.config import DiffusionRecipe
from recipes.learning.assemble import diffusion_module
from recipes.learning.diffusion import DiffusionModule
from recipes.running.estimate import estimate

LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="anonymous memory is read from /proc")
SMALL = ("--width", "16", "--layers", "1", "--vocabulary", "7300", "--batch", "3", "--steps", "2")
"""The bundled tokenizers need 7,168 ids."""
TRAINERS = ["naive", "ours", "ours, softmax over the slice"]


def options(*more: str) -> argparse.Namespace:
    return benchmark._parser().parse_args([*SMALL, "--set", "run.precision=fp32", *more])


def in_this_process(given: list[str], job: benchmark.Job) -> dict[str, Any]:
    return benchmark.measure(benchmark._parser().parse_args(given), job)


@pytest.fixture
def module(tiny: Tiny) -> DiffusionModule:
    """A step of four documents of different lengths, of a model with fewer heads for keys than for queries."""
    changes = ("backbone.layers=2", "backbone.kv_heads=1", "accumulate=1", "loss_chunk=16", "slice_loss=false")
    recipe = tiny("world_base", *changes)
    assert isinstance(recipe, DiffusionRecipe)
    return diffusion_module(recipe)


def test_the_naive_loss_and_its_gradient_are_ours(module: DiffusionModule) -> None:
    (pack,) = module.corrupted(0)
    assert len(set(pack.batch.lengths)) > 1, "without pads this says little"
    ours = module.objective.loss(module.backbone, pack).terms.mean()
    torch.autograd.backward(ours)
    gradients = {name: parameter.grad for name, parameter in module.backbone.named_parameters()}
    module.backbone.zero_grad()
    batch = naive_trainer.pad(pack, module.objective.vocabulary.pad)
    hidden = naive_trainer.encode(module.backbone, batch)
    naive = naive_trainer.masked_loss(module.backbone.unembedding(hidden), batch)
    torch.autograd.backward(naive)
    assert_close(naive, ours, rtol=1e-6, atol=0)
    for name, parameter in module.backbone.named_parameters():
        assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-7)


def test_rows_of_the_rectangle_are_the_documents(module: DiffusionModule) -> None:
    (pack,) = module.corrupted(1)
    batch = naive_trainer.pad(pack, pad_id=7)
    longest = max(pack.batch.lengths)
    assert batch.ids.shape == batch.clean.shape == (4, longest)
    start = 0
    for row, length in enumerate(pack.batch.lengths):
        assert torch.equal(batch.ids[row, :length], pack.ids[start : start + length])
        assert torch.equal(batch.clean[row, :length], pack.batch.ids[start : start + length])
        assert batch.ids[row, length:].tolist() == [7] * (longest - length)
        assert batch.real[row].tolist() == [True] * length + [False] * (longest - length)
        start += length
    assert torch.equal(batch.ids[batch.masked], torch.full((len(pack.rows),), module.objective.vocabulary.mask))
    assert torch.equal(batch.clean[batch.masked], pack.batch.ids[pack.rows])


def test_both_trainers_learn_the_same_step_after_step() -> None:
    recipe = benchmark.recipe_of(options())
    ours, naive = train_ours(recipe), train_naively(recipe)
    assert len(ours.losses) == WARM_UP + 2
    assert ours.tokens == naive.tokens
    assert naive.losses == pytest.approx(ours.losses, rel=1e-5)
    assert len(set(ours.losses)) == len(ours.losses)
    for meter in (ours, naive):
        report = meter.report()
        assert all(report["parts"][part] > 0 for part in PARTS)
        assert sum(report["parts"].values()) * 2 == pytest.approx(sum(meter.seconds[WARM_UP:]))


def test_the_naive_trainer_takes_a_step_in_one_piece() -> None:
    with pytest.raises(ConfigError, match=r"takes a step in one piece; set accumulate"):
        train_naively(benchmark.recipe_of(options("--set", "accumulate=2")))


def test_speed_is_the_median_of_the_steps_after_the_first() -> None:
    meter = Meter(torch.device("cpu"))
    meter.seconds, meter.tokens, meter.losses = [100.0, 1.0, 2.0, 4.0], [1, 30, 100, 80], [3.0, 2.0, 1.0, 0.5]
    meter.cpu_seconds, meter.head_rows = [90.0, 0.5, 3.0, 1.5], [9, 3, 5, 4]
    report = meter.report()
    assert (report["tokens_per_s"], report["step_seconds"], report["loss"]) == (30.0, 2.0, 0.5)
    assert (report["step_cpu_seconds"], report["head_rows"]) == (1.5, 4)


def test_the_recipe_is_the_last_phase_of_the_world(tiny: Tiny) -> None:
    recipe = benchmark.recipe_of(benchmark._parser().parse_args([]))
    whole = tiny("world_all")
    assert recipe.source.phases == (whole.source.phases[-1].model_copy(update={"share": 1.0}),)  # type: ignore[union-attr]
    shape = recipe.backbone
    assert (shape.d_model, shape.layers, shape.heads, shape.mlp_hidden, shape.vocab_size) == (192, 6, 6, 512, 134_548)
    assert (recipe.slice_loss, recipe.ema, recipe.run.batch_size, recipe.run.precision) == (False, 0.0, 16, "auto")
    large = benchmark.recipe_of(benchmark._parser().parse_args(["--shape", "1b", "--set", "recompute=all"]))
    assert (large.backbone.d_model, large.backbone.vocab_size, large.recompute) == (2048, 134_548, "all")
    assert (large.pack_tokens, large.run.batch_size) == (4096, 336)


@LINUX
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(benchmark, "launched", in_this_process)
    path = tmp_path / "report.json"
    benchmark.main([*SMALL, "--set", "run.precision=fp32", "--json", str(path)])
    assert list(tmp_path.iterdir()) == [path]
    report = json.loads(path.read_text())
    assert (report["precision"], report["documents"]) == ("32-true", 3)
    assert {"device", "threads", "torch", "python"} == report["machine"].keys()
    assert [row["trainer"] for row in report["rows"]] == TRAINERS
    naive, ours, sliced = report["rows"]
    for row in report["rows"]:
        assert all(math.isfinite(row[key]) for key in ("tokens_per_s", "step_seconds", "loss"))
        assert row["step_cpu_seconds"] > 0
        assert row["peak_bytes"] > 0
        assert row["parts"].keys() == set(PARTS)
    assert report["ratios"] == {key: ours[key] / naive[key] for key in ("tokens_per_s", "peak_bytes")}
    assert report["loss_difference"] < 1e-5
    assert sliced["head_rows"] == ours["head_rows"] < naive["head_rows"], "masked positions alone"
    assert sliced["loss"] < ours["loss"], "fewer ids to choose from"
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*TRAINERS, *PARTS, "ours over naive"))


def test_processes_are_measured_with_one_thread_each() -> None:
    jobs = benchmark.jobs(options("--processes", "3"))
    assert [job.trainer for job in jobs[:3]] == TRAINERS == [job.trainer for job in benchmark.jobs(options())]
    assert [(job.devices, job.threads) for job in jobs[3:]] == [(1, 1), (3, 1)]
    assert benchmark.recipe_of(options(), jobs[-1]).run.devices == 3
    rows = {
        job.trainer: {"trainer": job.trainer, "processes": job.devices, "tokens_per_s": 10.0 * job.devices}
        for job in jobs[3:]
    }
    assert benchmark.compared(rows) == {"scaling": {"processes": 3, "tokens_per_s": 3.0}}


@LINUX
def test_the_peak_of_memory_sees_a_block() -> None:
    # Pages of its own: an allocator may give out again what earlier tests freed and the process still holds.
    own = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with benchmark.peak(cuda=False) as seen, mmap.mmap(-1, 160_000_000, flags=own) as block:
        torch.frombuffer(block, dtype=torch.uint8).fill_(1)
        time.sleep(0.1)
    assert 0.9 * 160e6 < seen["peak"] < 2 * 160e6


def test_efficiency_is_operations_per_second_over_the_peak(tiny: Tiny) -> None:
    recipe = tiny("world_base", "accumulate=1")
    assert isinstance(recipe, DiffusionRecipe)
    need = estimate(recipe)
    found = benchmark.efficiency(recipe, need.tokens * 2.0, peak_flops=need.total_operations * 8)
    assert found["operations_per_s"] == pytest.approx(2 * need.total_operations)
    assert found["mfu"] == pytest.approx(0.25)
    assert found["parameters"] == sum(need.parameters.values())


def test_what_cannot_be_measured_is_said_before_anything_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("nothing is to be launched")

    monkeypatch.setattr(benchmark.subprocess, "run", never)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match=r"--shape 1b .* there is no CUDA device"):
        benchmark.main(["--shape", "1b"])
    with pytest.raises(ConfigError, match=r"there is no folder .*nowhere; make it first"):
        benchmark.main([*SMALL, "--json", str(tmp_path / "nowhere" / "report.json")])
    with pytest.raises(ConfigError, match=r"d_model 15"):
        benchmark.main([*SMALL, "--width", "15"])


def test_a_gpu_that_lightning_does_not_know(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "get_available_flops", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some Card")
    recipe = tiny("world_base")
    assert isinstance(recipe, DiffusionRecipe)
    with pytest.raises(BackendError, match=r"how much Some Card can compute; say it with --peak-flops"):
        benchmark.efficiency(recipe, 1.0, peak_flops=None)


def test_a_trainer_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(TrainingError, match=r"the trainer 'ours' ended with status 1"):
        benchmark.launched(SMALL, benchmark.Job(trainer="ours"))


def test_a_row_is_the_last_line_of_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def run(command: list[str], **named: Any) -> subprocess.CompletedProcess[str]:
        seen.update(named, command=command)
        return subprocess.CompletedProcess(command, 0, stdout='something else\n{"trainer": "x"}\n')

    monkeypatch.setattr(benchmark.subprocess, "run", run)
    assert benchmark.launched(["--steps", "2"], benchmark.Job(trainer="x", threads=1)) == {"trainer": "x"}
    assert seen["command"][1:] == ["-m", "benchmarks.training", "--steps", "2", "--child", "x"]
    assert seen["env"]["OMP_NUM_THREADS"] == "1"


def test_a_child_prints_its_row(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(benchmark, "measure", lambda _, job: {"trainer": job.trainer, "slice": job.slice_loss})
    benchmark.main([*SMALL, "--child", TRAINERS[2]])
    assert json.loads(capsys.readouterr().out) == {"trainer": TRAINERS[2], "slice": True}


def test_the_clock_of_a_naive_step_knows_its_parts(module: DiffusionModule) -> None:
    clock = Clock(torch.device("cpu"))
    (pack,) = module.corrupted(0)
    batch = naive_trainer.pad(pack, module.objective.vocabulary.pad)
    optimizer = naive_trainer.optimizer_of(module.backbone, module.recipe.optimizer)
    before = {name: parameter.detach().clone() for name, parameter in module.backbone.named_parameters()}
    loss = naive_trainer.step(module.backbone, optimizer, batch, clip=1.0, bf16=True, clock=clock)
    plain = module.objective.loss(diffusion_module(module.recipe).backbone, pack).terms.mean().item()
    assert loss == pytest.approx(plain, rel=2e-2)
    assert loss != plain, "in bf16 it is rounded"
    assert clock.seconds.keys() == {"forward", "head", "backward"}
    assert all(not torch.equal(before[name], parameter) for name, parameter in module.backbone.named_parameters())
    assert all(parameter.grad is None for parameter in module.backbone.parameters())


@pytest.mark.parametrize("option", ["--steps", "--batch", "--width", "--layers", "--vocabulary", "--processes"])
@pytest.mark.parametrize("value", ["0", "-2", "two"])
def test_counts_are_at_least_one(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        benchmark.main([f"{option}={value}"])
    assert ended.value.code == 2
    assert f"argument {option}: {value!r} is no whole number of at least 1" in capsys.readouterr().err
