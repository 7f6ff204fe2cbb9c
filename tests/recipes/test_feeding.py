"""Who makes what a run learns from does not matter: workers give the same run bit for bit, and end with it."""

from __future__ import annotations

import csv
import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from same_runs import assert_same_run, renamed
from tiny_recipes import MODULES, Tiny, before_step, checkpoint, power_cut

from dimoo.core.errors import DataError, TrainingError
from dimoo.data.world.source import WorldSource
from recipes.config import DiffusionRecipe
from recipes.learning.assemble import diffusion_module
from recipes.learning.diffusion import DiffusionModule
from recipes.learning.feeding import START, Ahead, Here, lost_workers
from recipes.learning.making import StepDocuments
from recipes.learning.steps import StepModule
from recipes.ranks import Ranks
from recipes.run import main, run

forked = pytest.mark.skipif(START != "fork", reason="looks into workers, which know of no patch where they are spawned")


def square(step: int) -> dict[str, Any]:
    """Something of each kind that a step is fed with."""
    return {"step": step, "ids": torch.arange(step) ** 2, "pixels": torch.full((2, 3), step, dtype=torch.uint8)}


def bad_at_5(step: int) -> int:
    if step == 5:
        raise DataError("row 5 is bad: choose\nanother")
    return step


def number_of_process(step: int) -> int:
    return os.getpid()


