"""Shards that several machines make, each a part: read together they are those of one go."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dimoo.core.config import parse
from dimoo.core.errors import CheckpointError, ConfigError, DataError
from dimoo.data import encode
from dimoo.data.build import open_files
from dimoo.data.config import FolderSourceConfig
from dimoo.data.encode import write_shards
from dimoo.data.example import Verify
from dimoo.data.shards import Manifest, ShardSource
from dimoo.tokenizers.image.build import build_image_tokenizer
from dimoo.tokenizers.image.config import ImageTokenizerConfig, PatchNetworkConfig, VectorQuantizerConfig
from dimoo.tokenizers.image.tokenizer import ImageTokenizer

COUNT = 11


def make_tokenizer(seed: int) -> ImageTokenizer:
    config = ImageTokenizerConfig(network=PatchNetworkConfig(width=8), quantizer=VectorQuantizerConfig(size=16, dim=4))
    return build_image_tokenizer(config, torch.Generator().manual_seed(seed))


TOKENIZER = make_tokenizer(0)
Make = Callable[..., None]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make(out, part, parts, ...): encode a part of eleven pictures of noise."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(COUNT):
        pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")

    def encoded(
        out: Path,
        part: int = 1,
        parts: int = 1,
        *,
        shard: int = 2,
        tokenizer: ImageTokenizer = TOKENIZER,
        verify: Verify = "pixels",
        **seen: Any,
    ) -> None:
        source, digest = open_files(FolderSourceConfig(path=str(folder), size=(32, 32), verify=verify))
        manifest = Manifest(
            fingerprint=tokenizer.fingerprint,
            source=digest,
            size=(32, 32),
            examples=COUNT,
            shard_examples=shard,
            part=part,
            parts=parts,
        )
        write_shards(source, tokenizer, out, manifest=manifest, **seen)

    return encoded


def read(folder: Path) -> list[tuple[str | None, Any]]:
    source = ShardSource(folder)
    assert source.size == COUNT
    examples = [source.example(index) for index in range(source.size)]
    for index in (-1, COUNT):
        with pytest.raises(IndexError, match="11 examples"):
            source.example(index)
    return [(one.caption, one.image.codes.tolist()) for one in examples if one.image is not None]


@pytest.fixture
def whole(make: Make, tmp_path: Path) -> list[tuple[str | None, Any]]:
    """What is read when one machine has made all."""
    make(tmp_path / "whole")
    rows = read(tmp_path / "whole")
    assert [caption for caption, _ in rows] == [f"{index:02}" for index in range(COUNT)]
    assert len({str(codes) for _, codes in rows}) == COUNT
    return rows


@pytest.mark.parametrize(("parts", "shard"), [(2, 1), (3, 2), (4, 100), (20, 3)])
@pytest.mark.parametrize("shared", [True, False])
def test_parts_are_read_as_if_made_in_one_go(
    make: Make, whole: Any, tmp_path: Path, parts: int, shard: int, shared: bool
) -> None:
    out = tmp_path / "out"
    for part in reversed(range(1, parts + 1)):
        seen: list[tuple[int, int]] = []
        place = out if shared else out / f"machine{part % 7}"
        make(place, part, parts, shard=shard, progress=lambda *done, seen=seen: seen.append(done))
        own = len(range(part - 1, COUNT, parts))
        assert seen[-1:] == ([(own, own)] if own else [])
    assert read(out) == whole


def test_a_part_that_was_broken_off_goes_on(
    make: Make, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, write = tmp_path / "out", encode.write_tensors

    def full(path: Path, tensors: Any) -> None:
        if "2-of-2-00001" in path.name:
            raise CheckpointError("the disk is full")
        write(path, tensors)

    monkeypatch.setattr(encode, "write_tensors", full)
    make(out, 1, 2)
    with pytest.raises(CheckpointError, match="full"):
        make(out, 2, 2)
    with pytest.raises(DataError, match=r"lacks 2 of 3 shards, the first is 2-of-2-00001.*encode --part 2/2 again"):
        ShardSource(out)
    monkeypatch.setattr(encode, "write_tensors", write)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    make(out, 2, 2)
    assert {path: path.stat().st_mtime_ns for path in before} == before  # not made again
    assert read(out) == whole


def test_a_part_that_met_a_damaged_picture_goes_on_when_it_is_mended(make: Make, whole: Any, tmp_path: Path) -> None:
    out, damaged = tmp_path / "out", tmp_path / "pictures" / "09.png"
    good = damaged.read_bytes()
    make(out, 1, 2)
    damaged.write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match=r"09\.png: the image cannot be read: .*; mend it in its place and go on"):
        make(out, 2, 2, verify="headers")
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    assert len(before) == 3 + 2
    damaged.write_bytes(good)
    make(out, 2, 2)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert read(out) == whole


def test_a_missing_part_is_named(make: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for part in (1, 3):
        make(out, part, 4)
    with pytest.raises(DataError, match=r"lacks 2 of 4 parts, the first is 2; run dimoo encode --part 2/4$"):
        ShardSource(out)


def test_a_part_that_is_there_twice_is_named(make: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out / "a", 1, 2)
    make(out / "b", 2, 2)
    shutil.copytree(out / "b", out / "c")
    with pytest.raises(DataError, match=r"c/2-of-2\.json is there twice, also in .*b; delete one"):
        ShardSource(out)


@pytest.mark.parametrize(
    ("named", "change"),
    [
        ("fingerprint", {"tokenizer": make_tokenizer(1)}),
        ("shard_examples", {"shard": 3}),
        ("parts", {"parts": 3}),
    ],
)
def test_a_part_with_other_settings_is_refused(make: Make, tmp_path: Path, named: str, change: dict[str, Any]) -> None:
    make(tmp_path / "shared", 1, 2)
    settings = {"parts": 2, **change}
    with pytest.raises(DataError, match=f"differ from these in {named}; choose another folder"):
        make(tmp_path / "shared", 2, **settings)
    make(tmp_path / "out" / "a", 1, 2)
    make(tmp_path / "out" / "b", 2, **settings)
    with pytest.raises(
        DataError, match=rf"b/2-of-\d\.json differs from .*a/1-of-2\.json in {named}; encode every part"
    ):
        ShardSource(tmp_path / "out")


def test_a_part_that_is_only_planned_keeps_others_from_other_settings(make: Make, tmp_path: Path) -> None:
    """Its files may be in the making on another machine."""
    out = tmp_path / "out"
    make(out, 1, 2)
    for path in out.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(DataError, match="differ from these in shard_examples"):
        make(out, 2, 2, shard=5)
    make(out, 1, 2, shard=5)  # its own plan it may change


def test_there_is_no_part_beyond_the_last() -> None:
    values = {"fingerprint": "", "source": "", "size": (32, 32), "examples": 1, "shard_examples": 1}
    with pytest.raises(ConfigError, match="no part 3 of 2"):
        parse(Manifest, {**values, "part": 3, "parts": 2})


def test_another_process_reads_the_same(make: Make, tmp_path: Path) -> None:
    make(tmp_path / "out", 1, 2)
    make(tmp_path / "out", 2, 2)
    source = ShardSource(tmp_path / "out")
    source.example(0)
    sent = pickle.loads(pickle.dumps(source))
    for index in range(COUNT):
        mine, other = source.example(index), sent.example(index)
        assert mine.caption == other.caption
        assert np.array_equal(mine.image.codes, other.image.codes)
