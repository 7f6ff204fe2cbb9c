from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_recipes import Tiny

from dimoo.core.config import override
from recipes import registry
from recipes.run import main, run

SNAPSHOTS = Path(__file__).parent / "snapshots"
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", registry.RECIPES)
def test_a_recipe_says_what_its_snapshot_says(name: str) -> None:
    snapshot = SNAPSHOTS / f"{name}.json"
    update = f"python -m recipes.run {name} --print > {snapshot.relative_to(ROOT)}"
    assert snapshot.is_file(), f"a new recipe needs a snapshot: {update}"
    now = registry.get(name).model_dump_json(indent=2) + "\n"
    assert now == snapshot.read_text(encoding="utf-8"), f"{name} has changed; if that is meant: {update}"


def test_the_documentation_names_every_recipe() -> None:
    tables = (ROOT / "docs/training.md").read_text(encoding="utf-8").split("Look at the resolved config")[0]
    assert set(re.findall(r"`(\w+)`", tables)) >= set(registry.RECIPES)


def test_there_is_no_snapshot_without_a_recipe() -> None:
    assert {path.stem for path in SNAPSHOTS.iterdir()} == set(registry.RECIPES)


@pytest.mark.parametrize("name", registry.RECIPES)
def test_print_shows_the_recipe_with_its_overrides(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--set", "run.steps=11", "--set", "optimizer.lr=0.5", "--print"]) == 0
    printed = capsys.readouterr().out
    recipe = registry.get(name)
    read = type(recipe).model_validate_json(printed)
    assert read == override(recipe, ["run.steps=11", "optimizer.lr=0.5"])
    assert (read.run.steps, read.optimizer.lr) == (11, 0.5)
    assert read != recipe


def test_print_needs_neither_torch_nor_lightning() -> None:
    code = (
        "import sys; from recipes.run import main; status = main(['world_base', '--print']);"
        "heavy = {'torch', 'lightning', 'torchmetrics'} & set(sys.modules); assert not heavy, heavy; sys.exit(status)"
    )
    made = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["run"]["name"] == "world_base"


@pytest.mark.parametrize("name", registry.RECIPES)
def test_every_recipe_builds_and_takes_two_steps_without_leaving_a_file(
    name: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(tiny(name), dry=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in lines] == ["1/2", "2/2"]
    assert list(tmp_path.rglob("*")) == []


def test_the_dry_run_of_the_bundled_recipe_runs_as_a_command_and_is_quiet(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "recipes.run", "world_base", "--dry-run", "--set", f"run.folder={tmp_path}",
         "--set", "run.precision=fp32"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert list(tmp_path.iterdir()) == []
    lines = made.stderr.strip().splitlines()
    assert [line.split()[0] for line in lines] == ["step", "step", "dry"], made.stderr


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["no_such"], ("'no_such'", "world_base")),
        (["world_base", "--set", "run.stepz=3"], ("stepz", "steps")),
        (["world_base", "--set", "run.steps=0"], ("run.steps", "greater than 0")),
        (["world_base", "--set", "run.steps"], ("'run.steps'", "a.b=value")),
        (["world_base", "--set", "optimizer.lr=fast"], ("optimizer.lr", "fast")),
        (["world_base", "--set", "schedule.kind=quadratic"], ("schedule", "quadratic")),
        (["world_base", "--set", "mixture.text_to_image=-1"], ("mixture.text_to_image", "-1")),
    ],
)
def test_bad_commands_are_one_clear_error(
    arguments: list[str], wanted: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    for part in wanted:
        assert part in error


def test_print_dry_run_and_resume_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["world_base", "--dry-run", "--resume"])
    assert "not allowed with" in capsys.readouterr().err
