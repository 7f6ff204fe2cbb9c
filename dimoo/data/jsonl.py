"""A file of JSON lines: one example a line, pictures by path."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from dimoo.core.config import StrictConfig
from dimoo.core.errors import DataError
from dimoo.data.example import BadRow, Example, OnBad, at, read_image, settle

Text = Annotated[str, Field(pattern=r"\S")]


class Turn(StrictConfig):
    """One question about the picture, and its answer."""

    question: Text
    answer: Text


class Row(StrictConfig):
    """One line of the file; at least one of the parts must be there."""

    image: Text | None = None
    """Path of a picture, relative to the folder of the file."""
    caption: Text | None = None
    conversations: tuple[Turn, ...] = ()

    @model_validator(mode="after")
    def _something(self) -> Row:
        if self.image is None and self.caption is None and not self.conversations:
            raise ValueError("the row is empty; give an image, a caption or conversations")
        return self


class JsonlSource:
    """The rows of a JSON-lines file.

        {"image": "a.png", "caption": "a red bike", "conversations": [{"question": "...", "answer": "..."}]}

    Each part may be missing, but not all; unknown keys are errors; empty lines are skipped.

    All pictures are decoded once on opening, so that a damaged one shows up before training, not within.
    """

    def __init__(self, path: Path | str, *, on_bad: OnBad = "raise") -> None:
        """Open a file.

        Args:
            path: the file.
            on_bad: "raise" one error that lists all bad rows, or "report": log them, keep them in `bad`, and
                go on without them.

        Raises:
            DataError: the file is missing, there are bad rows, or no good ones.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(f"{self.path} is not a file; give a file of JSON lines")
        rows: list[Row] = []
        bad: list[BadRow] = []
        for number, line in enumerate(self.path.read_bytes().split(b"\n"), 1):
            if not line.strip():
                continue
            try:
                rows.append(self._checked(line))
            except DataError as error:
                bad.append(BadRow(where=f"{self.path.name}:{number}", reason=str(error)))
        settle(bad, source=self.path, good=len(rows), on_bad=on_bad)
        self._rows = tuple(rows)
        self.bad = tuple(bad)

    @property
    def size(self) -> int:
        """How many good rows there are."""
        return len(self._rows)

    def example(self, index: int) -> Example:
        """Good row number `index`.

        Raises:
            IndexError: the index is out of range.
            DataError: the picture has changed on disk and can no longer be read.
        """
        row = self._rows[at(index, self.size)]
        return Example(
            image=None if row.image is None else read_image(self.path.parent / row.image),
            caption=row.caption,
            qa=tuple((turn.question, turn.answer) for turn in row.conversations),
        )

    def _checked(self, line: bytes) -> Row:
        try:
            row = Row.model_validate_json(line)
        except ValidationError as error:
            problems = (f"{'.'.join(map(str, e['loc'])) or 'row'}: {e['msg']}" for e in error.errors())
            raise DataError("; ".join(problems)) from error
        if row.image is not None:
            try:
                read_image(self.path.parent / row.image)
            except DataError as error:
                raise DataError(f"image {row.image!r}: {error}") from error
        return row
