"""A file of JSON lines: one example a line, pictures by path."""

from __future__ import annotations

import hashlib
import json
from codecs import BOM_UTF8
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from dimoo.core.config import StrictConfig
from dimoo.core.errors import DataError
from dimoo.data.checking import Progress, sorted_out, unseen
from dimoo.data.example import (
    LATE,
    Check,
    Example,
    OnBad,
    Pixels,
    TaskExample,
    Verify,
    anything,
    at,
    file_size,
    read_header,
    read_image,
    settle,
)

Text = Annotated[str, Field(pattern=r"\S")]


class Turn(StrictConfig):
    """One question, and its answer; it is asked without the turns before it."""

    question: Text
    answer: Text


class Row(StrictConfig):
    """One line of the file: about a picture, a conversation, or a task with its answer.

    Paths of pictures are relative to the folder of the file.
    """

    image: Text | None = None
    """A picture; of a task, the one that answers it."""
    images: tuple[Text, ...] = ()
    """Several that a conversation is about; of a task, those that its request brings."""
    caption: Text | None = None
    conversations: tuple[Turn, ...] = ()
    task: Text | None = None
    """A key of the model's table of tasks; the others below go with it alone."""
    words: Text | None = None
    """What the request says."""
    option: Text | None = None
    """What is chosen from the task's options."""
    text: Text | None = None
    """The answer's words."""

    @model_validator(mode="after")
    def _something(self) -> Row:
        if self.task is None:
            given = [name for name in ("words", "option", "text") if getattr(self, name) is not None]
            if given:
                raise ValueError(f"{given[0]} goes with a task; name it as task")
            if self.images and (self.image is not None or self.caption is not None or not self.conversations):
                raise ValueError("images are for conversations about several pictures and for tasks; use image")
            if self.image is None and self.caption is None and not self.conversations:
                raise ValueError("the row is empty; give an image, a caption, conversations or a task")
        elif self.caption is not None or self.conversations:
            raise ValueError("a task has words and an answer (image, text), but no caption and no conversations")
        elif self.image is None and self.text is None:
            raise ValueError("the task has no answer; give its image, its text, or both")
        return self

    def pictures(self) -> tuple[tuple[str, str], ...]:
        """The key and the path of each picture."""
        several = tuple((f"images.{number}", path) for number, path in enumerate(self.images))
        return several if self.image is None else (*several, ("image", self.image))

    def example(self, picture: Callable[[str], Pixels]) -> Example:
        """What the row says; `picture` opens one by its path.

        A conversation about several pictures, or about none, is a task for each of its turns: "ask", or "chat".
        """
        image = None if self.image is None else picture(self.image)
        images = tuple(map(picture, self.images))
        if self.task is not None:
            words, option = self.words or "", self.option or ""
            one = TaskExample(task=self.task, words=words, option=option, images=images, image=image, text=self.text)
            return Example(tasks=(one,))
        if image is not None or self.caption is not None:
            turns = tuple((turn.question, turn.answer) for turn in self.conversations)
            return Example(image=image, caption=self.caption, qa=turns)
        task = "ask" if images else "chat"
        return Example(
            tasks=tuple(
                TaskExample(task=task, words=turn.question, images=images, text=turn.answer)
                for turn in self.conversations
            )
        )


class JsonlSource:
    """The rows of a JSON-lines file.

        {"image": "a.png", "caption": "a red bike", "conversations": [{"question": "...", "answer": "..."}]}
        {"images": ["a.png", "b.png"], "conversations": [{"question": "which is older", "answer": "the first"}]}
        {"task": "edit", "words": "make it red", "images": ["a.png"], "image": "b.png"}

    Unknown keys are errors; empty lines are skipped.

    All pictures are looked at on opening, so that a bad one shows up before training, not within.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        on_bad: OnBad = "raise",
        check: Check = anything,
        verify: Verify = "pixels",
        progress: Progress = unseen,
    ) -> None:
        """Open a file.

        Args:
            path: the file.
            on_bad: "raise" one error that lists all bad rows, or "report": log them, keep them in `bad`, and
                go on without them.
            check: what rows must pass besides; called by several threads.
            verify: "pixels": decode every picture; "headers": only open it, which is fast and finds no damage within.
            progress: is told how many lines are looked at.

        Raises:
            DataError: the file is missing or a JSON array, there are bad rows, or no good ones.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(f"{self.path} is not a file; give a file of JSON lines")
        content = self.path.read_bytes().removeprefix(BOM_UTF8)
        if _is_array(content):
            raise DataError(f"{self.path} is one JSON array; write its objects one a line (jq -c '.[]' does)")
        lines = [pair for pair in enumerate(content.split(b"\n"), 1) if pair[1].strip()]
        read = read_image if verify == "pixels" else read_header

        def look(pair: tuple[int, bytes]) -> Row:
            return _checked(pair[1], check, self._reader(read))

        good, self.bad = sorted_out(lines, look, lambda pair: f"{self.path.name}:{pair[0]}", progress)
        settle(self.bad, source=self.path, good=len(good), on_bad=on_bad)
        self._rows = tuple((number, row) for (number, _), row in good)

    @property
    def size(self) -> int:
        """How many good rows there are."""
        return len(self._rows)

    def digest(self) -> str:
        """Changes with the good rows; a picture may be mended in its place."""
        found = hashlib.blake2b(digest_size=16)
        for _, row in self._rows:
            found.update(f"{row.model_dump_json()}\n".encode())
        return found.hexdigest()

    def file_sizes(self, index: int) -> list[int]:
        """See `FileSource`."""
        _, row = self._rows[at(index, self.size)]
        return [file_size(self.path.parent / path) for _, path in row.pictures()]

    def example(self, index: int) -> Example:
        """Good row number `index`.

        Raises:
            IndexError: the index is out of range.
            DataError: a picture cannot be read: it has changed, or headers alone were looked at.
        """
        number, row = self._rows[at(index, self.size)]
        try:
            return row.example(self._reader(read_image))
        except DataError as error:
            raise DataError(f"{self.path}:{number}: {error}; {LATE}") from error

    def _reader(self, read: Callable[[Path], Pixels]) -> Callable[[str], Pixels]:
        """Reads each picture of a row once."""

        def named(path: str) -> Pixels:
            try:
                return read(self.path.parent / path)
            except DataError as error:
                raise DataError(f"{path!r}: {error}") from error

        return cache(named)


def _is_array(content: bytes) -> bool:
    """Whether a file is one JSON array as a whole, which some tools write; a line of it may be one by mistake."""
    if not content.lstrip().startswith(b"["):
        return False
    try:
        json.loads(content)
    except ValueError:
        return False
    return True


def _checked(line: bytes, check: Check, read: Callable[[str], Pixels]) -> Row:
    try:
        row = Row.model_validate_json(line)
    except ValidationError as error:
        reasons = (
            f"{'.'.join(map(str, e['loc'])) or 'row'}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()
        )
        raise DataError("; ".join(reasons)) from error
    problems: list[str] = []
    for key, path in row.pictures():
        try:
            read(path)
        except DataError as error:
            problems.append(f"{key} {error}")
    if problems:
        raise DataError("; ".join(problems))
    check(row.example(read))
    return row
