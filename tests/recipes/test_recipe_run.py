from __future__ import annotations

import csv
import io
import math
import re
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_recipes import MODULES, Tiny, averages, before_step, checkpoint

import dimoo
import recipes.watching.progress
from dimoo.core.errors import ConfigError, DataError, TrainingError
from dimoo.data.build import build_source
from dimoo.tokenizers.image.files import load_image_tokenizer
from dimoo.weights.convert import convert
from recipes.learning.steps import StepModule
from recipes.run import run
from recipes.watching.pictures import SHOWN
from recipes.watching.progress import RunProgress


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "csv/metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_diffusion_run_leaves_logs_pictures_a_checkpoint_and_a_model_that_draws(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tiny("world_base", "run.sample_every=3", "run.log_every=2", "accumulate=1"))
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == ["step0000003.png", "step0000006.png"]
    with Image.open(folder / "pictures/step0000006.png") as sheet:
        assert sheet.width == 6 * 136 + 8
        assert len(sheet.getcolors(1 << 24) or ()) > 10
    logged = rows(folder)
    assert [row["step"] for row in logged] == ["2", "4", "6", "7"]
    for row in logged:
        assert {"loss", "grad_norm", "tokens", "nll/image"} <= row.keys()
        assert 0 < float(row["loss"]) < 10
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert {"loss", "grad_norm", "tokens"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Images("pictures")] == [3, 6]
    assert [event.step for event in events.Scalars("loss")] == [2, 4, 6, 7]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx([float(row["loss"]) for row in logged])
    assert checkpoint(folder)["steps_done"] == 7
    model = dimoo.load(folder / "export")
    (picture,) = model.generate("a cat", size=(32, 40), seed=3)
    assert picture.size == (40, 32)
    assert isinstance(model.ask(picture, "what is it"), str)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step")]
    assert [line.split()[1] for line in lines] == ["2/7", "4/7", "6/7", "7/7"]
    for line, row in zip(lines, logged, strict=True):
        assert re.search(r"\d:\d\d:\d\d left  [\d,]+ tokens/s  loss [\d.]+  grad_norm [\d.]+", line)
        assert f"loss {float(row['loss']):.4g}" in line


def test_a_tokenizer_run_scores_its_reconstructions(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tiny("world_tokenizer", "run.sample_every=7")
    folder = run(recipe)
    assert [path.name for path in (folder / "pictures").iterdir()] == ["step0000007.png"]
    (scored,) = [row for row in rows(folder) if row["psnr"]]
    tokenizer = load_image_tokenizer(folder / "export")
    first = 7 * 4  # beyond the examples that it was trained on
    source = build_source(recipe.source, seed=recipe.run.seed, examples=first)
    values = []
    for index in range(first, first + SHOWN):
        image = np.asarray(source.example(index).image) / 255
        pixels = torch.from_numpy(image).permute(2, 0, 1).float()[None]
        made = tokenizer.decode(tokenizer.encode(pixels))
        values.append(-10 * math.log10(float((made - pixels).square().mean())))
    assert float(scored["psnr"]) == pytest.approx(sum(values) / len(values), abs=1e-4)
    assert scored["step"] == "7"
    final = rows(folder)[-1]
    assert {"l1", "l2", "gradient", "commitment", "adversary", "real", "made", "codes_in_batch"} <= final.keys()
    assert 1 <= float(final["codes_in_batch"]) <= 32
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"step 7/7  0:00:00 left  [\d,]+ pictures/s  l1 ", last)
    assert last.endswith(f"psnr {float(scored['psnr']):.4g}")


