"""Picture files on the command line: read with clear errors, checked before the work starts, written in the end."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from dimoo.core.errors import DataError, RequestError

if TYPE_CHECKING:
    from PIL.Image import Image


def read_picture(path: Path) -> Image:
    """A picture file in RGB, upright; its `info` says the path.

    Raises:
        RequestError: the file is missing or is no picture.
    """
    from PIL import Image

    from dimoo.data.example import read_image

    try:
        picture = Image.fromarray(read_image(path))
    except DataError as error:
        raise RequestError(f"cannot use {str(path)!r}: {error}; give a readable picture file, as PNG") from error
    picture.info["path"] = str(path)
    return picture


def read_stored(path: Path, what: str = "picture") -> Image:
    """A picture file as it is stored: not turned, its transparency kept. What is transparent in a mask is not masked.

    Raises:
        RequestError: the file is missing or is no picture.
    """
    from PIL import Image

    if not path.is_file():
        raise RequestError(f"the {what} {str(path)!r} does not exist; give a picture file, as PNG")
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RequestError(
            f"cannot use {str(path)!r} as a {what}: {error}; give a readable picture file, as PNG"
        ) from error


def output_paths(path: Path, count: int) -> list[Path]:
    """Where `count` pictures go: `path` itself, or F-0.png, F-1.png ... for F.png. Nothing is written yet.

    Raises:
        RequestError: the ending names no format that a picture can be written in, or the folder cannot be made.
    """
    from PIL import Image

    Image.init()
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None or not _takes_rgb(kind):
        raise RequestError(f"cannot write {str(path)!r}: its ending names no picture format; use .png")
    if path.is_dir():
        raise RequestError(f"cannot write {str(path)!r}: it is a folder; choose another --out")
    check_folder(path.parent)
    if count == 1:
        return [path]
    return [path.with_stem(f"{path.stem}-{index}") for index in range(count)]


def _takes_rgb(kind: str) -> bool:
    """Whether Pillow can write colours in a format."""
    from PIL import Image

    try:
        Image.new("RGB", (8, 8)).save(BytesIO(), kind)
    except (OSError, KeyError, ValueError):
        return False
    return True


def check_folder(path: Path) -> None:
    """Whether files can be written to a folder, which may be new.

    Raises:
        RequestError: they cannot.
    """
    there = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise RequestError(f"cannot make the folder {str(path)!r}: {str(there)!r} is a file; choose another")
    if not os.access(there, os.W_OK):
        raise RequestError(f"cannot write to the folder {str(path)!r}: no permission; choose another")


def output_file(path: Path) -> None:
    """Whether a file can be written, in a folder that may be new and is made.

    Raises:
        RequestError: it cannot.
    """
    if path.is_dir():
        raise RequestError(f"cannot write {str(path)!r}: it is a folder; name a file")
    check_folder(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)


def output_folder(path: Path) -> None:
    """Make a folder where it is absent.

    Raises:
        RequestError: it cannot be made, or is a file.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"cannot make the folder {str(path)!r}: {error.strerror}; choose another --out") from error


def write_picture(picture: Image, path: Path) -> None:
    """Write a picture, with the record of how it was made, in the format that the ending names.

    Its folder is made where it is absent.

    Raises:
        RequestError: the file cannot be written.
    """
    from dimoo.tasks.records.picture_files import save_picture

    output_folder(path.parent)
    save_picture(picture, path)
