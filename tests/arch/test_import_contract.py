"""Imports point down: the contract in pyproject.toml holds, and would notice if it did not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the packages in a folder."""
    # The working folder comes first on the path, so that a copy is read in place of what is installed.
    script = (
        "import sys; sys.path.insert(0, ''); from importlinter.cli import lint_imports_command; lint_imports_command()"
    )
    return subprocess.run(
        [sys.executable, "-c", script, "--no-cache", "--config", "pyproject.toml"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_contract_holds() -> None:
    done = check(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("dimoo/core/errors.py", "import dimoo.tasks.model", "imports point down"),
        ("dimoo/diffusion/orders.py", "import dimoo.backbone.model", "imports point down"),
        ("dimoo/extra.py", "", "imports point down"),
        ("dimoo/tasks/engine.py", "import lightning", "lightning only in recipes"),
        ("recipes/named/world.py", "import recipes.learning.steps", "recipes import down"),
        ("dimoo/data/build.py", "import recipes.config", "recipes are used by nothing but the train command"),
    ],
)
def test_a_breach_is_noticed(tmp_path: Path, module: str, line: str, contract: str) -> None:
    for folder in ("dimoo", "recipes"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    done = check(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert any(row.startswith(f"{contract} BROKEN") for row in done.stdout.splitlines()), done.stdout
