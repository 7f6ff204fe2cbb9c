"""The mean of checkpoints, against the same sum written out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from command_line import run, succeeded
from llada_like import llada_like
from safetensors.torch import load_file, save_file
from tiny_checkpoint import save_tiny

from dimoo.core.errors import CheckpointError
from dimoo.tasks.assemble import load_backbone
from dimoo.weights.convert import convert
from dimoo.weights.merge import merge


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint in our layout, and one with other weights in the released one."""
    folder = tmp_path_factory.mktemp("merge")
    save_tiny(folder / "one")
    shutil.copytree(folder / "one", folder / "changed")
    (file,) = (folder / "changed").glob("*.safetensors")
    rng = torch.Generator().manual_seed(0)
    save_file({name: torch.randn(t.shape, generator=rng).to(t) for name, t in load_file(file).items()}, file)
    return folder / "one", convert(folder / "changed", folder / "two", layout="lumina")


@pytest.mark.parametrize("shares", [None, (0.25, 0.75), (1.5, -0.5)])
def test_weights_are_the_weighted_mean(
    two: tuple[Path, Path], tmp_path: Path, shares: tuple[float, float] | None
) -> None:
    made = load_backbone(merge(two, tmp_path / "made", shares=shares, dtype=torch.float32)).state_dict()
    one, other = (load_backbone(path, dtype="float32").state_dict() for path in two)
    left, right = shares or (0.5, 0.5)
    assert made.keys() == one.keys()
    for name, tensor in made.items():
        torch.testing.assert_close(tensor, left * one[name] + right * other[name], rtol=1e-6, atol=1e-6)


def test_the_rest_is_the_first_ones(two: tuple[Path, Path], tmp_path: Path) -> None:
    made = merge(two, tmp_path / "made")
    assert (made / "config.json").read_text() == (two[0] / "config.json").read_text()
    assert load_backbone(made).embedding.weight.dtype == load_backbone(two[0]).embedding.weight.dtype


def test_what_cannot_be_merged(two: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = two
    for sources, shares, wanted in (
        ([one], None, "cannot merge 1 checkpoint"),
        ([one, other], (0.5, 0.4), r"shares \[0.5, 0.4\] of 2"),
        ([one, other], (1.0,), r"shares \[1.0\] of 2"),
        ([one, other], (float("nan"), 1.0), "shares"),
        ([one, llada_like().save(tmp_path / "text")], None, "another vocabulary"),
        ([one, tmp_path / "none"], None, "is no checkpoint"),
    ):
        with pytest.raises(CheckpointError, match=wanted):
            merge(sources, tmp_path / "made", shares=shares)
        assert not (tmp_path / "made").exists()
    with pytest.raises(CheckpointError, match="which is one of the checkpoints"):
        merge(two, one)
    shutil.copytree(one, tmp_path / "moved")
    (image,) = (tmp_path / "moved").glob("*/*.safetensors")
    save_file({name: tensor + 1 for name, tensor in load_file(image).items()}, image)
    with pytest.raises(CheckpointError, match="another image tokenizer"):
        merge([one, tmp_path / "moved"], tmp_path / "made")


def test_the_command(two: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "made"
    made = run("merge", *two, "--out", out, "--share", 0.25, "--share", 0.75)
    assert succeeded(made).strip() == str(out)
    wanted = merge(two, tmp_path / "again", shares=(0.25, 0.75))
    assert torch.equal(load_backbone(out).norm.weight, load_backbone(wanted).norm.weight)


def test_the_command_takes_the_first_ones_scenes_and_licence_along(two: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = (shutil.copytree(folder, tmp_path / folder.name) for folder in two)
    for folder in (first, second):
        for name in ("world.json", "LICENSE"):
            (folder / name).write_text(folder.name, encoding="utf-8")
    out = tmp_path / "out"
    succeeded(run("merge", first, second, "--out", out))
    assert [(out / name).read_text(encoding="utf-8") for name in ("world.json", "LICENSE")] == [first.name] * 2
