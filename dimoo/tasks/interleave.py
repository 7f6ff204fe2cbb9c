"""Interleaved messages: words and pictures in any order, answered by any pictures and words, denoised together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from dimoo.core.errors import RequestError
from dimoo.core.pictures import as_rgb
from dimoo.core.requests import InterleavedRequest, Masked, PictureAnswer, TextAnswer
from dimoo.tasks.compose import Part, Settings, compose, masked
from dimoo.tasks.inputs import pair, picture, words
from dimoo.tasks.job import Job, Kit
from dimoo.tasks.regions import composite, feather, region_of
from dimoo.tokenizers.prompts import Grid, Words

MOST = 16
"""Parts that a message or an answer may have."""


def interleave(kit: Kit, request: InterleavedRequest, settings: Settings) -> Job[tuple[Part, ...]]:
    """The job of an interleaved message; its result is the answer's parts in order.

    Raises:
        RequestError: there is no part or no answer, too many of them, several masked pictures, one for an answer
            without a picture, or one that is not said how large it is differently; or `compose` refuses.
    """
    for what, values in (("parts", request.parts), ("answer", request.answer)):
        if isinstance(values, str) or not isinstance(values, Sequence) or not 1 <= len(values) <= MOST:
            raise RequestError(f"{what} must be 1 to {MOST} entries in a tuple, not {values!r:.60}")
    started = [part for part in request.parts if isinstance(part, Masked)]
    if len(started) > 1:
        raise RequestError(f"{len(started)} pictures are masked; an answer can start from one")
    asked = all(isinstance(part, TextAnswer) for part in request.answer)
    shown = iter(kit.fitted([as_rgb(part) for part in request.parts if isinstance(part, Image.Image)], asked=asked))
    said: list[str | Grid | None] = []
    for part in request.parts:
        if isinstance(part, Image.Image):
            said.append(kit.grid(next(shown)))
        elif not isinstance(part, Masked):
            said.append(words(part, "part, unless a picture,"))
    size = _size_of(started[0]) if started else kit.image_size
    answer: list[Grid | Words] = [_wanted(kit, part, size) for part in request.answer]
    finish = _start(kit, started[0], answer) if started else None
    job = compose(
        kit,
        words(request.family, "family"),
        said or [None],
        answer,
        settings=settings,
        seed=request.seed,
        negative=request.negative,
    )
    return job.then(tuple) if finish is None else job.then(finish)


def _size_of(start: Masked) -> tuple[int, int]:
    image = as_rgb(picture(start.image))
    return image.height, image.width


def _wanted(kit: Kit, part: Any, size: tuple[int, int]) -> Grid | Words:
    match part:
        case PictureAnswer():
            height, width = size
            return kit.blank(
                pair((height if part.height is None else part.height, width if part.width is None else part.width))
            )
        case TextAnswer():
            return Words(length=kit.planned(part.tokens, usual=kit.caption_tokens))
        case _:
            raise RequestError(f"an answer is made of PictureAnswer and TextAnswer, not {type(part).__name__}")


def _start(kit: Kit, start: Masked, answer: list[Grid | Words]) -> Any:
    """Let the answer's first picture start from a masked one; returns what restores the pixels outside the mask."""
    image = as_rgb(picture(start.image))
    known, region = kit.grid(image), region_of(start.image, start.marks)
    index = next((index for index, part in enumerate(answer) if isinstance(part, Grid)), None)
    if index is None:
        raise RequestError("a masked picture is given, but the answer has no picture; add PictureAnswer()")
    if answer[index].shape != known.shape:  # type: ignore[union-attr]
        raise RequestError(
            f"the masked picture is {image.height}x{image.width}, the answer's is not; leave its size out"
        )
    answer[index] = masked(known, kit.remade(region))
    alpha = feather(np.asarray(region), 0)

    def finish(parts: list[Part]) -> tuple[Part, ...]:
        made = parts[index]
        assert isinstance(made, Image.Image)
        return (*parts[:index], composite(made, image, alpha), *parts[index + 1 :])

    return finish
