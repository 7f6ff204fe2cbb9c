"""Rows are looked over by several threads, as they would be one after the other; or by their headers alone."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageFile

from dimoo.core.errors import DataError
from dimoo.data import FolderSource, JsonlSource, checking
from dimoo.data.build import build_source, open_files
from dimoo.data.checking import TOGETHER, looked_over
from dimoo.data.config import FolderSourceConfig, JsonlSourceConfig
from dimoo.data.example import read_header, read_image


@given(st.lists(st.integers(-3, 3), max_size=30), st.integers(1, 9))
def test_what_is_found_comes_in_order_with_its_errors(rows: list[int], together: int) -> None:
    def look(row: int) -> int:
        if row < 0:
            raise DataError(f"{row} is bad")
        return row * row

    told: list[tuple[int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checking, "TOGETHER", together)
        found = list(looked_over(rows, look, lambda *done: told.append(done)))
    assert [str(one) for one in found] == [f"{row} is bad" if row < 0 else str(row * row) for row in rows]
    assert told == [(min(end, len(rows)), len(rows)) for end in range(together, len(rows) + together, together)]


def test_rows_are_looked_at_together() -> None:
    meeting = Barrier(2, timeout=20)  # a row that is looked at alone waits in vain
    assert list(looked_over(range(2), lambda row: meeting.wait() in (0, 1))) == [True, True]


def test_a_mistake_in_the_check_is_no_bad_row() -> None:
    with pytest.raises(ZeroDivisionError):
        list(looked_over([0], lambda row: 1 // row))


def noise(path: Path, *, height: int = 40, width: int = 24, **settings: Any) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **settings)
    return path


def cut(path: Path) -> Path:
    """The file without its second half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
def test_a_header_says_the_size_of_the_upright_picture(tmp_path: Path, suffix: str, orientation: int | None) -> None:
    exif = Image.Exif()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    path = noise(tmp_path / f"a.{suffix}", exif=exif)
    stand_in = read_header(path)
    assert stand_in.shape == read_image(path).shape
    assert stand_in.dtype == np.uint8
    assert stand_in.strides == (0, 0, 0)


def test_headers_are_read_without_the_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for suffix in ("jpg", "png", "webp", "bmp", "gif"):
        noise(tmp_path / f"{suffix}.{suffix}")

    def load(self: ImageFile.ImageFile) -> None:
        raise AssertionError("was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert FolderSource(tmp_path, verify="headers").size == 5
    with pytest.raises(AssertionError, match="was decoded"):
        FolderSource(tmp_path)


def test_damage_within_is_found_when_it_is_drawn_and_the_file_named(tmp_path: Path) -> None:
    noise(tmp_path / "good.png")
    cut(noise(tmp_path / "half.jpg"))
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DataError, match="2 bad rows"):
        FolderSource(tmp_path)
    source = FolderSource(tmp_path, verify="headers", on_bad="report")
    assert [row.where for row in source.bad] == ["text.png"]
    assert source.size == 2
    assert source.example(0).caption == "good"
    with pytest.raises(DataError, match=rf"^{tmp_path}/half\.jpg: the image cannot be read: .*source\.verify=pixels"):
        source.example(1)


def test_damage_within_is_found_when_it_is_drawn_and_the_line_named(tmp_path: Path) -> None:
    noise(tmp_path / "a.png")
    cut(noise(tmp_path / "half.jpg"))
    path = tmp_path / "rows.jsonl"
    rows = [
        "",
        json.dumps({"image": "a.png", "caption": "a"}),
        '{"image": "no.png"}',
        json.dumps({"image": "half.jpg"}),
    ]
    path.write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(DataError, match="2 bad rows"):
        JsonlSource(path)
    source = JsonlSource(path, verify="headers", on_bad="report")
    assert [row.where for row in source.bad] == ["rows.jsonl:3"]
    assert source.example(0).caption == "a"
    with pytest.raises(DataError, match=rf"^{path}:4: 'half\.jpg': the image cannot be read: .*source\.verify=pixels"):
        source.example(1)


def test_rows_are_checked_against_the_size_in_the_header(tmp_path: Path) -> None:
    noise(tmp_path / "a.png")
    path = tmp_path / "rows.jsonl"
    path.write_text('{"image": "a.png"}', encoding="utf-8")
    seen: list[Any] = []
    for verify in ("pixels", "headers"):
        for source in (FolderSource, JsonlSource):
            place = tmp_path if source is FolderSource else path
            source(place, verify=verify, check=lambda example: seen.append(example.image.shape))  # type: ignore[union-attr]
    assert seen == [(40, 24, 3)] * 4


@pytest.mark.parametrize("kind", ["folder", "jsonl"])
def test_the_config_decides_and_progress_is_told(tmp_path: Path, kind: str) -> None:
    for index in range(TOGETHER + 1):
        noise(tmp_path / f"{index}.bmp", height=2, width=2)
    cut(noise(tmp_path / "half.jpg"))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"image": "{path.name}"}}\n' for path in tmp_path.glob("*.*")), encoding="utf-8")
    made: Any = {"folder": FolderSourceConfig, "jsonl": JsonlSourceConfig}[kind]
    settings = {"path": str(tmp_path if kind == "folder" else rows), "size": (32, 32)}
    with pytest.raises(DataError, match=r"1 bad row;"):
        open_files(made(**settings))
    told: list[tuple[int, int]] = []
    source = build_source(
        made(**settings, verify="headers"), seed=0, examples=1, progress=lambda *done: told.append(done)
    )
    assert source.size is None
    assert told == [(TOGETHER, TOGETHER + 2), (TOGETHER + 2, TOGETHER + 2)]
