"""A gradient that is far too large is left out, and one that is not finite ends the run and is found."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_recipes import MODULES, Tiny, before_step, checkpoint, differences

from dimoo.core.errors import TrainingError
from recipes.learning.diffusion import DiffusionModule
from recipes.learning.guard import LEAST, MOST_IN_A_ROW, NAMED, WINDOW, SpikeGuard, place_of
from recipes.learning.steps import StepModule
from recipes.learning.tokenizer import TokenizerModule
from recipes.run import run

NORMS = st.floats(min_value=0.0, max_value=1e3)


@given(st.lists(NORMS, max_size=60), st.floats(min_value=1.5, max_value=4.0), st.integers(0, 60))
def test_a_norm_is_judged_by_the_median_of_those_taken(norms: list[float], spike: float, at: int) -> None:
    """Also by a guard that is put down and taken up again in the middle."""
    guard, taken, row, skipped = SpikeGuard(spike), list[float](), 0, 0
    for number, norm in enumerate(norms):
        if number == at:
            state, guard = guard.state(), SpikeGuard(spike)
            guard.load(state)
        large = len(taken) >= LEAST and norm > spike * median(taken[-WINDOW:])
        row, skipped = (row + 1, skipped + 1) if large else (0, skipped)
        if row > MOST_IN_A_ROW:
            with pytest.raises(TrainingError, match=rf"21 steps in a row .* {spike:g} times the median"):
                guard.skips(norm)
            return
        assert guard.skips(norm) is large
        taken += [] if large else [norm]
    assert guard.values() == {"skipped": skipped}


def test_only_the_last_norms_count() -> None:
    guard = SpikeGuard(2.0)
    assert not any(guard.skips(norm) for norm in [1.0] * WINDOW + [1.5] * WINDOW)
    assert not guard.skips(3.0)
    assert guard.skips(3.1)


def test_too_many_in_a_row_end_the_run_and_others_do_not() -> None:
    guard = SpikeGuard(2.0)
    for _ in range(LEAST):
        guard.skips(1.0)
    for _ in range(3):
        assert all(guard.skips(9.0) for _ in range(MOST_IN_A_ROW))
        assert not guard.skips(1.0)
    assert all(guard.skips(9.0) for _ in range(MOST_IN_A_ROW))
    with pytest.raises(
        TrainingError, match=r"21 steps in a row have a gradient norm above 2, .*the last one 9; set op"
    ):
        guard.skips(9.0)


def test_the_row_goes_on_over_a_checkpoint() -> None:
    guard = SpikeGuard(2.0)
    for norm in [1.0] * 20 + [9.0] * 20:
        guard.skips(norm)
    again = SpikeGuard(2.0)
    again.load(guard.state())
    with pytest.raises(TrainingError, match=r"21 steps in a row"):
        again.skips(9.0)


def test_without_a_setting_nothing_is_left_out() -> None:
    guard = SpikeGuard()
    assert not any(guard.skips(norm) for norm in [1.0] * 50 + [1e30])
    assert guard.values() == {}


def larger(monkeypatch: pytest.MonkeyPatch, kind: type[StepModule], steps: set[int], factor: float) -> None:
    """Let the gradients of some steps be larger."""
    original = kind.manual_backward

    def manual_backward(self: StepModule, loss: Any, *rest: Any, **more: Any) -> None:
        original(self, loss * (factor if self.steps_done in steps else 1.0), *rest, **more)

    monkeypatch.setattr(kind, "manual_backward", manual_backward)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "csv/metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", MODULES)
def test_a_spike_changes_no_weight_and_a_resumed_run_leaves_out_the_same_steps(
    name: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spike is soon after the run goes on, when only the norms in the checkpoint tell that it is one."""
    changes = ("run.steps=17", "run.save_every=4", "optimizer.spike=50")
    larger(monkeypatch, MODULES[name], {13}, 1e4)
    weights: dict[int, dict[str, Any]] = {}

    def keep(module: StepModule) -> None:
        weights[module.steps_done] = {name: value.clone() for name, value in module.state_dict().items()}

    with monkeypatch.context() as patch:
        before_step(patch, MODULES[name], None, keep)
        whole = run(tiny(name, *changes, "run.name=whole"))
    assert list(differences(weights[13], weights[14])) == []
    assert list(differences(weights[14], weights[15])) != []
    logged = rows(whole)
    assert [float(row["skipped"]) for row in logged] == [0.0] * 13 + [1.0] * 4
    assert float(logged[13]["grad_norm"]) > 50 * float(logged[12]["grad_norm"])

    def stop(module: StepModule) -> None:
        raise ConnectionError("out")

    with monkeypatch.context() as patch:
        before_step(patch, MODULES[name], 13, stop)
        with pytest.raises(ConnectionError):
            run(tiny(name, *changes, "run.name=broken"))
    folder = run(tiny(name, *changes, "run.name=broken"), resume=True)
    left, right = checkpoint(whole), checkpoint(folder)
    for state in (left, right):
        del state["loops"]
    assert list(differences(left, right)) == []
    assert (whole / "csv/metrics.csv").read_text() == (folder / "csv/metrics.csv").read_text()


