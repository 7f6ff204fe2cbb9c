"""A run's folder is its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from tiny_recipes import Tiny, before_step, files, power_cut

from dimoo.core.errors import ConfigError
from recipes.config import DiffusionRecipe
from recipes.learning.diffusion import DiffusionModule
from recipes.run import run
from recipes.running import claim
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


def test_a_run_goes_on_from_where_the_process_before_left_it(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where that went on between a look at the checkpoint and its end, when the folder was free."""
    changes = ("run.save_every=1", "run.log_every=1")
    whole = run(tiny("world_base", *changes, "run.name=whole"))
    recipe = tiny("world_base", *changes, "run.name=broken")

    def until(step: int, *, resume: bool) -> None:
        with monkeypatch.context() as patch:
            before_step(patch, DiffusionModule, step, power_cut)
            with pytest.raises(ConnectionError):
                run(recipe, resume=resume)

    until(2, resume=False)
    original = claim.claimed

    def late(*arguments: Any, **settings: Any) -> AbstractContextManager[None]:
        monkeypatch.setattr(claim, "claimed", original)
        until(4, resume=True)
        return original(*arguments, **settings)

    monkeypatch.setattr(claim, "claimed", late)
    folder = run(recipe, resume=True)
    assert (folder / "csv/metrics.csv").read_text() == (whole / "csv/metrics.csv").read_text()
    starts = json.loads((folder / "environment.json").read_text())
    assert [start["after_step"] for start in starts] == [0, 2, 4]


def test_a_dry_run_of_one_that_goes_on_learns_from_weights_of_its_own(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads no checkpoint, so it must not wait for one to fill its tensors."""
    run(tiny("world_base", "run.steps=2"))
    largest = []
    before_step(
        monkeypatch,
        DiffusionModule,
        0,
        lambda module: largest.append(max(float(weight.detach().abs().max()) for weight in module.parameters())),
    )
    run(tiny("world_base", "run.steps=3"), resume=True, dry=True)
    assert 0 < largest[0] < 10


def test_a_config_that_cannot_be_written_leaves_the_one_there(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny("world_base", "run.steps=2")
    folder = run(recipe)
    before = (folder / "recipe.json").read_text()

    def full(self: DiffusionRecipe, path: Path) -> None:
        path.write_text("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DiffusionRecipe, "save", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        run(recipe, resume=True)
    assert (folder / "recipe.json").read_text() == before


def test_how_the_settings_of_a_run_are_said(tiny: Tiny) -> None:
    folder = run(tiny("world_base", "run.steps=2"))
    with pytest.raises(ConfigError, match=r"resume with the same settings: --set ema=0\.998$"):
        run(tiny("world_base", "run.steps=2", "ema=0.5"), resume=True)
    with pytest.raises(ConfigError, match=r" in kind_weights\.text; resume with the same settings$"):
        run(tiny("world_base", "run.steps=2", 'kind_weights={"text":4.0}'), resume=True)  # which it had not
    (folder / "recipe.json").write_text('{"kind": ')
    with pytest.raises(ConfigError, match=r"recipe\.json is damaged, or no recipe"):
        run(tiny("world_base", "run.steps=2"), resume=True)
