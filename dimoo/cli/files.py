"""Picture files on the command line: read with clear errors, checked before the work starts, written in the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dimoo.core.errors import DataError, RequestError

if TYPE_CHECKING:
    from PIL.Image import Image


def read_picture(path: Path) -> Image:
    """A picture file in RGB, upright.

    Raises:
        RequestError: the file is missing or is no picture.
    """
    from PIL import Image

    from dimoo.data.example import read_image

    try:
        return Image.fromarray(read_image(path))
    except DataError as error:
        raise RequestError(f"cannot use {str(path)!r}: {error}; give a readable picture file, as PNG") from error


def read_mask(path: Path) -> Image:
    """A mask file as it is, its transparency kept: what is transparent is not masked.

    Raises:
        RequestError: the file is missing or is no picture.
    """
    from PIL import Image

    if not path.is_file():
        raise RequestError(f"the mask {str(path)!r} does not exist; give a picture file, as PNG")
    try:
        with Image.open(path) as mask:
            mask.load()
            return mask
    except OSError as error:
        raise RequestError(
            f"cannot use {str(path)!r} as a mask: {error}; give a readable picture file, as PNG"
        ) from error


def output_paths(path: Path, count: int) -> list[Path]:
    """Where `count` pictures go: `path` itself, or F-0.png, F-1.png ... for F.png. Their folder is made.

    Raises:
        RequestError: the ending names no picture format, or the folder cannot be made.
    """
    from PIL import Image

    Image.init()
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise RequestError(f"cannot write {str(path)!r}: its ending names no picture format; use .png")
    output_folder(path.parent)
    if count == 1:
        return [path]
    return [path.with_stem(f"{path.stem}-{index}") for index in range(count)]


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
    """Write a picture in the format that the ending names.

    Raises:
        RequestError: the file cannot be written.
    """
    try:
        picture.save(path)
    except OSError as error:
        raise RequestError(f"cannot write {str(path)!r}: {error}") from error
