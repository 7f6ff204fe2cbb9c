"""Records of requests: written, read, and the request that they give back."""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from PIL import Image
from request_cases import ANY_REQUEST, same
from task_cases import picture
from tiny_checkpoint import tiny_model

from dimoo.core import requests
from dimoo.core.errors import DataError
from dimoo.core.pictures import as_rgb
from dimoo.core.requests import (
    AskRequest,
    InpaintRequest,
    Polygon,
    Request,
    RetouchRequest,
)
from dimoo.tasks.records.provenance import record_json, record_of
from dimoo.tasks.records.record import KINDS, parse_record, request_of, told_of
from dimoo.tasks.records.recorded import Choosing
from dimoo.tasks.regions import bright, region_of

TINY = tiny_model()


@given(ANY_REQUEST)
@settings(max_examples=150, deadline=None)
def test_a_record_gives_the_request_back(request: Request) -> None:
    record = record_of(TINY, request)
    assert record is not None
    again = request_of(parse_record(record.model_dump_json()))
    assert same(request, again)
    assert record_of(TINY, again) == record


def test_every_type_that_a_request_may_hold_is_known() -> None:
    declared = {name for name, kind in inspect.getmembers(requests, is_dataclass)}
    assert set(KINDS) == declared | {"Choosing", "Session", "Step"}


def test_what_is_no_request_is_named() -> None:
    record = record_of(TINY, Choosing(images=(), question="is it", choices=("yes", "no")))
    assert record is not None
    assert told_of(parse_record(record.model_dump_json())) == Choosing(
        images=(), question="is it", choices=("yes", "no")
    )
    with pytest.raises(DataError, match=r"Choosing.*remake"):
        request_of(record)


def test_numbers_of_other_libraries_become_plain_ones() -> None:
    points = np.array([[0.1, 1.5], [8, 0], [8, 8]], dtype=np.float32)
    request = RetouchRequest(image=picture(16, 16), marks=(Polygon(points),), seed=np.int64(7), feather=torch.tensor(2))  # type: ignore[arg-type]
    record = record_of(TINY, request)
    assert record is not None
    again = request_of(parse_record(record.model_dump_json()))
    assert isinstance(again, RetouchRequest)
    assert (again.seed, again.feather) == (7, 2)
    assert again.marks == (Polygon(tuple(map(tuple, points.tolist()))),)
    assert np.array_equal(region_of(again.image, again.marks), region_of(request.image, request.marks))


@pytest.mark.parametrize("dtype", [np.int32, np.uint16])
def test_masks_and_pictures_of_deep_grey_mean_the_same(dtype: type) -> None:
    values = np.array([[0, 127, 128, 255, 256, 32767, 32768, 65535]] * 2, dtype=dtype)
    grey = Image.fromarray(values)
    record = record_of(TINY, InpaintRequest(image=grey, mask=grey, prompt=""))
    assert record is not None
    again = request_of(parse_record(record.model_dump_json()))
    assert isinstance(again, InpaintRequest)
    assert np.array_equal(bright(again.mask, like=again.image), bright(grey, like=grey))
    assert as_rgb(again.image).tobytes() == as_rgb(grey).tobytes()


@pytest.fixture(scope="module")
def made() -> Image.Image:
    return TINY.generate("a cat", seed=3)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "Nothing"}, "tells of 'Nothing'.*update"),
        ({"kind": "Box", "left": 0, "top": 0, "right": 1, "bottom": 1}, "tells of Box, not of a request"),
        ({"kind": "GenerateRequest", "colour": 1}, "damaged.*colour"),
        ({"kind": "AskRequest", "question": "?", "images": [{"kind": "picture"}]}, "damaged.*sha256"),
        ({}, "tells of dict"),
    ],
)
def test_damaged_requests(change: dict[str, Any], message: str, made: Image.Image) -> None:
    record = made.info["dimoo"].record().model_copy(update={"request": change})
    with pytest.raises(DataError, match=rf"(?s){message}"):
        request_of(record)


def test_without_embedding_a_picture_is_named_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(4, 4).save(tmp_path / "p.png")
    monkeypatch.chdir(tmp_path)
    with Image.open("p.png") as opened:
        opened.load()
    record = record_json(TINY, AskRequest(images=(opened,), question="?"))
    assert record is not None
    (stored,) = record["request"]["images"]
    assert (stored["path"], "data" in stored) == (str(tmp_path / "p.png"), False)
    monkeypatch.chdir(tmp_path.parent)
    read = parse_record(json.dumps({"answer": "yes", "record": record}))
    assert read.result is not None
    assert read.result.sha256 == hashlib.sha256(b"yes").hexdigest()
    request = request_of(read)
    assert isinstance(request, AskRequest)
    assert request.images[0].tobytes() == picture(4, 4).tobytes()
    picture(4, 4, 1).save(tmp_path / "p.png")
    with pytest.raises(DataError, match=r"p\.png.*other pixels"):
        request_of(read)
    (tmp_path / "p.png").unlink()
    with pytest.raises(DataError, match=r"p\.png.*cannot be read"):
        request_of(read)
