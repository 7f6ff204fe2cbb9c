"""A case of the world -> the request that a user would make, and what came back in one form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dimoo.core.errors import RequestError
from dimoo.core.requests import InpaintRequest, OutpaintRequest, Request, TaskRequest
from dimoo.data.example import TaskExample
from dimoo.data.world.draws import TaskCase
from dimoo.data.world.scene import Scene
from dimoo.evaluation.agreement import Picture
from dimoo.presets.config import ModelConfig
from dimoo.tasks.regions import GREY
from dimoo.tasks.speech import entry_of, say


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What came back, or should have."""

    picture: Picture | None = None
    """uint8 [H, W, 3]; None where words alone were asked for."""
    words: str | None = None
    seen: Scene | None = None
    """What is in the picture; None where no judge was asked."""


def request_of(example: TaskExample, seed: int) -> Request:
    """The request whose answer the example knows.

    A picture that is known along whole rows and columns is cropped and continued, one with a hole is filled in; what is
    to be made is grey in it, so that it says nothing of the answer.
    """
    if example.given is None:
        size = (None, None) if example.image is None else example.image.shape[:2]
        return TaskRequest(
            task=example.task,
            words=example.words,
            option=example.option,
            images=tuple(map(Image.fromarray, example.images)),
            height=size[0],
            width=size[1],
            seed=seed,
        )
    shown, given = known(example), example.given
    rows, columns = np.flatnonzero(given.any(1)), np.flatnonzero(given.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    if not given[top:bottom, left:right].all():
        return InpaintRequest(image=shown, mask=Image.fromarray(~given), prompt=example.words, seed=seed)
    height, width = given.shape
    return OutpaintRequest(
        image=shown.crop((left, top, right, bottom)),
        prompt=example.words,
        left=int(left),
        right=int(width - right),
        top=int(top),
        bottom=int(height - bottom),
        seed=seed,
    )


def known(example: TaskExample) -> Image.Image:
    """The part of the answer's picture that is given, the rest grey."""
    assert example.image is not None
    assert example.given is not None
    return Image.fromarray(np.where(example.given[..., None], example.image, np.array(GREY, np.uint8)))


def untaught(config: ModelConfig, example: TaskExample) -> str:
    """Why a model cannot be asked for an example by its table of tasks and its system prompts; empty: it can."""
    try:
        family = entry_of(config.tasks, example.task).family
        say(config.tasks, example.task, words=example.words, option=example.option, images=example.images)
    except RequestError as error:
        return str(error)
    return "" if family in config.template.systems else f"this model was not taught the task family {family!r}"


def answer_of(result: Image.Image | str | tuple[Image.Image, str]) -> Answer:
    """What a request of a task gave; not judged yet."""
    match result:
        case str():
            return Answer(words=result)
        case (picture, words):
            return Answer(picture=_pixels(picture), words=words)
        case _:
            return Answer(picture=_pixels(result))


def true_answer(case: TaskCase) -> Answer:
    """The right answer to a case."""
    return Answer(picture=case.example.image, words=case.example.text, seen=case.scene)


def _pixels(picture: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(picture.convert("RGB"))
