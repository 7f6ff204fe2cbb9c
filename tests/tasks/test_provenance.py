"""What results tell of how they were made."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from request_cases import same
from task_cases import equal, mixture, picture
from tiny_checkpoint import save_tiny, tiny_model

import dimoo
from dimoo.core.requests import (
    AskRequest,
    Box,
    GenerateRequest,
    InterleavedRequest,
    OutpaintRequest,
    PictureAnswer,
    Polygon,
    RetouchRequest,
    TextAnswer,
)
from dimoo.presets.config import ImageSettings, TextSettings
from dimoo.tasks.model import Dimoo
from dimoo.tasks.plans import image_plan
from dimoo.tasks.records.picture_files import read_record, save_picture
from dimoo.tasks.records.provenance import Origin, maker_of, record_json, record_of
from dimoo.tasks.records.record import Record, request_of

TINY = tiny_model()


def test_every_picture_can_be_made_again(model: Dimoo, tmp_path: Path) -> None:
    how = ImageSettings(steps=3, guidance=1.5)
    asked = [
        *mixture(),
        OutpaintRequest(image=picture(16, 16, 4), prompt="a cat", right=8, top=8, negative="a dog", seed=6),
        RetouchRequest(
            image=picture(16, 24, 5), marks=(Box(0, 0, 9, 9), Polygon(((9, 9), (20, 9), (9, 15)))), feather=3
        ),
    ]
    made = model.run(asked, image=how)
    assert sum(isinstance(each, Image.Image) for each in made) == 6
    for index, (request, result) in enumerate(zip(asked, made, strict=True)):
        if isinstance(result, str):
            continue
        save_picture(result, tmp_path / f"{index}.png")
        record = read_record(tmp_path / f"{index}.png")
        assert same(request_of(record), request)
        assert record.image == how
        assert record.result is not None
        assert record.result.sha256 == hashlib.sha256(result.tobytes()).hexdigest()
        assert record.result.size == (result.height, result.width)
        alone = model.run([request_of(record)], image=record.image, text=record.text)[0]
        with Image.open(tmp_path / f"{index}.png") as written:
            assert equal(alone, written)


def test_a_record_names_model_and_versions(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny")
    made = dimoo.load(folder, dtype="float64").generate("a cat")[0]
    maker = made.info["dimoo"].record().model
    assert maker.source == str(folder)
    assert (maker.name, maker.dtype, maker.device, maker.attention) == ("tiny", "float64", "cpu", "sdpa")
    assert maker_of(dimoo.load(folder, attention="sdpa")).attention == "sdpa"
    assert (maker.dimoo, maker.torch) == (dimoo.__version__, torch.__version__)
    assert record_of(TINY, GenerateRequest(prompt="")).model.source is None  # type: ignore[union-attr]


def test_a_source_is_named_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny(tmp_path / "runs" / "exp")  # as a relative path it could be owner/name on the hub
    monkeypatch.chdir(tmp_path)
    assert dimoo.load("runs/exp").source == str(folder)
    assert dimoo.load(Path("runs/../runs/exp")).source == str(folder)
    snapshot = save_tiny(tmp_path / "hub" / "snapshots" / "0a1b2c")
    monkeypatch.setattr("dimoo.weights.hub.snapshot_download", lambda *_, **__: str(snapshot))
    assert dimoo.load("owner/name").source == "owner/name@0a1b2c"
    assert dimoo.load("owner/name", revision="main").source == "owner/name@0a1b2c"
    assert dimoo.load("owner/name@main").source == "owner/name@0a1b2c"


def test_each_picture_of_a_tuple_is_a_part(model: Dimoo) -> None:
    request = InterleavedRequest(
        parts=("a cat",),
        answer=(TextAnswer(tokens=3), PictureAnswer(height=8, width=8), PictureAnswer(height=8, width=16)),
        family="text_to_image",
    )
    _, *pictures = model.run([request])[0]
    assert [image.info["dimoo"].result.part for image in pictures] == [1, 2]
    assert [image.info["dimoo"].result.size for image in pictures] == [(8, 8), (8, 16)]


def test_streams_tell_and_previews_and_replays_do_not(model: Dimoo) -> None:
    request = GenerateRequest(prompt="a cat", height=8, width=8)
    stream = model.stream([request])
    next(stream)
    assert "dimoo" not in stream.preview(0).info
    (made,) = stream.results()
    assert made.info["dimoo"].record().image == model.config.image
    for asked in (request, replace(request, prompt="two dogs")):  # a trajectory does not know what was said
        (again,) = model.replay([asked], stream.record(), image=ImageSettings(steps=9)).results()
        assert equal(again, made)
        assert "dimoo" not in again.info


def test_what_a_model_is_is_found_once_for_a_batch_and_never_for_words(monkeypatch: pytest.MonkeyPatch) -> None:
    found, copied = [], []
    monkeypatch.setattr(Dimoo, "fingerprint", property(lambda self: found.append(self) or "0"))
    monkeypatch.setattr("dimoo.tasks.records.provenance.plain", lambda image: copied.append(image) or image)
    asked = AskRequest(images=(picture(8, 8),), question="what")
    TINY.run([asked, asked])
    assert (found, copied) == ([], [])
    one, two, _ = TINY.run([GenerateRequest(prompt="a cat"), GenerateRequest(prompt="a dog"), asked])
    assert (found, copied) == ([TINY], [])
    assert one.info["dimoo"].model is two.info["dimoo"].model


def test_an_origin_is_of_the_weights_that_made_it() -> None:
    model = tiny_model()
    before = model.generate("a cat")[0].info["dimoo"]
    fingerprint = model.fingerprint
    assert isinstance(model.backbone, torch.nn.Module)
    next(model.backbone.parameters()).data[0, 0] += 1
    assert before.record().model.fingerprint == fingerprint
    assert model.generate("a cat")[0].info["dimoo"].model.fingerprint == model.fingerprint != fingerprint


def test_plans_and_own_jobs_leave_no_record(model: Dimoo) -> None:
    request = GenerateRequest(prompt="a cat", height=8, width=8)
    plan = image_plan(ImageSettings(steps=2))
    assert "dimoo" not in model.run([request], image=plan)[0].info
    assert record_of(model, request, image=plan) is None
    assert record_json(model, request, text=plan) is None
    own = dimoo.tasks.dispatch.job_of(model.kit, request, image=ImageSettings(steps=2), text=TextSettings())
    told, untold = model.run([request, own])
    assert "dimoo" in told.info
    assert "dimoo" not in untold.info


def test_an_origin_stays_true_when_its_inputs_change(model: Dimoo) -> None:
    image = picture(16, 16)
    made = model.outpaint(image, "a cat", left=8)
    image.paste("red", (0, 0, 16, 16))
    request = request_of(made.info["dimoo"].record())
    assert isinstance(request, OutpaintRequest)
    assert request.image.tobytes() == picture(16, 16).tobytes()


def test_results_compare_and_travel_as_pictures_do(model: Dimoo) -> None:
    one, two = (
        model.generate("a cat", size=(8, 8))[0],
        model.run([GenerateRequest(prompt="a cat", height=8, width=8)])[0],
    )
    two.info["dimoo"] = replace(two.info["dimoo"], result=None)
    assert one == two
    assert pickle.loads(pickle.dumps(one)).info["dimoo"].json() == one.info["dimoo"].json()


def test_an_origin_is_a_record_to_be() -> None:
    origin = TINY.generate("a cat")[0].info["dimoo"]
    assert isinstance(origin, Origin)
    assert Record.model_validate_json(origin.json()) == origin.record()
