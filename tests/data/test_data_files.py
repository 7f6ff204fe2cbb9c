from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dimoo.core.errors import DataError
from dimoo.data import FolderSource, JsonlSource


def picture(path: Path, color: tuple[int, ...] = (10, 200, 30), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (6, 4), color if len(color) > 1 else color[0]).save(path)
    return path


def broken(path: Path) -> Path:
    """A JPEG of noise whose second half is missing."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path, quality=95)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def test_a_folder_gives_pictures_with_their_captions(tmp_path: Path) -> None:
    picture(tmp_path / "b-small_red  bike.PNG")
    picture(tmp_path / "a.png", (1, 2, 3))
    (tmp_path / "a.txt").write_text(" a dark\n square \n", encoding="utf-8")
    picture(tmp_path / "below" / "c.bmp")
    (tmp_path / "notes.md").write_text("not a picture")
    source = FolderSource(tmp_path)
    assert source.size == 3
    assert source.bad == ()
    assert [source.example(i).caption for i in range(3)] == ["a dark square", "b small red bike", "c"]
    image = source.example(0).image
    assert image is not None
    assert image.shape == (4, 6, 3)
    assert image.dtype == np.uint8
    assert (image == [1, 2, 3]).all()
    for index in (3, -1):
        with pytest.raises(IndexError, match="3 examples"):
            source.example(index)


def test_pictures_are_upright_rgb(tmp_path: Path) -> None:
    corner = np.zeros((4, 6, 3), np.uint8)
    corner[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(corner).save(tmp_path / "a.png", exif=exif)
    picture(tmp_path / "b.png", (200, 0, 0, 0), "RGBA")
    picture(tmp_path / "c.png", (77,), "L")
    Image.fromarray(np.full((4, 6), 40_000, np.uint16)).save(tmp_path / "d.png")
    source = FolderSource(tmp_path)
    turned, clear, grey, deep = (source.example(i).image for i in range(4))
    assert turned is not None
    assert turned.shape == (6, 4, 3)
    assert turned[0, 3].tolist() == [255, 255, 255]
    assert turned.sum() == 3 * 255
    assert (clear == 255).all()
    assert (grey == 77).all()
    assert (deep == 40_000 >> 8).all()


def test_bad_files_of_a_folder_are_all_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture(tmp_path / "good.png")
    broken(tmp_path / "half.jpg")
    (tmp_path / "text.png").write_text("hello")
    picture(tmp_path / "mute.png")
    (tmp_path / "mute.txt").write_text(" \n")
    picture(tmp_path / "latin.png")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError) as raised:
        FolderSource(tmp_path)
    for part in (
        "4 bad rows",
        "half.jpg: the image cannot be read",
        "text.png",
        "mute.txt is empty",
        "UTF-8",
    ):
        assert part in str(raised.value)
    assert "good.png" not in str(raised.value)
    with caplog.at_level(logging.WARNING):
        source = FolderSource(tmp_path, on_bad="report")
    assert source.size == 1
    assert [row.where for row in source.bad] == ["half.jpg", "latin.png", "mute.png", "text.png"]
    assert "half.jpg" in caplog.text
    assert source.example(0).caption == "good"


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tiff").write_bytes(b"of a kind that is not read")
    with pytest.raises(DataError, match=r"has no pictures.* \.png, \.jpg, .*\.gif"):
        FolderSource(tmp_path)
    with pytest.raises(DataError, match="nowhere is not a folder"):
        FolderSource(tmp_path / "nowhere")


def write(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_json_lines_give_all_parts(tmp_path: Path) -> None:
    picture(tmp_path / "pictures" / "a.png")
    turns = [{"question": "what is it", "answer": "a square"}, {"question": "which colour", "answer": "grün"}]
    file = write(
        tmp_path / "rows.jsonl",
        {"image": "pictures/a.png", "caption": "a green square", "conversations": turns},
        "",
        {"caption": "only words"},
        {"image": "pictures/a.png"},
    )
    source = JsonlSource(file)
    assert source.size == 3
    first, words, mute = (source.example(i) for i in range(3))
    assert first.image is not None
    assert (first.image == [10, 200, 30]).all()
    assert first.caption == "a green square"
    assert first.qa == (("what is it", "a square"), ("which colour", "grün"))
    assert (words.image, words.caption, words.qa) == (None, "only words", ())
    assert mute.image is not None
    assert mute.caption is None
    with pytest.raises(IndexError):
        source.example(3)


def test_bad_lines_are_all_listed_with_their_number(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken(tmp_path / "half.jpg")
    file = write(
        tmp_path / "rows.jsonl",
        {"caption": "good"},
        '{"caption": ',
        {"captoin": "a"},
        {"image": "missing.png"},
        {"image": "half.jpg", "caption": "b"},
        {"caption": 3},
        {},
        {"conversations": [{"question": "why"}]},
        {"caption": "  "},
        '["a"]',
    )
    expected = {
        2: "Invalid JSON", 3: "captoin", 4: "'missing.png': the image does not exist", 5: "cannot be read",
        6: "caption", 7: "row: the row is empty", 8: "conversations.0.answer", 9: "caption", 10: "row",
    }  # fmt: skip
    with pytest.raises(DataError, match="9 bad rows") as raised:
        JsonlSource(file)
    lines = str(raised.value).splitlines()[1:]
    assert [line.split(":")[1] for line in lines] == [str(number) for number in expected]
    for line, reason in zip(lines, expected.values(), strict=True):
        assert reason in line
    with caplog.at_level(logging.WARNING):
        source = JsonlSource(file, on_bad="report")
    assert (source.size, len(source.bad)) == (1, 9)
    assert "rows.jsonl:4" in caplog.text


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"caption": "one"}\r\n{"caption": "two"}\r\n')
    source = JsonlSource(file)
    assert [source.example(index).caption for index in range(source.size)] == ["one", "two"]


@pytest.mark.parametrize("indent", [None, 2])
def test_one_json_array_is_refused_as_a_whole(tmp_path: Path, indent: int | None) -> None:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([{"caption": "one"}, {"caption": "two"}], indent=indent), encoding="utf-8")
    with pytest.raises(DataError, match="is one JSON array; write its objects one a line"):
        JsonlSource(file, on_bad="report")


def test_an_array_among_the_rows_is_one_bad_row(tmp_path: Path) -> None:
    source = JsonlSource(write(tmp_path / "rows.jsonl", '["a"]', {"caption": "one"}), on_bad="report")
    assert (source.size, [row.where for row in source.bad]) == (1, ["rows.jsonl:1"])


def test_a_missing_or_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a file"):
        JsonlSource(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="no usable rows"):
        JsonlSource(write(tmp_path / "empty.jsonl", ""))
    with pytest.raises(DataError, match="no usable rows; mend one of 1 bad row:"):
        JsonlSource(write(tmp_path / "bad.jsonl", "x"), on_bad="report")
