"""The command line, on a tiny random model; see test_readme for the bundled one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from command_line import failed, noisy_picture, run
from rich.progress import Progress
from tiny_checkpoint import save_tiny

import dimoo
from dimoo.cli.app import COMMANDS
from dimoo.cli.options import Attention, Device, DType, open_model
from dimoo.data.world.config import WorldConfig
from dimoo.evaluation.suites import evaluate, world_of


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return noisy_picture(tmp_path / "picture.png")


# start-up


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([name, "--help"] for name in ("generate", "train", "evaluate"))]
)
def test_help_loads_no_torch(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom dimoo.cli import app\n"
        f"app({arguments!r}, standalone_mode=False)\n"
        "print([name for name in ('torch', 'lightning', 'numpy', 'PIL', 'recipes') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_names_every_command_in_its_group_and_cuts_no_sentence() -> None:
    groups = dict(re.findall(r"^(\S.*):\n((?:  .*\n)+)", run("--help").stdout, re.MULTILINE))
    for title, commands in COMMANDS.items():
        listed = [line.split()[0] for line in groups[title].splitlines()]
        assert listed == [command.__name__ for command in commands]
        assert "..." not in groups[title]


NAMES = [command.__name__ for commands in COMMANDS.values() for command in commands]


@pytest.mark.parametrize("name", NAMES)
def test_every_help_page_groups_its_options(name: str) -> None:
    page = run(name, "--help").stdout
    titles = [line for line in page.splitlines() if re.fullmatch(r"[A-Z]\w+:", line)]
    order = ["Arguments:", "Options:", "Sampling:", "Model:"]
    assert titles == [title for title in order if title in titles]
    assert "Options:" in titles
    assert ("--set FIELD=VALUE" in page) == ("Sampling:" in titles)
    assert "--device" not in page or page.index("--device") > page.index("Model:")


def test_version() -> None:
    assert run("--version").stdout == f"{dimoo.__version__}\n"


# models


def test_an_unknown_model(tmp_path: Path) -> None:
    failed(run("generate", "a cat", "--out", tmp_path / "a.png", "--model", "nowhere"), "'nowhere'", '"mini"')


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    failed(run("info", tmp_path), str(tmp_path), "config.json")


def test_corrupt_weights(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny")
    (folder / "model.safetensors").write_bytes(b"not safetensors")
    failed(run("generate", "a cat", "--out", tmp_path / "a.png", "--model", folder), "model.safetensors", "corrupt")
    failed(run("info", folder), "model.safetensors", "copy it again")


def test_missing_weights(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny")
    (folder / "model.safetensors").unlink()
    failed(run("generate", "a cat", "--out", tmp_path / "a.png", "--model", folder), "no weights at")


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_a_device_and_an_attention_that_are_not_there(tiny: Path, tmp_path: Path, command: str) -> None:
    options = ("--out", tmp_path / "a.png", "--model", tiny) if command == "generate" else ("--model", tiny)
    failed(run(command, "a cat", *options, "--device", "mps"), "cannot compute in torch.float32 on device 'mps'")
    failed(run(command, "a cat", *options, "--device", "cpu", "--attention", "xformers"), "xformers")
    result = run(command, "a cat", *options, "--attention", "fast")
    assert result.exit_code == 2
    assert "'auto', 'sdpa', 'varlen', 'flex', 'xformers'" in result.stderr


def test_the_attention_is_passed_on(tiny: Path) -> None:
    def attention(kind: Attention | None) -> str:
        backbone = open_model(str(tiny), Device.CPU, DType.FLOAT32, kind).backbone
        return type(backbone.blocks[0].attention.backend).__name__

    kinds = [attention(kind) for kind in (None, Attention.AUTO, Attention.SDPA)]
    assert kinds == ["AutoAttention", "AutoAttention", "SdpaAttention"]


@pytest.mark.parametrize(("large", "terminal", "shown"), [(0, True, True), (10**9, True, False), (0, False, False)])
def test_a_bar_shows_while_much_is_loaded(
    tiny: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, large: int, terminal: bool, shown: bool
) -> None:
    monkeypatch.setattr("dimoo.cli.options.LARGE", large)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    result = run("caption", picture, "--model", tiny)
    assert result.exit_code == 0
    assert ("loading" in result.stderr) == shown
    assert shown or result.stderr == ""


# demo, evaluate


@pytest.fixture
def two_tasks(tiny: Path, tmp_path: Path) -> Path:
    """The tiny model, which knows no more than to draw and to answer."""
    folder = shutil.copytree(tiny, tmp_path / "two_tasks")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["tasks"] = {name: config["tasks"][name] for name in ("generate", "ask")}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_evaluate_writes_and_prints_the_scores(two_tasks: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    result = run("evaluate", two_tasks, "--suite", "world", "--limit", 2, "--seed", 3, "--batch", 4, "--out", out)
    assert result.exit_code == 0, result.output
    with Progress(disable=True) as progress:
        model, world = dimoo.load(two_tasks), world_of(two_tasks)
        evaluation = evaluate(model, world, limit=2, seed=3, batch=4, progress=progress)
    expected = evaluation.scores
    written = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    assert written == {name: asdict(score) for name, score in expected.items()}
    ceiling, floor = expected["ceiling_two_objects"], expected["floor_two_objects"]
    (row,) = (line.split() for line in result.stdout.splitlines() if line.startswith("two objects"))
    score = expected["two_objects"]
    cases = [case for case in evaluation.cases if case.name == "two_objects"]
    kinds = [len({case.words for case in cases}), len({case.combination for case in cases})]
    shown = [score.score, score.low, score.high, score.n, *kinds, floor.score, ceiling.score]
    assert [float(word) for word in row[2:] if word != "to"] == pytest.approx(shown, abs=6e-4)
    assert result.stdout.splitlines()[-1] == str(out / "index.html")
    assert (out / "index.html").is_file()
    left_out = next(line for line in result.stderr.splitlines() if line.startswith("not scored"))
    assert left_out.partition(": ")[2].split(", ") == list(evaluation.left_out)
    assert "edit_add" in evaluation.left_out


def test_evaluate_samples_as_it_is_told(two_tasks: Path, tmp_path: Path) -> None:
    arguments = ("evaluate", two_tasks, "--limit", 1, "--out", tmp_path / "few")
    result = run(*arguments, "--set", "image.steps=1")
    assert result.exit_code == 0, result.output
    model = dimoo.load(two_tasks)
    model = model.with_settings(image=model.config.image.model_copy(update={"steps": 1}))
    with Progress(disable=True) as progress:
        evaluation = evaluate(model, world_of(two_tasks), limit=1, seed=0, batch=32, progress=progress)
    written = json.loads((tmp_path / "few" / "scores.json").read_text(encoding="utf-8"))
    assert written == {name: asdict(score) for name, score in evaluation.scores.items()}
    assert "Sampled with image.steps=1." in (tmp_path / "few" / "index.html").read_text(encoding="utf-8")
    failed(run(*arguments, "--set", "steps=1"), "begin with image. or text.")


def test_evaluate_on_the_scenes_of_another(two_tasks: Path, tmp_path: Path) -> None:
    scenes = WorldConfig(nouns=7, canvases=((48, 48),))
    scenes.save(tmp_path / "world.json")
    out = tmp_path / "scores"
    result = run("evaluate", two_tasks, "--limit", 1, "--out", out, "--world", tmp_path / "world.json")
    assert result.exit_code == 0, result.output
    with Progress(disable=True) as progress:
        evaluation = evaluate(dimoo.load(two_tasks), scenes, limit=1, seed=0, batch=32, progress=progress)
    written = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    assert written == {name: asdict(score) for name, score in evaluation.scores.items()}
    assert {case.picture.size for case in evaluation.cases if case.name == "single_object"} == {(48, 48)}
    assert f"On the scenes of {tmp_path / 'world.json'}." in (out / "index.html").read_text(encoding="utf-8")


def test_evaluate_reads_the_scenes_before_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dimoo.cli.judge.open_model", lambda *_, **__: pytest.fail("the model was loaded first"))
    failed(run("evaluate", "mini", "--out", tmp_path / "out", "--world", tmp_path), "no world.json in")


def test_demo_prints_where_the_page_is(tiny: Path, tmp_path: Path) -> None:
    result = run("demo", "--out", tmp_path / "gallery", "--model", tiny)
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'gallery' / 'index.html'}\n"), result.output
    page = (tmp_path / "gallery" / "index.html").read_text(encoding="utf-8")
    assert "<img" in page


def test_evaluate_rejects_what_it_does_not_know(tmp_path: Path) -> None:
    result = run("evaluate", "mini", "--suite", "moon", "--out", tmp_path)
    assert result.exit_code == 2
    assert "'moon'" in result.stderr
    assert "world" in result.stderr
    failed(run("evaluate", "nowhere", "--out", tmp_path), "'nowhere'")


@pytest.mark.parametrize("arguments", [("demo",), ("evaluate", "nowhere")])
def test_an_output_folder_that_is_a_file_fails_before_the_model_loads(
    picture: Path, arguments: tuple[str, ...]
) -> None:
    failed(run(*arguments, "--out", picture), "cannot make the folder", "picture.png", "choose another --out")


# train


def test_train_prints_the_resolved_recipe() -> None:
    result = run("train", "world_tokenizer", "--set", "run.steps=7", "--set", "run.name=seven", "--print")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["run"] | {"steps": 7, "name": "seven"} == json.loads(result.stdout)["run"]


def test_train_reports_an_unknown_recipe() -> None:
    result = run("train", "nothing")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no recipe 'nothing'" in result.stderr
    assert "world_base" in result.stderr


@pytest.mark.parametrize("missing", ["recipes", "lightning"])
def test_train_says_how_to_get_what_is_missing(missing: str) -> None:
    script = f"import sys\nsys.modules[{missing!r}] = None\nfrom dimoo.cli import main\nmain()"
    command = [sys.executable, "-c", script, "train", "world_tokenizer", "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert missing in done.stderr
    assert 'clone the repository and run pip install -e ".[train]"' in done.stderr
