"""What a data source yields before any tokenizer has seen it, and how picture files are read."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from typing_extensions import TypeVar

from dimoo.core.errors import DataError
from dimoo.core.pictures import as_rgb

OnBad = Literal["raise", "report"]
Verify = Literal["pixels", "headers"]
"""How pictures are looked at before they are used: decoded, or opened alone."""
LATE = (
    "mend it in its place and go on where this broke off, or find all such pictures beforehand with"
    " source.verify=pixels (dimoo encode --verify pixels)"
)
"""What to do about a picture that cannot be read when it is drawn."""
QUARTER_TURNS = (5, 6, 7, 8)
"""Orientations of EXIF in which height and width are exchanged."""

LISTED = 50
"""Bad rows that a message lists."""
LEAVE_OUT = "mend them, or go on without them (source.on_bad=report; of dimoo encode --on-bad report)"

logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]
"""A picture: uint8 [height, width, 3], red green blue."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Codes:
    """A picture as an image tokenizer has encoded it."""

    codes: NDArray[np.int32]
    """int32 [*grid], with several codebooks [*grid, codebooks]."""
    fingerprint: str
    """Of the tokenizer that made them, and alone can read them."""


Picture = Pixels | Codes
PictureT = TypeVar("PictureT", bound=Picture, covariant=True, default=Pixels)


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskExample(Generic[PictureT]):
    """A task with its answer: what a request of that task says, and what it should get."""

    task: str
    """A key of the model's table of tasks: "edit", "control", ..."""
    words: str = ""
    option: str = ""
    """What is chosen from the task's options, as "canny"."""
    images: tuple[PictureT, ...] = ()
    """The pictures that the request brings, in order."""
    image: PictureT | None = None
    """The answer's picture."""
    text: str | None = None
    """The answer's words."""
    given: NDArray[np.bool_] | None = None
    """bool [height, width]: pixels of the answer's picture that are known beforehand; None: none are."""
    learn_words: bool = False
    """Whether the words of the request are masked and predicted too, as of a captioned picture before any task is
    taught; where the condition is dropped they are not. Of requests without pictures."""


@dataclass(frozen=True, kw_only=True)
class Example(Generic[PictureT]):
    """A picture and what is said about it; any part may be missing."""

    image: PictureT | None = None
    caption: str | None = None
    qa: tuple[tuple[str, str], ...] = ()
    """(question, answer) pairs."""
    tasks: tuple[TaskExample[PictureT], ...] = ()
    """Tasks over the same picture or others; drawn from evenly."""


def pictures_of(example: Example[PictureT]) -> list[PictureT]:
    """Every picture in an example: its own and those of its tasks, answers included."""
    tasks = [picture for one in example.tasks for picture in (*one.images, one.image)]
    return [picture for picture in (example.image, *tasks) if picture is not None]


def pixels_of(picture: Picture) -> Pixels:
    """The picture itself, where pixels are needed.

    Raises:
        DataError: there are only its codes.
    """
    if isinstance(picture, Codes):
        raise DataError("this needs the pixels of pictures, but shards hold codes alone; take the source of the shards")
    return picture


class Check(Protocol):
    """Looks an example of a file over before it is used."""

    def __call__(self, example: Example[Picture], /) -> None:
        """Let it pass.

        Raises:
            DataError: it cannot be used; says why.
        """


def anything(example: Example[Picture]) -> None:
    """A `Check` that every example passes."""
    del example


class Source(Protocol):
    """Random access to examples: the same index always gives the same example."""

    @property
    def size(self) -> int | None:
        """How many examples there are; None: endless, every index from 0 on is valid."""

    def example(self, index: int) -> Example[Picture]:
        """The example at an index.

        Raises:
            IndexError: the index is negative, or not below `size`.
        """


class NoExamples:
    """A `Source` of none, for what has learnt already."""

    size = 0

    def example(self, index: int) -> Example[Picture]:
        """Raises IndexError, whatever the index."""
        raise IndexError(f"there is no example {index}: there is none at all")


class FileSource(Source, Protocol):
    """A source of rows whose pictures are files."""

    def file_sizes(self, index: int) -> list[int]:
        """Bytes of each picture file of the example at an index, by which it is noticed that one has changed."""


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A row that cannot be used."""

    where: str
    """The file, and the line where it has lines."""
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


def read_image(path: Path) -> Pixels:
    """A picture file as uint8 [height, width, 3], see `as_rgb`; of an animation the first frame is taken.

    Raises:
        DataError: the file is missing, is no picture, or is damaged; the message says why.
    """
    with _opened(path) as image:
        return np.asarray(as_rgb(image))


def read_header(path: Path) -> Pixels:
    """A black picture of the size that a picture file says it has: none but a TIFF is decoded, so it may be damaged.

    Returns:
        uint8 [height, width, 3], all in one byte of memory.

    Raises:
        DataError: the file is missing or no picture; the message says why.
    """
    with _opened(path) as image:
        if image.format == "TIFF":  # is turned as it is decoded, by some versions of Pillow when it is opened
            image.load()
        width, height = image.size
        # For a tag that may stand behind the pixels, Pillow would decode those of a PNG.
        told = image.format != "PNG" or "exif" in image.info
        if told and image.getexif().get(ExifTags.Base.Orientation, 1) in QUARTER_TURNS:
            width, height = height, width
    return np.broadcast_to(np.uint8(0), (height, width, 3))


def file_size(path: Path) -> int:
    """Bytes of a picture file; 0 of one that is gone, as whoever reads it will say."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError as error:
        raise DataError("the image does not exist") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"the image cannot be read: {error}") from error


def settle(bad: Sequence[BadRow], *, source: Path, good: int, on_bad: OnBad, remedy: str = LEAVE_OUT) -> None:
    """Raise one error that lists the bad rows, the first `LISTED` of them, or log it and go on with the good ones.

    Args:
        bad: all bad rows.
        source: that they are of.
        good: how many others there are.
        on_bad: what to do.
        remedy: what a user can do about them.

    Raises:
        DataError: there are bad rows and `on_bad` is "raise", or there is no good row at all.
    """
    listing = "".join(f"\n  {row}" for row in bad[:LISTED])
    listing += f"\n  and {len(bad) - LISTED} more" if len(bad) > LISTED else ""
    rows = f"{len(bad)} bad row{'s' * (len(bad) != 1)}"
    if not good:
        raise DataError(f"{source} has no usable rows" + (f"; mend one of {rows}:{listing}" if bad else ""))
    if bad and on_bad == "raise":
        raise DataError(f"{source}: {rows}; {remedy}:{listing}")
    if bad:
        logger.warning("%s: left out %s of %d:%s", source, rows, len(bad) + good, listing)


def at(index: int, size: int) -> int:
    """The index itself.

    Raises:
        IndexError: it is not in [0, size).
    """
    if not 0 <= index < size:
        raise IndexError(f"index {index} is out of range; the source has {size} examples, from 0")
    return index
