"""Tasks of the model's table: said as the entry says, answered by a picture, words, or both."""

from __future__ import annotations

from typing import Any

from dimoo.core.errors import RequestError
from dimoo.core.pictures import as_rgb
from dimoo.core.requests import TaskRequest
from dimoo.presets.tasks import INPAINT, TaskText
from dimoo.tasks.compose import Settings, compose, only
from dimoo.tasks.inputs import pair, pictures, words
from dimoo.tasks.job import Job, Kit
from dimoo.tasks.speech import entry_of, say, usual_tokens
from dimoo.tokenizers.prompts import Grid, Words


def run_entry(kit: Kit, request: TaskRequest, settings: Settings) -> Job[Any]:
    """The job of a task of the table; its result is a picture, a string, or both as a tuple.

    Pictures are fitted as the model was taught to look at them; one that the answer takes its size from is fitted the
    same way, so that an edited picture lies on its source pixel by pixel.

    Raises:
        RequestError: the table has no such task, or it fills a region; what the request brings is not what the task
            takes; or `compose` refuses.
    """
    entry = entry_of(kit.tasks, words(request.task, "task"))
    if request.task == INPAINT:
        raise RequestError(
            f"the task {INPAINT!r} needs a picture and its region; write an InpaintRequest, an OutpaintRequest or a"
            " RetouchRequest"
        )
    images = kit.fitted([as_rgb(image) for image in pictures(request.images)], asked=entry.answer == "text")
    said = say(
        kit.tasks,
        request.task,
        words=words(request.words, "prompt"),
        option=words(request.option, "option"),
        images=[kit.grid(image) for image in images],
    )
    answer: list[Grid | Words] = []
    if entry.answer != "text":
        answer.append(kit.blank(_size(kit, entry, request, images)))
    elif (request.height, request.width) != (None, None):
        raise RequestError(f"the task {request.task!r} makes no picture; leave height and width out")
    if entry.answer != "image":
        usual = usual_tokens(
            request.words,
            images=len(images),
            pictured=entry.answer == "both",
            caption=kit.caption_tokens,
            answer=kit.answer_tokens,
        )
        answer.append(Words(length=kit.planned(request.tokens, usual=usual)))
    elif request.tokens is not None:
        raise RequestError(f"the task {request.task!r} makes no words; leave tokens out")
    job = compose(kit, entry.family, said, answer, settings=settings, seed=request.seed, negative=request.negative)
    return job.then(tuple) if entry.answer == "both" else only(job)


def _size(kit: Kit, entry: TaskText, request: TaskRequest, images: list[Any]) -> tuple[int, int]:
    height, width = (images[0].height, images[0].width) if entry.size == "picture" else kit.image_size
    return pair(
        (height if request.height is None else request.height, width if request.width is None else request.width)
    )