def test_a_nan_of_one_document_is_found_there(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the row of an id that a single document of the step has, in packs that are divided."""
    planted: list[int] = []

    def plant(module: DiffusionModule) -> None:
        documents = {n: one for part in module.made(module.steps_done).values() for n, one in part.items()}
        given = {n: set(one.ids[one.group < 0].tolist()) for n, one in documents.items()}
        learnt = [part.ids.unique().tolist() for part in module.corrupted(module.steps_done)]
        for number, ids in given.items():
            others = set().union(*(one.ids.tolist() for n, one in documents.items() if n != number))
            own = [token for token in ids - others if any(token in part for part in learnt)]
            if own:
                planted.append(number)
                with torch.no_grad():
                    module.backbone.embedding.weight[own[0]] = math.nan
                return

    before_step(monkeypatch, DiffusionModule, 3, plant)
    with pytest.raises(TrainingError) as error:
        run(tiny("world_base", "pack_tokens=250", "slice_loss=true", "optimizer.lr=0.0125"))
    said = str(error.value)
    assert len(planted) == 1
    assert f" in the documents of examples {planted[0]}; the weight embedding.weight; the gradient of" in said
    assert said.startswith("the loss is nan at step 4, of examples 12 to 15; not finite: the nll of ")
    assert said.endswith("start again under another run.name with a lower optimizer.lr (now 0.0125)")


def test_the_first_gradient_that_is_not_finite_is_named(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def poison(module: DiffusionModule) -> None:
        names.extend(name for name, _ in module.backbone.named_parameters())
        dict(module.backbone.named_parameters())[names[-2]].register_hook(lambda gradient: gradient * math.inf)

    before_step(monkeypatch, DiffusionModule, 3, poison)
    said = r"the gradient norm is (nan|inf) at step 4, of examples 12 to 15; not finite: the gradient of"
    with pytest.raises(TrainingError, match=said) as error:
        run(tiny("world_base"))
    assert f"the gradient of {names[-2]}, the first by name; start again" in str(error.value)


def test_a_gradient_of_the_critic_that_is_not_finite_ends_the_run_before_it_is_learnt_from(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poison(module: TokenizerModule) -> None:
        module.adversary[0].register_hook(lambda gradient: gradient * math.inf)

    before_step(monkeypatch, TokenizerModule, 4, poison)
    recipe = tiny("world_tokenizer", "run.save_every=1")
    with pytest.raises(TrainingError, match=r"not finite at step 5: .*'discriminator_grad_norm': (nan|inf)}.*discrim"):
        run(recipe)
    state = checkpoint(Path(recipe.run.folder) / recipe.run.name)
    assert state["steps_done"] == 4
    assert all(bool(weight.isfinite().all()) for weight in state["state_dict"].values())


def test_many_examples_are_counted() -> None:
    said = place_of(["image", "text"], list(range(NAMED + 3)), None, None)
    assert (
        said == "not finite: the nll of image and text in the documents of examples 0, 1, 2, 3, 4, 5, 6, 7 and 3 more"
    )
    assert place_of([], [], None, None) == "every nll, weight and gradient alone is finite"
