"""From one layout to another and back, without a loss."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from llada_like import llada_like
from released import INDEX, edit_json, write_released
from safetensors.torch import load_file, save_file
from tiny_checkpoint import save_tiny
from torch import Tensor

from dimoo.core.errors import CheckpointError
from dimoo.presets.config import ModelConfig
from dimoo.tasks.assemble import load
from dimoo.weights.card import is_generated
from dimoo.weights.checkpoint import Checkpoint
from dimoo.weights.convert import convert
from dimoo.weights.hub import MINI
from dimoo.weights.verify import verify


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    write_released(folder / "released")
    write_released(folder / "released_text", text_only=True)
    save_tiny(folder / "tiny")
    llada_like().save(folder / "text", dtype="bfloat16")
    return folder


def held(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    """The same names, and tensors of the same dtype and bits."""
    return one.keys() == two.keys() and all(
        one[name].dtype == two[name].dtype and torch.equal(one[name], two[name]) for name in one
    )


def config(folder: Path) -> ModelConfig:
    return Checkpoint.open(folder).parts().config


@pytest.mark.parametrize("name", ["released", "released_text", "tiny", "text"])
def test_there_and_back_is_the_same(sources: Path, tmp_path: Path, name: str) -> None:
    source = sources / name
    own, other = ("lumina", "dimoo") if "released" in name else ("dimoo", "lumina")
    there = convert(source, tmp_path / "there", layout=other)
    back = convert(there, tmp_path / "back", layout=own)
    assert equal(held(back), held(source))
    assert (there / "config.json").read_text() != (source / "config.json").read_text()
    assert config(there) == config(back) == config(source)
    for folder, layout in ((there, other), (back, own)):
        report = verify(folder)
        assert (report.layout, report.problems) == (layout, ())
    images = [load(folder).kit.image_tokenizer for folder in (source, there, back)]
    assert len({None if image is None else image.fingerprint for image in images}) == 1


def test_mini_draws_the_same_picture_in_every_layout(tmp_path: Path) -> None:
    there = convert(MINI, tmp_path / "there", layout="lumina")
    back = convert(there, tmp_path / "back", layout="dimoo")
    assert equal(held(back), held(MINI))
    assert config(back) == config(MINI)
    first, *others = (
        np.asarray(load(folder).generate("a big red dog", size=(32, 32), seed=7)[0]) for folder in (MINI, there, back)
    )
    assert all(np.array_equal(first, other) for other in others)


def test_a_text_model_answers_the_same(sources: Path, tmp_path: Path) -> None:
    there = convert(sources / "text", tmp_path / "there", layout="lumina")
    assert load(there).chat("hello", seed=1) == load(sources / "text").chat("hello", seed=1)


def test_a_dtype_rounds_the_backbone_and_nothing_else(sources: Path, tmp_path: Path) -> None:
    source, target = sources / "tiny", tmp_path / "half"
    convert(source, target, layout="dimoo", dtype=torch.float16)
    assert equal(held(target), {name: tensor.half() for name, tensor in held(source).items()})
    assert equal(held(target / "image_tokenizer"), held(source / "image_tokenizer"))


def test_each_tensor_keeps_its_own_dtype(sources: Path, tmp_path: Path) -> None:
    source = shutil.copytree(sources / "tiny", tmp_path / "source")
    mixed = held(source)
    mixed |= {name: tensor.bfloat16() for name, tensor in mixed.items() if tensor.ndim == 2}
    save_file(mixed, source / "model.safetensors")
    back = convert(convert(source, tmp_path / "there", layout="lumina"), tmp_path / "back", layout="dimoo")
    assert len({tensor.dtype for tensor in mixed.values()}) == 2
    assert equal(held(back), mixed)


def test_shards(sources: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    target = convert(
        sources / "released",
        tmp_path / "new",
        layout="lumina",
        shard_size=30_000,
        progress=lambda *now: seen.append(now),
    )
    listed = json.loads((target / INDEX).read_text(encoding="utf-8"))["weight_map"]
    assert len(set(listed.values())) == len(seen) > 2
    assert all((target / file).stat().st_size < 40_000 for file in listed.values())
    whole = sum(tensor.nbytes for tensor in held(target).values())
    assert seen[-1] == (whole, whole)
    assert equal(held(target), held(sources / "released"))


# The model card


@pytest.mark.parametrize("kind", ["written", "completed"])
def test_a_card_of_the_authors_is_kept(sources: Path, tmp_path: Path, kind: str) -> None:
    """Also one that was generated and then completed, as it asks for."""
    source = shutil.copytree(sources / "tiny", tmp_path / "source")
    card = (
        "# Ours\n" if kind == "written" else (source / "README.md").read_text(encoding="utf-8") + "Trained on cats.\n"
    )
    (source / "README.md").write_text(card, encoding="utf-8")
    target = convert(source, tmp_path / "target", layout="lumina")
    assert (target / "README.md").read_text(encoding="utf-8") == card
    load(source).save(target)
    assert (target / "README.md").read_text(encoding="utf-8") == card
    load(source).save(target, card="# Mine\n")
    assert (target / "README.md").read_text(encoding="utf-8") == "# Mine\n"


def test_a_generated_card_is_made_anew(sources: Path, tmp_path: Path) -> None:
    before = (sources / "tiny" / "README.md").read_text(encoding="utf-8")
    assert is_generated(before)
    target = convert(sources / "tiny", tmp_path / "target", layout="lumina", dtype=torch.float16)
    card = (target / "README.md").read_text(encoding="utf-8")
    assert "in float32" in before
    assert "in float16" in card
    assert "`lumina`" in card
    bare = convert(sources / "released", tmp_path / "bare", layout="dimoo")
    assert is_generated((bare / "README.md").read_text(encoding="utf-8"))


# What is refused


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("target", [".", "vqvae", "new", ".."])
def test_one_folder_in_the_other(sources: Path, tmp_path: Path, target: str) -> None:
    source = shutil.copytree(sources / "released", tmp_path / "above" / "source")
    (tmp_path / "link").symlink_to(source)
    before = contents(tmp_path)
    for place in (source / target, tmp_path / "link" / target):
        with pytest.raises(CheckpointError, match="one lies in the other"):
            convert(source, place, layout="dimoo")
    assert contents(tmp_path) == before


def test_a_target_full_of_other_files(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x", encoding="utf-8")
    with pytest.raises(CheckpointError, match="holds other files than a checkpoint"):
        convert(sources / "tiny", tmp_path, layout="lumina")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_checkpoint_in_the_target_is_replaced(sources: Path, tmp_path: Path) -> None:
    convert(sources / "released", tmp_path / "new", layout="lumina", shard_size=30_000)
    convert(sources / "tiny", tmp_path / "new", layout="dimoo")
    assert equal(held(tmp_path / "new"), held(sources / "tiny"))
    assert not (tmp_path / "new" / INDEX).exists()


@pytest.mark.parametrize("damage", ["layout", "tensor", "tokenizer", "shard", "empty"])
def test_a_source_that_is_damaged_leaves_no_target(sources: Path, tmp_path: Path, damage: str) -> None:
    source = shutil.copytree(sources / "released", tmp_path / "source")
    layout, wanted = "dimoo", damage
    if damage == "layout":
        layout, wanted = "gguf", "unknown layout 'gguf'; known: dimoo, lumina"
    elif damage == "tensor":
        edit_json(source / "config.json", mlp_hidden_size=48)
        wanted = "wrong shape"
    elif damage == "shard":
        file = source / "model-00001-of-00003.safetensors"
        file.write_bytes(file.read_bytes()[:-50])
        wanted = "corrupt or cut off"
    elif damage == "tokenizer":
        (source / "tokenizer.json").unlink()
    else:
        (source / "config.json").unlink()
        wanted = "is no checkpoint"
    with pytest.raises(CheckpointError, match=wanted):
        convert(source, tmp_path / "target", layout=layout)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
