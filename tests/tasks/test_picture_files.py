"""Picture files that hold records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from task_cases import picture
from tiny_checkpoint import tiny_model

from dimoo.core.errors import DataError, RequestError
from dimoo.core.requests import (
    AskRequest,
)
from dimoo.tasks.records.picture_files import LARGEST, read_record, save_picture
from dimoo.tasks.records.provenance import record_json
from dimoo.tasks.records.record import request_of

TINY = tiny_model()


@pytest.fixture(scope="module")
def made() -> Image.Image:
    return TINY.generate("a cat", seed=3)[0]


def test_png_holds_the_record_in_a_text_chunk(made: Image.Image, tmp_path: Path) -> None:
    save_picture(made, tmp_path / "g.png")
    with Image.open(tmp_path / "g.png") as opened:
        assert json.loads(opened.text["dimoo"])["request"]["prompt"] == "a cat"
        assert opened.tobytes() == made.tobytes()
        save_picture(opened, tmp_path / "copy.png")  # a picture read from a file carries it on
    assert read_record(tmp_path / "copy.png") == read_record(tmp_path / "g.png") == made.info["dimoo"].record()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["copy.png", "g.png"]


def test_other_formats_have_it_beside_them(made: Image.Image, tmp_path: Path) -> None:
    save_picture(made, tmp_path / "g.jpg")
    assert read_record(tmp_path / "g.jpg") == read_record(tmp_path / "g.jpg.json") == made.info["dimoo"].record()
    save_picture(picture(8, 8), tmp_path / "g.jpg")  # and it does not stay when another picture takes the name
    assert [path.name for path in tmp_path.iterdir()] == ["g.jpg"]


def test_a_file_of_the_users_beside_a_picture_stays(tmp_path: Path) -> None:
    (tmp_path / "g.jpg.json").write_text('{"mine": 1}')
    save_picture(picture(8, 8), tmp_path / "g.jpg")
    assert (tmp_path / "g.jpg.json").read_text() == '{"mine": 1}'


def test_a_changed_picture_is_written_without(
    made: Image.Image, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_picture(made.transpose(Image.Transpose.FLIP_TOP_BOTTOM), tmp_path / "g.png")
    assert "changed since" in caplog.text
    with pytest.raises(DataError, match="it has no record"):
        read_record(tmp_path / "g.png")


def test_large_inputs_fit_into_a_png(tmp_path: Path) -> None:
    large = picture(1500, 1500)
    made = _with_input(large)
    save_picture(made, tmp_path / "g.png")
    assert 8_000_000 < (tmp_path / "g.png").stat().st_size < LARGEST
    request = request_of(read_record(tmp_path / "g.png"))
    assert isinstance(request, AskRequest)
    assert request.images[0].tobytes() == large.tobytes()


def test_the_largest_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dimoo.tasks.records.picture_files.LARGEST", 10_000)
    made = _with_input(picture(64, 64))
    save_picture(made, tmp_path / "g.png")
    assert (tmp_path / "g.png.json").stat().st_size > 10_000
    assert read_record(tmp_path / "g.png") == made.info["dimoo"].record()


def _with_input(image: Image.Image) -> Image.Image:
    """A picture that claims to have been made of another one."""
    made = TINY.generate("a cat")[0]
    request = record_json(TINY, AskRequest(images=(image,), question="?"), embed=True)
    assert request is not None
    made.info["dimoo"] = replace(made.info["dimoo"], request=request["request"])
    return made


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.png", None, "No such file"),
        ("plain.png", picture(8, 8), r"it has no record, and there is no 'plain.png.json'"),
        ("other.json", "{}", "holds no record"),
        ("list.json", "[1]", "holds no record"),
        ("null.json", '{"answer": "x", "record": null}', "holds no record"),
        ("broken.json", "{", "not JSON"),
        ("newer.json", '{"format": "dimoo-record-2"}', "'dimoo-record-2'.*reads 'dimoo-record-1'; update"),
        ("damaged.json", '{"format": "dimoo-record-1"}', "damaged.*model"),
        ("noise.png", b"\x89PNG\r\n\x1a\nxx", "neither|cannot be read"),
        ("bytes.bin", b"\xff\xfe\x00", "neither a picture nor JSON"),
    ],
)
def test_what_holds_no_record(name: str, content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if isinstance(content, Image.Image):
        content.save(path)
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=rf"(?s){name}.*({message})"):
        read_record(path)


def test_a_flipped_bit_in_the_chunk_is_noticed(made: Image.Image, tmp_path: Path) -> None:
    save_picture(made, tmp_path / "g.png")
    whole = (tmp_path / "g.png").read_bytes()
    (tmp_path / "g.png").write_bytes(whole.replace(b'"a cat"', b'"a bat"'))
    with pytest.raises(DataError, match=r"cannot be read|neither a picture"):
        read_record(tmp_path / "g.png")


def test_files_that_cannot_be_written(made: Image.Image, tmp_path: Path) -> None:
    for name in ("g.nothing", "missing/g.png"):
        with pytest.raises(RequestError, match="cannot write"):
            save_picture(made, tmp_path / name)
    with pytest.raises(RequestError, match="Pillow image"):
        save_picture("made", tmp_path / "g.png")  # type: ignore[arg-type]
