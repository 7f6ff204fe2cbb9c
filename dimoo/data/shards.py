"""Examples with encoded pictures, in safetensors files: read one at a time, nothing but what is asked for.

A folder holds `shards.json` (the manifest) and `00000.safetensors`, `00001.safetensors` ... of E examples each, fewer
in the last. A file holds

    rows      uint8 [bytes]    the examples as JSON, one after the other
    row_ends  int64 [E]        where each ends in `rows`
    codes     int32 [C]        the codes of all pictures, flat, one picture after the other
    shapes    int64 [P, D]     the shape of each picture's codes

and a row names its pictures by their number among the P of the file. Files are mapped into memory, so that an example
costs the pages that it lies on.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError, safe_open

from dimoo.core.config import StrictConfig
from dimoo.core.errors import ConfigError, DataError
from dimoo.data.example import BadRow, Check, Codes, Example, TaskExample, anything, at, settle

MANIFEST = "shards.json"
OPEN = 16
"""Files that are held open at a time."""


class Manifest(StrictConfig):
    """What the shards of a folder hold."""

    format: Literal["dimoo-shards-1"] = "dimoo-shards-1"
    fingerprint: str
    """Of the image tokenizer."""
    source: str
    """A digest of what was encoded."""
    size: tuple[int, int] | int
    """That the pictures were brought to; see `FolderSourceConfig.size`."""
    examples: int = Field(ge=1)
    """In all files."""
    shard_examples: int = Field(ge=1)
    """In each file but the last."""

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files, in order."""
        return tuple(f"{number:05}.safetensors" for number in range(-(-self.examples // self.shard_examples)))


class StoredTask(StrictConfig):
    """A `TaskExample`, its pictures by number."""

    task: str
    words: str = ""
    option: str = ""
    images: tuple[int, ...] = ()
    image: int | None = None
    text: str | None = None
    learn_words: bool = False


class StoredExample(StrictConfig):
    """An `Example`, its pictures by number."""

    image: int | None = None
    caption: str | None = None
    qa: tuple[tuple[str, str], ...] = ()
    tasks: tuple[StoredTask, ...] = ()


class ShardSource:
    """The examples of a folder of shards, their pictures as codes."""

    def __init__(self, path: Path | str, *, check: Check = anything) -> None:
        """Open a folder.

        Args:
            path: the folder.
            check: what every example must pass.

        Raises:
            DataError: there are no shards, or not all of them, or bad examples, all of which are listed.
        """
        self.path = Path(path)
        try:
            self.manifest = Manifest.load(self.path / MANIFEST)
        except ConfigError as error:
            raise DataError(f"there are no shards in {self.path}: {error}; make them with dimoo encode") from error
        missing = [name for name in self.manifest.files if not (self.path / name).is_file()]
        if missing:
            raise DataError(
                f"{self.path} lacks {len(missing)} of {len(self.manifest.files)} shards, the first is {missing[0]}; run"
                " dimoo encode again, which goes on where it was broken off"
            )
        self._shard = lru_cache(maxsize=OPEN)(self._opened)
        if check is not anything:
            self._look_through(check)

    @property
    def size(self) -> int:
        """How many examples there are."""
        return self.manifest.examples

    def example(self, index: int) -> Example[Codes]:
        """Example number `index`.

        Raises:
            IndexError: the index is out of range.
            DataError: its file is corrupt.
        """
        number, place = divmod(at(index, self.size), self.manifest.shard_examples)
        try:
            return self._shard(number).example(place, self.manifest.fingerprint)
        except (SafetensorError, OSError, IndexError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"{self._file(number)} is corrupt: {reason}; delete it and run dimoo encode again"
            ) from error

    def _file(self, number: int) -> Path:
        return self.path / self.manifest.files[number]

    def _opened(self, number: int) -> _Shard:
        return _Shard(self._file(number))

    def _look_through(self, check: Check) -> None:
        bad: list[BadRow] = []
        for index in range(self.size):
            try:
                check(self.example(index))
            except DataError as error:
                bad.append(BadRow(where=f"{self.path.name}, example {index}", reason=str(error)))
        settle(bad, source=self.path, good=self.size - len(bad), on_bad="raise")


class _Shard:
    """One file."""

    def __init__(self, path: Path) -> None:
        file: Any = safe_open(path, framework="np")
        self._rows, self._codes = (file.get_slice(name) for name in ("rows", "codes"))
        self._ends: NDArray[np.int64] = file.get_tensor("row_ends")
        self._shapes: NDArray[np.int64] = file.get_tensor("shapes")
        self._stops = self._shapes.prod(axis=1).cumsum()

    def example(self, place: int, fingerprint: str) -> Example[Codes]:
        text = _part(self._rows, self._ends, place).tobytes()
        row = StoredExample.model_validate_json(text)
        pictures: dict[int, Codes] = {}

        def picture(number: int) -> Codes:
            if number not in pictures:  # one that several tasks share stays one
                codes = _part(self._codes, self._stops, number).reshape(self._shapes[number])
                pictures[number] = Codes(codes=codes, fingerprint=fingerprint)
            return pictures[number]

        def optional(number: int | None) -> Codes | None:
            return None if number is None else picture(number)

        tasks = tuple(
            TaskExample(
                task=one.task,
                words=one.words,
                option=one.option,
                images=tuple(map(picture, one.images)),
                image=optional(one.image),
                text=one.text,
                learn_words=one.learn_words,
            )
            for one in row.tasks
        )
        return Example(image=optional(row.image), caption=row.caption, qa=row.qa, tasks=tasks)


def _part(whole: Any, ends: NDArray[np.int64], number: int) -> NDArray[Any]:
    """Part number `number` of a flat array, of which `ends` says where each part ends."""
    start = int(ends[number - 1]) if number else 0
    part: NDArray[Any] = whole[start : int(ends[number])]
    return part
