"""Examples of users' files against what a model can be asked."""

from __future__ import annotations

from collections.abc import Mapping

from dimoo.core.errors import DataError, RequestError
from dimoo.data.example import Codes, Example, Picture, TaskExample
from dimoo.presets.tasks import INPAINT, TaskText
from dimoo.tasks.speech import entry_of, say

SHAPE_TOLERANCE = 0.01
"""How far the ratios of height to width of pictures of one shape may differ, for sizes are whole pixels."""


def same_shape(a: Picture, b: Picture) -> bool:
    """Whether pictures have the same ratio of height to width."""
    (high, wide), (height, width) = (picture.codes.shape[:2] if isinstance(picture, Codes) else picture.shape[:2]
                                     for picture in (a, b))  # fmt: skip
    return bool(abs(high * width - height * wide) <= SHAPE_TOLERANCE * max(high * width, height * wide))


def check(example: Example[Picture], tasks: Mapping[str, TaskText]) -> None:
    """See that a model with this table of tasks can be taught an example.

    Raises:
        DataError: it has neither a picture nor a task, or a task that the table does not have, or one with an option,
            a number of pictures or an answer that the task does not take.
    """
    if example.image is None and not example.tasks:
        raise DataError("there is no picture to go with the words; give the row an image")
    for one in example.tasks:
        try:
            _check(one, entry_of(tasks, one.task), tasks)
        except RequestError as error:
            raise DataError(str(error)) from error


def _check(one: TaskExample[Picture], entry: TaskText, tasks: Mapping[str, TaskText]) -> None:
    if one.task == INPAINT and one.given is None:
        raise DataError(f"the task {INPAINT!r} needs a region, which rows cannot say; use another task")
    say(tasks, one.task, words=one.words, option=one.option, images=one.images)
    for part, what, key in ((one.image, "picture", "image"), (one.text, "text", "text")):
        wanted = entry.answer in ("both", key)
        if wanted and part is None:
            raise DataError(f"the task {one.task!r} answers with a {what}; give the row its {key}")
        if part is not None and not wanted:
            raise DataError(f"the task {one.task!r} answers with no {what}; leave {key} out")
    if entry.size == "picture" and one.image is not None and not same_shape(one.images[0], one.image):
        raise DataError(
            f"the task {one.task!r} makes a picture of the shape of its first, but these differ by more than"
            f" {SHAPE_TOLERANCE:.0%} in height to width; crop them alike"
        )
