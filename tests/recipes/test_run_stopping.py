"""A run that is ended from outside is saved where it stops, and nothing but its own checkpoint is ever read."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from same_runs import assert_same_run, renamed
from tiny_recipes import Tiny, before_step, checkpoint, power_cut

from dimoo.core.errors import ConfigError, TrainingError
from recipes.learning.diffusion import DiffusionModule
from recipes.run import run
from recipes.running.saving import checkpoint_path

SLURM = {"NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_ID": "7", "JOB_NAME": "train"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_two_steps_is_heard_after_the_next(
    number: int, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the callbacks of step 3 are done with it, and its checkpoint was not due."""
    recipe = tiny("world_base", "run.save_every=1000")
    before = signal.getsignal(number)

    def ended(self: DiffusionModule, outputs: Any, batch: int, batch_idx: int) -> None:
        if self.steps_done == 3:
            signal.raise_signal(number)

    monkeypatch.setattr(DiffusionModule, "on_train_batch_end", ended)
    with pytest.raises(TrainingError, match=r"stopped after step 4 of 7; go on with --resume"):
        run(recipe)
    assert checkpoint(Path(recipe.run.folder) / "world_base")["steps_done"] == 4
    assert signal.getsignal(number) is before


def test_sigterm_may_come_again(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny("world_base", "run.save_every=1000")

    def twice(module: DiffusionModule) -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    before_step(monkeypatch, DiffusionModule, 1, twice)
    with pytest.raises(TrainingError, match=r"stopped after step 2 of 7; go on with --resume"):
        run(recipe)
    assert checkpoint(Path(recipe.run.folder) / "world_base")["steps_done"] == 2


def test_under_slurm_a_run_is_as_elsewhere(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lies in the working directory; and requeueing is not Lightning's affair."""
    whole = run(tiny("world_base", "run.name=whole"))
    other = tiny("world_base", "run.name=other", "run.seed=1")
    with monkeypatch.context() as patch:
        before_step(patch, DiffusionModule, 3, power_cut)
        with pytest.raises(ConnectionError, match="power cut"):
            run(other)
    shutil.copy(checkpoint_path(whole.parent / "other"), tmp_path / "hpc_ckpt_1.ckpt")
    monkeypatch.chdir(tmp_path)
    for name, value in SLURM.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    heard = []
    before_step(monkeypatch, DiffusionModule, None, lambda _: heard.append(signal.getsignal(signal.SIGUSR1)))
    before = signal.getsignal(signal.SIGUSR1)
    folder = run(tiny("world_base", "run.name=slurm"))
    assert heard == [before] * 7
    renamed(folder / "export", "slurm", "whole")
    assert_same_run(whole, folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hpc_ckpt_1.ckpt", "runs"]


def test_a_run_in_parts_is_named_as_one_that_is_there(tiny: Tiny) -> None:
    """It is only going on that takes several processes."""
    recipe = tiny("world_base")
    checkpoint_path(Path(recipe.run.folder) / "world_base").mkdir(parents=True)
    with pytest.raises(ConfigError, match="holds a run already; go on with --resume"):
        run(recipe)
    run(recipe, dry=True)
