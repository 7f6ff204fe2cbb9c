"""A run goes on with the data that it has learnt from, or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_recipes import MODULES, Tiny, before_step, checkpoint, differences

from dimoo.core.errors import CheckpointError, DataError
from dimoo.core.rng import generator
from dimoo.tokenizers.image.files import load_image_tokenizer, save_image_tokenizer
from recipes.config import Recipe
from recipes.learning.steps import StepModule, require_alike
from recipes.ranks import Ranks
from recipes.run import export_run, run

REFUSED = "the run has learnt from another {} than there is now"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures with names."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(12):
        paint(folder / f"{index:02}.png", index)
    return folder


def paint(path: Path, shade: int) -> None:
    Image.new("RGB", (32, 32), (20 * shade, 0, 99)).save(path)


def begun(recipe: Recipe, patch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that was broken off behind the checkpoint of step 2."""

    def out(module: StepModule) -> None:
        raise ConnectionError("power cut")

    with patch.context() as patched:
        before_step(patched, MODULES["world_base" if recipe.kind == "diffusion" else "world_tokenizer"], 3, out)
        with pytest.raises(ConnectionError):
            run(recipe)
    return Path(recipe.run.folder) / recipe.run.name


def of(folder: Path) -> str:
    return "source=" + json.dumps({"kind": "folder", "path": str(folder), "size": [32, 32], "held_out": 4})


@pytest.mark.parametrize("name", MODULES)
def test_with_other_rows_it_does_not_go_on_and_can_be_exported(
    name: str, tiny: Tiny, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For what was held out would be learnt from; with the old ones it does, also where a picture was mended."""
    recipe = tiny(name, of(folder), "run.steps=4")
    begun(recipe, monkeypatch)
    paint(folder / "12.png", 12)
    with pytest.raises(CheckpointError, match=REFUSED.format("source")):
        run(recipe, resume=True)
    assert (export_run(recipe) / "export").is_dir()
    (folder / "12.png").unlink()
    (folder / "03.txt").write_text("other words")
    with pytest.raises(CheckpointError, match=REFUSED.format("source")):
        run(recipe, resume=True)
    (folder / "03.txt").unlink()
    Image.new("RGB", (64, 64)).save(folder / "03.png")
    assert checkpoint(run(recipe, resume=True))["steps_done"] == 4


def test_a_checkpoint_that_does_not_say_what_it_learnt_from_goes_on(
    tiny: Tiny, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny("world_base", of(folder), "run.steps=4")
    path = begun(recipe, monkeypatch) / "checkpoints/last.ckpt"
    state = torch.load(path, weights_only=True)
    assert state.pop("data").keys() == {"source", "text_tokenizer", "image_tokenizer"}
    torch.save(state, path)
    paint(folder / "12.png", 12)
    assert "source" in checkpoint(run(recipe, resume=True))["data"]


def test_an_image_tokenizer_that_was_trained_on_is_another(
    tiny: Tiny, image_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the world, whose scenes follow from the recipe; nor is the network exported with codes that it never saw."""
    place = Path(shutil.copytree(image_tokenizer, tmp_path / "own"))
    recipe = tiny("world_base", f"image_tokenizer={place}", "run.steps=4")
    whole = run(tiny("world_base", f"image_tokenizer={place}", "run.steps=4", "run.name=whole"))
    folder = begun(recipe, monkeypatch)
    changed = load_image_tokenizer(place)
    with torch.no_grad():
        changed.quantizer.initialise(torch.randn(1, 4, 8, 8, generator=generator(0)), generator(1))
    save_image_tokenizer(changed, place)
    for go_on in (lambda: run(recipe, resume=True), lambda: export_run(recipe)):
        with pytest.raises(CheckpointError, match=REFUSED.format("image_tokenizer")):
            go_on()
    shutil.copytree(image_tokenizer, place, dirs_exist_ok=True)
    run(recipe, resume=True)
    assert list(differences(checkpoint(folder)["state_dict"], checkpoint(whole)["state_dict"])) == []


@pytest.mark.parametrize(
    ("every", "named"),
    [
        ([{"source": "a"}, {"source": "b"}], "source"),
        (
            [{"source": "a", "image_tokenizer": "c"}, {"source": "b", "image_tokenizer": "d"}],
            "image_tokenizer and source",
        ),
        ([{"source": "a"}, {"source": "a"}, {}], "source"),
    ],
)
def test_processes_with_other_rows_do_not_start(every: Sequence[dict[str, str]], named: str) -> None:
    with pytest.raises(DataError, match=f"do not find the same {named}; give every machine the same files"):
        require_alike(every)
    require_alike([every[0]] * 3)


def test_a_run_asks_every_process_what_it_learns_from(
    tiny: Tiny, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gathered(self: Ranks, value: Any) -> list[Any]:
        return [value, {**value, "source": "of another machine"}] if "source" in value else [value]

    monkeypatch.setattr(Ranks, "gathered", gathered)
    with pytest.raises(DataError, match="do not find the same source"):
        run(tiny("world_base", of(folder)), dry=True)
