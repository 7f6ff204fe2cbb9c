"""How a task is said: the one place that turns a table entry, words, an option and media into family and message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from dimoo.core.errors import RequestError
from dimoo.presets.tasks import TaskText
from dimoo.tasks.problems import CAPTION_REQUEST

MediaT = TypeVar("MediaT")


def entry_of(tasks: Mapping[str, TaskText], task: str) -> TaskText:
    """The table's entry.

    Raises:
        RequestError: there is none of that name.
    """
    if task not in tasks:
        raise RequestError(f"this model has no task {task!r}; it has {', '.join(tasks)}")
    return tasks[task]


def say(
    tasks: Mapping[str, TaskText], task: str, *, words: str = "", option: str = "", images: Sequence[MediaT] = ()
) -> list[str | MediaT]:
    """What the user says to get a task done: words, then the media.

    Args:
        tasks: the model's table.
        task: a key of it.
        words: the request's own words.
        option: a key of the task's options, or any words where it lists none but its text has {option}.
        images: the pictures, in any form.

    Raises:
        RequestError: the task, the option or the number of pictures is not one that the model knows, or words or an
            option are given where the task takes none.
    """
    entry = entry_of(tasks, task)
    least, most = entry.images
    if not least <= len(images) <= most:
        wanted = f"{least}" if least == most else f"{least} to {most}"
        raise RequestError(f"the task {task!r} takes {wanted} pictures, not {len(images)}")
    if words and "words" not in entry.takes:
        raise RequestError(f"the task {task!r} takes no words, but got {words[:60]!r}; leave them out")
    text = entry.text.format(words=words, option=_option(entry, task, option))
    return [text, *images]


def usual_tokens(words: str, *, images: int, pictured: bool, caption: int, answer: int) -> int:
    """Tokens planned for an answer in words where nobody says how many, in training and in asking.

    Args:
        words: what the user says.
        images: pictures that are shown.
        pictured: whether a picture is answered as well.
        caption: tokens of a caption: for descriptions, words with nothing to look at, and words about a picture made.
        answer: tokens of all other answers.
    """
    return caption if words == CAPTION_REQUEST or pictured or not images else answer


def _option(entry: TaskText, task: str, option: str) -> str:
    if entry.options:
        if option not in entry.options:
            raise RequestError(f"the task {task!r} has no option {option!r}; choose from {', '.join(entry.options)}")
        return entry.options[option]
    if bool(option) != ("option" in entry.takes):
        raise RequestError(
            f"the task {task!r} takes no option, but got {option!r}; leave it out"
            if option
            else f"the task {task!r} needs an option that says what is wanted"
        )
    return option