def ended_by_force(step: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return step


def broken(step: int) -> int:
    raise ZeroDivisionError("a bug, no bad row")


def workers() -> list[Any]:
    return multiprocessing.active_children()


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Any:
    yield
    assert workers() == []


@pytest.mark.parametrize(("first", "count"), [(0, 1), (0, 2), (3, 3)])
def test_workers_give_the_steps_in_order_whatever_their_number(first: int, count: int) -> None:
    feed = Ahead(square, steps=range(first, 9), workers=count)
    for step in range(first, 9):
        made = feed.take(step)
        wanted = Here(make=square).take(step)
        assert made["step"] == step
        for name in ("ids", "pixels"):
            assert made[name].dtype == wanted[name].dtype
            assert torch.equal(made[name], wanted[name])
        assert feed.take(step) is made  # again, as an error message asks for it
    feed.close()


def test_each_worker_makes_every_nth_step_elsewhere() -> None:
    feed = Ahead(number_of_process, steps=range(6), workers=2)
    seen = [feed.take(step) for step in range(6)]
    assert seen == [seen[0], seen[1]] * 3
    assert len({*seen, os.getpid()}) == 3
    feed.close()


def test_a_bad_row_is_the_error_that_it_is_here() -> None:
    feed = Ahead(bad_at_5, steps=range(3, 9), workers=2)
    assert [feed.take(step) for step in (3, 4)] == [3, 4]
    with pytest.raises(DataError) as raised:
        feed.take(5)
    assert str(raised.value) == "row 5 is bad: choose\nanother"
    feed.close()


def test_a_bug_in_a_worker_keeps_its_traceback() -> None:
    feed = Ahead(broken, steps=range(3), workers=1)
    with pytest.raises(ZeroDivisionError, match=r"in broken\n"):
        feed.take(0)
    feed.close()


def test_a_worker_that_is_killed_is_a_clear_error() -> None:
    feed = Ahead(ended_by_force, steps=range(3), workers=1)
    with (
        pytest.raises(TrainingError, match=r"was ended: DataLoader worker .*set run\.workers lower; --resume"),
        lost_workers(),
    ):
        feed.take(0)
    feed.close()
    with pytest.raises(RuntimeError, match=r"^something else$"), lost_workers():
        raise RuntimeError("something else")


def test_workers_do_not_hear_ctrl_c_and_end_when_the_feed_is_closed() -> None:
    feed = Ahead(number_of_process, steps=range(100), workers=2)
    for step in range(4):
        os.kill(feed.take(step), signal.SIGINT)
    for step in range(4, 10):
        feed.take(step)
    assert len(workers()) == 2
    feed.close()
    assert workers() == []
    feed.close()


@pytest.mark.parametrize("name", MODULES)
def test_a_run_is_the_same_with_workers_and_when_it_is_resumed_with_others(
    name: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tiny(name, "run.name=whole"))
    fed = run(tiny(name, "run.name=fed", "run.workers=2"))
    with monkeypatch.context() as patch:
        before_step(patch, MODULES[name], 5, power_cut)
        with pytest.raises(ConnectionError, match="power cut"):
            run(tiny(name, "run.name=broken", "run.workers=1"))
    assert checkpoint(whole.parent / "broken")["steps_done"] == 4
    torch.manual_seed(987)  # no draw may come from the global generator
    broken = run(tiny(name, "run.name=broken", "run.workers=3"), resume=True)
    for folder in (fed, broken):
        renamed(folder / "export", folder.name, "whole")
        assert_same_run(whole, folder)


@forked
@pytest.mark.parametrize("name", MODULES)
def test_workers_make_the_examples_and_the_run_waits_less_than_it_lasts(
    name: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    example, begin = WorldSource.example, 4 * 4  # of the steps; a tokenizer's codebook is fitted to the first ones

    def spy(self: WorldSource, index: int) -> Any:
        asked.append(index)
        return example(self, index)

    monkeypatch.setattr(WorldSource, "example", spy)
    folder = run(tiny(name, "run.workers=2"))
    assert [index for index in asked if index >= begin] == []
    rows = list(csv.DictReader((folder / "csv/speed/metrics.csv").read_text().splitlines()))
    assert len(rows) == 7
    assert all(0 < float(row["waiting"]) <= 1 for row in rows)


def test_the_share_of_waiting_is_that_of_making_where_nobody_makes_ahead(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = DiffusionModule.made

    def slow(self: DiffusionModule, step: int) -> Any:
        time.sleep(0.3)
        return made(self, step)

    monkeypatch.setattr(DiffusionModule, "made", slow)
    folder = run(tiny("world_base", "run.steps=2", "run.log_every=2"))
    (row,) = csv.DictReader((folder / "csv/speed/metrics.csv").read_text().splitlines())
    assert float(row["waiting"]) > 0.3
    assert "waiting" not in (folder / "csv/metrics.csv").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends_the_workers(number: int, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tiny("world_base", "run.name=whole"))
    recipe = tiny("world_base", "run.name=broken", "run.save_every=1000", "run.workers=2")
    seen: list[int] = []

    def press(module: StepModule) -> None:
        for worker in workers():  # a terminal sends it to all, and so does a scheduler
            os.kill(worker.pid, number)
        time.sleep(0.1)
        seen.append(len(workers()))
        signal.raise_signal(number)

    with monkeypatch.context() as patch:
        before_step(patch, DiffusionModule, 3, press)
        with pytest.raises(TrainingError, match=r"after step 4 of 7; go on with --resume"):
            run(recipe)
    assert seen == [2]
    assert workers() == []
    folder = run(recipe, resume=True)
    renamed(folder / "export", "broken", "whole")
    assert_same_run(whole, folder)


def test_a_run_that_loses_a_worker_says_so(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny("world_base", "run.workers=2", "run.steps=20")  # more than is made ahead
    before_step(monkeypatch, DiffusionModule, 3, lambda _: os.kill(workers()[0].pid, signal.SIGKILL))
    with pytest.raises(TrainingError, match=r"was ended: DataLoader worker .*set run\.workers lower; --resume"):
        run(recipe)
    assert 2 <= checkpoint(Path(recipe.run.folder) / "world_base")["steps_done"] < 20


def test_a_lost_worker_is_found_behind_what_it_interrupted() -> None:
    """A logger calls whatever happens in it a bad value."""
    interrupted, own = ValueError("cannot be logged"), ValueError("cannot be logged")
    interrupted.__cause__, own.__cause__ = RuntimeError("DataLoader worker (pid 7) is killed"), KeyError("a DataLoader")
    with pytest.raises(TrainingError, match=r"was ended: DataLoader worker \(pid 7\) is killed; if"), lost_workers():
        raise interrupted
    with pytest.raises(ValueError, match="cannot be logged"), lost_workers():
        raise own
    own.__cause__.__cause__ = own  # each raised for the other
    with pytest.raises(ValueError, match="cannot be logged"), lost_workers():
        raise own


def test_the_command_names_a_bad_row_in_one_line(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for count in (0, 2):
        recipe = tiny("world_base", f"run.workers={count}", f"run.name=n{count}", "pack_tokens=20")
        monkeypatch.setattr("recipes.registry.get", lambda name, recipe=recipe: recipe)
        assert main(["world_base"]) == 1
        said.append([line for line in capsys.readouterr().err.splitlines() if line.startswith("error")])
        assert workers() == []
    assert said[0] == said[1]
    assert said[0][0].startswith("error: example ")


def test_workers_have_an_image_tokenizer_of_their_own_on_the_cpu(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny("world_base")
    assert isinstance(recipe, DiffusionRecipe)
    module = diffusion_module(recipe)
    own = module.builder.image_tokenizer
    assert isinstance(own, torch.nn.Module)
    moved: list[torch.nn.Module] = []

    def cpu(self: torch.nn.Module) -> torch.nn.Module:
        moved.append(self)
        return self

    monkeypatch.setattr(type(own), "cpu", cpu)
    maker = StepDocuments(recipe=recipe, builder=module.builder, source=module.source, ranks=Ranks())
    theirs = maker.on_cpu().builder.image_tokenizer
    assert len(moved) == 1
    assert moved[0] is theirs
    assert maker.builder.image_tokenizer is own
    assert isinstance(theirs, torch.nn.Module)
    pairs = list(zip(own.parameters(), theirs.parameters(), strict=True))
    assert all(torch.equal(one, other) and one.data_ptr() != other.data_ptr() for one, other in pairs)


def test_what_makes_documents_may_be_sent_to_a_process_that_shares_no_memory(tiny: Tiny) -> None:
    recipe = tiny("world_base")
    assert isinstance(recipe, DiffusionRecipe)
    module = diffusion_module(recipe)
    for rank in range(2):
        own = StepDocuments(
            recipe=recipe, builder=module.builder, source=module.source, ranks=Ranks(rank=rank, world=2)
        )
        sent = pickle.loads(pickle.dumps(own.on_cpu()))
        for step in (0, 6):
            for index, documents in own(step).items():
                again = sent(step)[index]
                assert index % 2 == rank
                assert list(again) == list(documents)
                for number, document in documents.items():
                    assert torch.equal(again[number].ids, document.ids)
                    assert torch.equal(again[number].group, document.group)
