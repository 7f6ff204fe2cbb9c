"""Examples with encoded pictures, in safetensors files: read one at a time, nothing but what is asked for.

A folder holds `shards.json` (the manifest) and `00000.safetensors`, `00001.safetensors` ... of E examples each, fewer
in the last. Made in N parts, each for itself, it holds `2-of-N.json` and `2-of-N-00000.safetensors` ... for each in
their place; part K has the examples K - 1, K - 1 + N, ... of all. Parts may also lie in folders of their own in it. A
file holds

    rows        uint8 [bytes]  the examples as JSON, one after the other
    row_ends    int64 [E]      where each ends in `rows`
    codes       int32 [C]      the codes of all pictures, flat, one picture after the other
    shapes      int64 [P, D]   the shape of each picture's codes
    file_sizes  int64 [F]      of the picture files that they were made of, in bytes, row after row

and a row names its pictures by their number among the P of the file. Files are mapped into memory, so that an example
costs the pages that it lies on.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from safetensors import SafetensorError, safe_open
from typing_extensions import Self

from dimoo.core.config import StrictConfig
from dimoo.core.errors import ConfigError, DataError
from dimoo.data.checking import Progress, looked_over, unseen
from dimoo.data.example import BadRow, Check, Codes, Example, TaskExample, anything, at, settle

MANIFEST = "shards.json"
OF_PART = "[0-9]*-of-[0-9]*.json"
"""What it is called for each of several parts."""
OPEN = 16
"""Files that are held open at a time, or one of each part where those are more."""


class Manifest(StrictConfig):
    """What the shards of a folder hold."""

    format: Literal["dimoo-shards-1"] = "dimoo-shards-1"
    fingerprint: str
    """Of the image tokenizer."""
    source: str
    """A digest of the rows that were encoded: their words, and the names of their pictures."""
    size: tuple[int, int] | int
    """That the pictures were brought to; see `FolderSourceConfig.size`."""
    examples: int = Field(ge=1)
    """In all parts together."""
    shard_examples: int = Field(ge=1)
    """In each file but a part's last."""
    part: int = Field(default=1, ge=1)
    """Which part this is, of ..."""
    parts: int = Field(default=1, ge=1)
    """... so many."""

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if self.part > self.parts:
            raise ValueError(f"there is no part {self.part} of {self.parts}; parts are counted from 1")
        return self

    @property
    def indices(self) -> range:
        """The examples of this part, by their number among all."""
        return range(self.part - 1, self.examples, self.parts)

    @property
    def name(self) -> str:
        """Of the manifest's own file."""
        return MANIFEST if self.parts == 1 else f"{self.part}-of-{self.parts}.json"

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files of this part, in order."""
        prefix = "" if self.parts == 1 else f"{self.part}-of-{self.parts}-"
        count = -(-len(self.indices) // self.shard_examples)
        return tuple(f"{prefix}{number:05}.safetensors" for number in range(count))

    @property
    def again(self) -> str:
        """How to make what is missing of it."""
        return "dimoo encode" if self.parts == 1 else f"dimoo encode --part {self.part}/{self.parts}"

    def changed_from(self, other: Manifest) -> list[str]:
        """The settings in which another part, or the same one before, differs."""
        names = Manifest.model_fields.keys() - {"part"}
        changed = sorted(name for name in names if getattr(self, name) != getattr(other, name))
        return [f"{name} (rows, words or names of pictures)" if name == "source" else name for name in changed]


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

    def __init__(self, path: Path | str, *, check: Check = anything, progress: Progress = unseen) -> None:
        """Open a folder.

        Args:
            path: the folder.
            check: what every example must pass; called by several threads.
            progress: is told how many examples are looked at, where there is a check.

        Raises:
            DataError: there are no shards, or not all of them, or bad examples, all of which are listed.
        """
        self.path = Path(path)
        parts = _parts(self.path)
        self.manifest = parts[0].manifest
        self._files: list[tuple[Path, ...]] = []
        for folder, manifest in ((part.folder, part.manifest) for part in parts):
            missing = [name for name in manifest.files if not (folder / name).is_file()]
            if missing:
                raise DataError(
                    f"{folder} lacks {len(missing)} of {len(manifest.files)} shards, the first is {missing[0]}; run"
                    f" {manifest.again} again, which goes on where it was broken off"
                )
            self._files.append(tuple(folder / name for name in manifest.files))
        self._shard = lru_cache(maxsize=max(OPEN, self.manifest.parts))(_Shard)
        if check is not anything:
            self._look_through(check, progress)

    @property
    def size(self) -> int:
        """How many examples there are."""
        return self.manifest.examples

    def digest(self) -> str:
        """Changes with the rows that were encoded, with their size and with the image tokenizer."""
        return f"{self.manifest.source}:{self.manifest.size}:{self.manifest.fingerprint}"

    def example(self, index: int) -> Example[Codes]:
        """Example number `index`.

        Raises:
            IndexError: the index is out of range.
            DataError: its file is corrupt.
        """
        number, part = divmod(at(index, self.size), self.manifest.parts)
        shard, place = divmod(number, self.manifest.shard_examples)
        path = self._files[part][shard]
        try:
            return self._shard(path).example(place, self.manifest.fingerprint)
        except (SafetensorError, OSError, IndexError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{path} is corrupt: {reason}; delete it and run dimoo encode again") from error

    def __reduce__(self) -> tuple[type[ShardSource], tuple[Path]]:
        """Another process opens the files itself."""
        return ShardSource, (self.path,)

    def _look_through(self, check: Check, progress: Progress) -> None:
        # Nothing is kept of the good ones: shards may have many.
        bad = [
            BadRow(where=f"{self.path.name}, example {index}", reason=str(found))
            for index, found in enumerate(
                looked_over(range(self.size), lambda index: check(self.example(index)), progress)
            )
            if found is not None
        ]
        remedy = "mend the rows that they are made of and encode those anew, or change what the reasons name"
        settle(bad, source=self.path, good=self.size - len(bad), on_bad="raise", remedy=remedy)


class _Part(NamedTuple):
    folder: Path
    manifest: Manifest


def manifests_in(folder: Path) -> list[Manifest]:
    """Those of the parts in a folder, by their numbers.

    Raises:
        ConfigError: one cannot be read.
    """
    paths = [*folder.glob(MANIFEST), *folder.glob(OF_PART)]
    return sorted(map(Manifest.load, paths), key=lambda manifest: (manifest.parts, manifest.part))


def _parts(path: Path) -> list[_Part]:
    """Every part of the shards in a folder, in order.

    Raises:
        DataError: there are none; or one is missing, there twice, or of something else than the others.
    """
    below = [] if (path / MANIFEST).exists() else sorted({entry.parent for entry in path.glob(f"*/{OF_PART}")})
    try:
        found = [_Part(folder, manifest) for folder in (path, *below) for manifest in manifests_in(folder)]
    except ConfigError as error:
        raise DataError(f"the shards in {path} cannot be read: {error}; make them with dimoo encode") from error
    if not found:
        raise DataError(f"there are no shards in {path}: it has no {MANIFEST}; make them with dimoo encode")
    first = found[0]
    by_number: dict[int, _Part] = {}
    for part in found:
        changed = part.manifest.changed_from(first.manifest)
        if changed:
            raise DataError(
                f"{part.folder / part.manifest.name} differs from {first.folder / first.manifest.name} in"
                f" {', '.join(changed)}; encode every part with the same settings, and keep others elsewhere"
            )
        twice = by_number.setdefault(part.manifest.part, part)
        if twice is not part:
            raise DataError(
                f"{part.folder / part.manifest.name} is there twice, also in {twice.folder}; delete one of them with"
                " its files"
            )
    missing = [number for number in range(1, first.manifest.parts + 1) if number not in by_number]
    if missing:
        wanted = first.manifest.model_copy(update={"part": missing[0]})
        raise DataError(
            f"{path} lacks {len(missing)} of {wanted.parts} parts, the first is {wanted.part}; run {wanted.again}"
        )
    return [by_number[number] for number in sorted(by_number)]


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