def test_the_average_of_the_weights_is_what_is_exported(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    weights: list[dict[str, torch.Tensor]] = []
    before_step(
        monkeypatch,
        MODULES["world_base"],
        None,
        lambda module: weights.append({k: v.clone() for k, v in module.backbone.state_dict().items()}),
    )
    folder = run(tiny("world_base", "ema=0.6"))
    state = checkpoint(folder)
    weights.append({k[9:]: v for k, v in state["state_dict"].items() if k.startswith("backbone.")})
    kept = averages(state)
    exported = load_file(folder / "export/model.safetensors")
    assert len(weights) == 8
    assert exported.keys() == weights[0].keys()
    for name in exported:
        average = weights[1][name]
        for step in weights[2:]:
            average = 0.6 * average + 0.4 * step[name]
        torch.testing.assert_close(kept[name], average, rtol=1e-5, atol=1e-6)
        assert torch.equal(exported[name], kept[name].to(exported[name].dtype))
        assert not torch.equal(average, weights[-1][name])


def test_packs_of_unequal_size_give_the_loss_and_gradient_of_one_big_pack(tiny: Tiny) -> None:
    """Every target masked, so that the packs hold the same noise; sizes differ, so a mean of means would not do."""
    made = {}
    for count in (1, 4):
        changes = (
            "full_up_to=10000",
            "run.steps=1",
            "run.batch_size=7",
            f"run.name=packs{count}",
            "optimizer.betas=[0.5,0.95]",
        )
        folder = run(tiny("world_base", *changes, f"accumulate={count}"))
        state = checkpoint(folder)["optimizer_states"][0]["state"]
        made[count] = rows(folder)[0], [entry["exp_avg"] for entry in state.values()]
    (one, gradients), (four, others) = made[1], made[4]
    for name in ("loss", "grad_norm"):
        assert float(one[name]) == pytest.approx(float(four[name]), rel=1e-6)
    assert one["tokens"] == four["tokens"]
    assert len(gradients) == len(others) > 5
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(gradient, other, rtol=0, atol=1e-6 * float(gradient.abs().max()))
        assert float(gradient.abs().max()) > 0


def poison_weight(module: Any) -> None:
    with torch.no_grad():
        next(parameter for parameter in module.parameters() if parameter.requires_grad).fill_(math.nan)


def poison_gradient(module: Any) -> None:
    first = next(parameter for parameter in module.parameters() if parameter.requires_grad)
    first.register_hook(lambda gradient: gradient * math.inf)


@pytest.mark.parametrize(
    ("name", "poison", "problem"),
    [
        ("world_base", poison_weight, "the loss is nan at step 4"),
        ("world_base", poison_gradient, "the gradient norm is nan at step 4"),
        ("world_tokenizer", poison_weight, r"not finite at step 4: .*'l1': nan"),
        ("world_tokenizer", poison_gradient, r"not finite at step 4: .*'grad_norm': (nan|inf)"),
    ],
)
def test_a_loss_or_gradient_that_is_not_finite_stops_the_run(
    name: str, poison: Any, problem: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny(name, "optimizer.lr=0.0125")
    before_step(monkeypatch, MODULES[name], 3, poison)
    fix = r"another run\.name with a lower optimizer\.lr \(now 0\.0125\)"
    with pytest.raises(TrainingError, match=f"{problem}.*{fix}"):
        run(recipe)
    folder = Path(recipe.run.folder) / name
    state = checkpoint(folder)
    assert state["steps_done"] == 2
    assert all(bool(tensor.isfinite().all()) for tensor in state["state_dict"].values())
    assert not (folder / "export").exists()


def test_a_row_without_a_picture_stops_the_run(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "words.jsonl").write_text('{"caption": "only words"}\n')
    source = f'source={{"kind":"jsonl","path":"{tmp_path / "words.jsonl"}","size":[32,32]}}'
    for name in MODULES:
        with pytest.raises(DataError, match="no picture"):
            run(tiny(name, source), dry=True)


def test_a_vocabulary_that_is_too_small_is_refused(tiny: Tiny) -> None:
    with pytest.raises(dimoo.ConfigError, match=r"vocab_size is 500, but \d+ text ids and 32 image codes need"):
        run(tiny("world_base", "backbone.vocab_size=500"), dry=True)


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


class Step(StepModule):
    """A module that only says what it measured."""

    unit = "tokens"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(recipes.watching.progress, "time", clock)
    return clock


def drive(progress: RunProgress, clock: Clock, *, first: int, last: int, seconds: float) -> None:
    trainer: Any = SimpleNamespace(is_global_zero=True, loggers=[], callback_metrics={"psnr": torch.tensor(21.5)})
    module = Step()
    module.steps_done = first
    progress.on_train_start(trainer, module)
    for step in range(first, last):
        progress.on_train_batch_start(trainer, module, None, 0)
        clock.now += seconds
        module.steps_done = step + 1
        module.items = 500
        if module.shown:
            module.values = {"loss": 1 / (step + 1), "tokens": 500.0}
        progress.on_train_batch_end(trainer, module, None, None, 0)
    progress.on_exception(trainer, module, RuntimeError())


def test_speed_and_time_left_count_from_where_the_run_resumed(clock: Clock) -> None:
    screen = io.StringIO()
    progress = RunProgress(steps=103, every=2, console=Console(file=screen, force_terminal=False))
    drive(progress, clock, first=93, last=103, seconds=4.0)
    first, *_, last = screen.getvalue().splitlines()
    assert first == "step 94/103  0:00:36 left  125 tokens/s  loss 0.01064  psnr 21.5"
    assert last == "step 103/103  0:00:00 left  125 tokens/s  loss 0.009709  psnr 21.5"
    assert len(screen.getvalue().splitlines()) == 6


def test_a_terminal_gets_a_bar_that_is_taken_down_after_an_error(clock: Clock) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=150)
    drive(RunProgress(steps=10, every=1, console=console), clock, first=0, last=4, seconds=1.0)
    shown = screen.getvalue()
    assert "4/10" in shown
    assert "500 tokens/s  loss 0.25" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("4/10")  # the cursor is back


def test_each_row_of_the_log_has_its_own_steps_values_only(tiny: Tiny) -> None:
    """One document a step: a step without text must not repeat the text loss of an earlier one."""
    logged = rows(run(tiny("world_base", "run.batch_size=1", "run.steps=12", "accumulate=1", "mixture.question=0.6")))
    kinds = [{name for name, value in row.items() if re.fullmatch(r"nll/\w+", name) and value} for row in logged]
    assert {"nll/image"} in kinds
    assert any("nll/text" in kind for kind in kinds)
    assert all(len(kind & {"nll/image", "nll/text"}) == 1 for kind in kinds)
    for kind, row in zip(kinds, logged, strict=True):
        if kind == {"nll/image"}:
            assert float(row["loss"]) == pytest.approx(float(row["nll/image"]), rel=1e-6)
    assert all(before["loss"] != after["loss"] for before, after in pairwise(logged))


def test_from_the_released_layout_and_back_into_it(tiny: Tiny, tmp_path: Path) -> None:
    """What was trained goes into the released layout; a run starts from there, and learns what it would from ours."""
    first = run(tiny("world_base", "run.name=first", "run.steps=2"))
    released = convert(first / "export", tmp_path / "released", layout="lumina")
    names = set(load_file(released / "model.safetensors"))
    assert "model.transformer.blocks.0.q_proj.weight" in names
    goals = []
    for name, source in (("a", released), ("b", first / "export")):
        folder = run(tiny("world_base", f"run.name={name}", "run.steps=2", f"warm_start={source}"))
        goals.append(load_file(folder / "export" / "model.safetensors"))
    assert all(torch.equal(goals[0][name], goals[1][name]) for name in goals[1])
    fresh = load_file(first / "export" / "model.safetensors")
    assert not torch.equal(goals[0]["embedding.weight"], fresh["embedding.weight"])


def test_a_folder_that_cannot_be_written_into_is_named(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write into the folder '.*/file/.*'.*choose another run\.folder"):
        run(tiny("world_base", f"run.folder={tmp_path / 'file'}"))
