"""dimoo encode, on pictures of noise and the tiny random model's image tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command_line import failed, noisy_picture, run, succeeded
from tiny_checkpoint import save_tiny

from dimoo.core.errors import DataError
from dimoo.data.shards import ShardSource
from dimoo.weights.image import load_image_tokenizer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures and a JSONL file of two rows, of which the second is bad."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(5):
        noisy_picture(pictures / f"picture_{index}.png", height=20 + index, seed=index)
    rows = [{"task": "edit", "words": "a", "images": ["picture_0.png"], "image": "picture_1.png"}, {"image": "no.png"}]
    (pictures / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return pictures


def test_a_folder_becomes_shards(folder: Path, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    arguments = ("encode", folder, "--out", out, "--tokenizer", tiny, "--size", "16x24", "--shard", 2)
    assert succeeded(run(*arguments)) == f"{out}\n"
    source = ShardSource(out)
    assert [source.example(index).caption for index in range(5)] == [f"picture {index}" for index in range(5)]
    assert {source.example(index).image.codes.shape for index in range(5)} == {(2, 3)}  # type: ignore[union-attr]
    assert source.manifest.fingerprint == load_image_tokenizer(tiny).fingerprint
    assert source.manifest.size == (16, 24)
    assert source.manifest.files == ("00000.safetensors", "00001.safetensors", "00002.safetensors")
    first = (out / "00000.safetensors").stat().st_mtime_ns
    assert succeeded(run(*arguments)) == f"{out}\n"
    assert (out / "00000.safetensors").stat().st_mtime_ns == first
    failed(run(*arguments[:-1], 3), "shard_examples", "choose another folder")


def test_a_file_of_lines_becomes_shards_by_buckets(folder: Path, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    arguments = ("encode", folder / "rows.jsonl", "--out", out, "--tokenizer", tiny, "--size", "32")
    failed(run(*arguments), "rows.jsonl:2: image 'no.png': the image does not exist")
    assert not out.exists()
    succeeded(run(*arguments, "--on-bad", "report"))
    (one,) = ShardSource(out).example(0).tasks
    assert one.task == "edit"
    assert one.image is not None
    assert one.image.codes.shape == one.images[0].codes.shape == (4, 4)
    assert ShardSource(out).manifest.size == 32


def test_machines_share_the_work(folder: Path, tiny: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "parts", tmp_path / "whole"
    arguments = ("encode", folder, "--tokenizer", tiny, "--size", "16x24")
    succeeded(run(*arguments, "--out", out, "--part", "2/2"))
    with pytest.raises(DataError, match=r"lacks 1 of 2 parts, the first is 1; run dimoo encode --part 1/2"):
        ShardSource(out)
    assert succeeded(run(*arguments, "--out", out, "--part", "1/2")) == f"{out}\n"
    succeeded(run(*arguments, "--out", whole))
    made, wanted = ShardSource(out), ShardSource(whole)
    for index in range(5):
        assert made.example(index).caption == wanted.example(index).caption == f"picture {index}"
    for part in ("0/2", "3/2", "2", "1/2/3", "a/b"):
        wrong = run(*arguments, "--out", out, "--part", part)
        assert wrong.exit_code == 2
        assert f"'{part}' is no part" in wrong.stderr


def test_pictures_may_be_looked_at_as_they_are_encoded(folder: Path, tiny: Path, tmp_path: Path) -> None:
    half = folder / "picture_3.png"
    half.write_bytes(half.read_bytes()[:500])
    arguments = ("encode", folder, "--tokenizer", tiny, "--size", "16x24", "--out", tmp_path / "out")
    failed(run(*arguments), "1 bad row;", "picture_3.png: the image cannot be read")
    late = (*arguments, "--shard", 2, "--verify", "headers")
    failed(run(*late), f"{half}: the image cannot be read", "mend it in its place and go on", "--verify pixels")
    first = tmp_path / "out" / "00000.safetensors"
    made = first.stat().st_mtime_ns
    noisy_picture(half, height=23, seed=3)
    succeeded(run(*late))
    assert ShardSource(tmp_path / "out").size == 5
    assert first.stat().st_mtime_ns == made  # what was encoded before the damage was met


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_places_and_devices_that_are_not_there(folder: Path, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    arguments = ("encode", folder, "--size", "32x32", "--tokenizer", tiny)
    failed(run(*arguments, "--out", tmp_path / "file"), "choose another --out")
    failed(run(*arguments, "--out", tmp_path / "shards", "--device", "cuda"), "use device='cpu'")
    assert not (tmp_path / "shards").exists()


def test_wrong_sizes_and_sources_are_refused(folder: Path, tiny: Path, tmp_path: Path) -> None:
    def encode(source: Path, size: str) -> object:
        return run("encode", source, "--out", tmp_path / "out", "--tokenizer", tiny, "--size", size)

    failed(encode(folder, "12x12"), "not a multiple of 8")  # type: ignore[arg-type]
    failed(encode(folder, "50"), "multiple of 32")  # type: ignore[arg-type]
    failed(encode(folder / "none.jsonl", "32"), "is not a file")  # type: ignore[arg-type]
    wrong = run("encode", folder, "--out", tmp_path / "out", "--size", "large")
    assert wrong.exit_code == 2
    assert "'large' is no size" in wrong.stderr
    failed(
        run("encode", folder, "--out", tmp_path / "out", "--size", "32", "--tokenizer", tmp_path), "no image tokenizer"
    )
    succeeded(encode(folder, "16x16"))  # type: ignore[arg-type]  # what failed before stands in no way
