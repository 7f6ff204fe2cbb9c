"""Pictures as they stand in a record: by their pixels, or by a file that still holds them. Free of torch."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from dimoo.core.config import StrictConfig
from dimoo.core.errors import DataError
from dimoo.core.pictures import as_rgb
from dimoo.tasks.regions import ORIENTATION

EXACT = frozenset({"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"})
"""Modes that are kept as they are; any other becomes the RGB or RGBA that it looks like."""
_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


class StoredPicture(StrictConfig):
    """A picture that a request brought, a mask with its transparency."""

    kind: Literal["picture"] = "picture"
    mode: str
    """Pillow's name of what a pixel is."""
    size: tuple[int, int]
    """(height, width) in pixels, upright."""
    sha256: str
    """Of the pixels, see `digest`."""
    data: str | None = None
    """The picture as a PNG file, in base64."""
    path: str | None = None
    """The file that holds it, where the picture itself is not kept."""


def digest(image: Image.Image) -> str:
    """The SHA-256 of an upright picture's RGB bytes, row by row; alpha bytes follow where it has transparency."""
    value = hashlib.sha256(as_rgb(image).tobytes())
    if image.has_transparency_data:
        value.update(ImageOps.exif_transpose(image).convert("RGBA").getchannel("A").tobytes())
    return value.hexdigest()


def plain(image: Image.Image) -> Image.Image:
    """A copy that is nothing but the picture: pixels, transparency, EXIF turn, and the path that it came from."""
    copy = image.copy() if image.mode in EXACT else image.convert("RGBA" if image.has_transparency_data else "RGB")
    path = image.info.get("path") or getattr(image, "filename", "")
    copy.info = {name: copy.info[name] for name in ("transparency",) if name in copy.info}
    if isinstance(path, str | Path) and str(path):
        copy.info["path"] = str(path)
    if (turn := image.getexif().get(ORIENTATION, 1)) != 1:
        copy.getexif()[ORIENTATION] = turn
    return copy


def store(image: Image.Image, *, embed: bool) -> StoredPicture:
    """A `plain` picture for a record.

    Args:
        image: the picture.
        embed: keep the picture itself, not the path of its file; it is kept in any case if there is no such file, or
            the file holds another picture.
    """
    height, width = as_rgb(image).size[::-1]
    stored = StoredPicture(mode=image.mode, size=(height, width), sha256=digest(image))
    if not embed and "path" in image.info:
        path = Path(image.info["path"]).absolute()
        try:
            again = _read(path, image.mode)
            same = _turn(again) == _turn(image) and _fits(again, stored)
        except _UNREADABLE:
            same = False
        if same:
            return stored.model_copy(update={"path": str(path)})
    return stored.model_copy(update={"data": _png(image)})


def restore(stored: StoredPicture) -> Image.Image:
    """The picture again, `plain` as it was stored.

    Raises:
        DataError: it cannot be read, or its pixels are not those that were recorded.
    """
    name = "a picture" if stored.path is None else f"the picture {stored.path!r}"
    try:
        image = _unpacked(stored) if stored.path is None else _read(Path(stored.path), stored.mode)
        fits = _fits(image, stored)
    except _UNREADABLE as error:
        raise DataError(f"{name} of the record cannot be read: {error}; put it back as it was") from error
    if not fits:
        raise DataError(f"{name} of the record has other pixels than were recorded; put it back as it was")
    return image


def _unpacked(stored: StoredPicture) -> Image.Image:
    with Image.open(io.BytesIO(base64.b64decode(stored.data or "", validate=True))) as opened:
        image = plain(opened)
    return image if image.mode == stored.mode else image.convert(stored.mode)


def _read(path: Path, mode: str) -> Image.Image:
    """A file as those read it who made a picture of this mode: upright where it is RGB, else as it is stored."""
    with Image.open(path) as opened:
        image = as_rgb(opened) if mode == "RGB" else opened
        return plain(image)


def _fits(image: Image.Image, stored: StoredPicture) -> bool:
    upright = as_rgb(image)
    return (image.mode, (upright.height, upright.width), digest(image)) == (stored.mode, stored.size, stored.sha256)


def _turn(image: Image.Image) -> int:
    return int(image.getexif().get(ORIENTATION, 1))


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    exif = image.getexif()
    if image.mode == "I":  # 32-bit grey, of which no use tells apart what lies beyond 16 bits
        image = Image.fromarray(np.asarray(image).clip(0, 2**16 - 1).astype(np.uint16))
    image.save(buffer, "PNG", exif=exif)
    return base64.b64encode(buffer.getvalue()).decode()
