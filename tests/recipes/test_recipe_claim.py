"""A run's folder is its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_recipes import Tiny, files

from dimoo.core.errors import ConfigError
from recipes.run import run
from recipes.running.claim import LOCK


def test_what_a_run_made_is_not_written_over(tiny: Tiny) -> None:
    """Also where its checkpoints were removed."""
    folder = run(tiny("world_base"))
    shutil.rmtree(folder / "checkpoints")
    before = files(folder)
    with pytest.raises(ConfigError, match=r"holds what a run made; choose another name with --set run\.name="):
        run(tiny("world_base", "run.seed=7"))
    assert files(folder) == before


def test_a_run_has_its_folder_for_itself(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until its process ends, however it does."""
    recipe = tiny("world_base", "run.steps=2")
    folder = Path(recipe.run.folder) / "world_base"
    folder.mkdir(parents=True)
    hold = "import fcntl, sys, time; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); "
    with subprocess.Popen(
        [sys.executable, "-c", hold + "time.sleep(60)", str(folder / LOCK)], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        before = files(folder)
        with pytest.raises(ConfigError, match=r"another process is at the run in .*world_base; wait for it or end it"):
            run(recipe)
        assert files(folder) == before
        other.kill()
    run(recipe)


def test_how_the_settings_of_a_run_are_said(tiny: Tiny) -> None:
    folder = run(tiny("world_base", "run.steps=2"))
    with pytest.raises(ConfigError, match=r"resume with the same settings: --set ema=0\.998$"):
        run(tiny("world_base", "run.steps=2", "ema=0.5"), resume=True)
    (folder / "recipe.json").write_text('{"kind": ')
    with pytest.raises(ConfigError, match=r"recipe\.json is damaged, or no recipe"):
        run(tiny("world_base", "run.steps=2"), resume=True)
