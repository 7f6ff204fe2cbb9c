"""What results tell of how they were made."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from request_cases import same
from task_cases import equal, mixture, picture
from tiny_checkpoint import save_tiny, tiny_model

import dimoo
from dimoo.core.requests import (
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
from dimoo.tasks.picture_files import read_record, save_picture
from dimoo.tasks.plans import image_plan
from dimoo.tasks.provenance import Origin, record_json, record_of
from dimoo.tasks.records import Record, request_of

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
    assert (maker.name, maker.dtype, maker.device) == ("tiny", "float64", "cpu")
    assert (maker.dimoo, maker.torch) == (dimoo.__version__, torch.__version__)
    assert record_of(TINY, GenerateRequest(prompt="")).model.source is None  # type: ignore[union-attr]


def test_each_picture_of_a_tuple_is_a_part(model: Dimoo) -> None:
    request = InterleavedRequest(
        parts=("a cat",),
        answer=(TextAnswer(tokens=3), PictureAnswer(height=8, width=8), PictureAnswer(height=8, width=16)),
        family="text_to_image",
    )
    _, *pictures = model.run([request])[0]
    assert [image.info["dimoo"].result.part for image in pictures] == [1, 2]
    assert [image.info["dimoo"].result.size for image in pictures] == [(8, 8), (8, 16)]


def test_streams_and_replays_tell_and_previews_do_not(model: Dimoo) -> None:
    request = GenerateRequest(prompt="a cat", height=8, width=8)
    stream = model.stream([request])
    next(stream)
    assert "dimoo" not in stream.preview(0).info
    (made,) = stream.results()
    (again,) = model.replay([request], stream.record()).results()
    assert again.info["dimoo"].record() == made.info["dimoo"].record()


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
