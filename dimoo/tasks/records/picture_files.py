"""Picture files that hold the record of how they were made."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from dimoo.core.errors import DataError, RequestError
from dimoo.tasks.inputs import picture
from dimoo.tasks.records.provenance import KEY, Origin
from dimoo.tasks.records.record import Record, parse_record, result_of

LARGEST = 32_000_000
"""Characters of a record inside a PNG file. Readers have limits (Pillow refuses to open a file with more than 64 MB of
text), so larger ones go into a file beside the picture."""
_log = logging.getLogger(__name__)


def save_picture(image: Image.Image, path: str | Path) -> None:
    """Write a picture in the format that the ending names, with the record of how it was made if it carries one.

    A PNG file holds the record in an iTXt chunk "dimoo"; beside any other file F.jpg, and where pictures of tens of
    megabytes went in, it is the file F.jpg.json. A picture that was changed since it was made is written without.

    Raises:
        RequestError: it is no picture, or the file cannot be written.
    """
    path = Path(path)
    record = _carried(picture(image))
    text = None if record is None else record.model_dump_json()
    inside = text is not None and path.suffix.lower() == ".png" and len(text) <= LARGEST
    options: dict[str, Any] = {}
    if text is not None and inside:
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt(KEY, text)
    try:
        image.save(path, **options)
        if text is not None and not inside:
            _beside(path).write_text(text + "\n", encoding="utf-8")
        elif _is_record(_beside(path)):  # of a picture that was here before
            _beside(path).unlink()
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot write {str(path)!r}: {error}") from error


def read_record(path: str | Path) -> Record:
    """How a picture was made, from a file that `save_picture` wrote; or from JSON.

    Raises:
        DataError: the file is missing, has no record, or one that is damaged or of another version.
    """
    path = Path(path)
    try:
        return parse_record(_text(path))
    except DataError as error:
        raise DataError(f"cannot tell how {str(path)!r} was made: {error}") from error


def _text(path: Path) -> str:
    """The record as JSON: out of a picture, from beside it, or the file itself."""
    try:
        with Image.open(path) as opened:
            inside = opened.info.get(KEY)
    except UnidentifiedImageError:
        pass  # JSON, then
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"the file cannot be read ({error}); give a picture or a record that is whole") from error
    else:
        if isinstance(inside, str):
            return inside
        path = _beside(path)
        if not path.is_file():
            raise DataError(
                f"it has no record, and there is no {path.name!r} beside it; take a picture that dimoo.save_picture or"
                " a dimoo command wrote"
            )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"it is neither a picture nor JSON ({error})") from error


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _is_record(path: Path) -> bool:
    try:
        return path.is_file() and bool(parse_record(path.read_text(encoding="utf-8")))
    except (DataError, UnicodeDecodeError):
        return False


def _carried(image: Image.Image) -> Record | None:
    """The record that a picture carries, as a result or read from a file, while it is true of its pixels."""
    found = image.info.get(KEY)
    if isinstance(found, str):
        try:
            found = parse_record(found)
        except DataError:
            return None
    if not isinstance(found, Origin | Record) or found.result is None:
        return None
    if found.result != result_of(image, found.result.part):
        _log.warning("the picture was changed since it was made; it is written without its record")
        return None
    return found.record() if isinstance(found, Origin) else found
