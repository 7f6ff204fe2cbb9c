"""What users hand in, checked: a wrong value becomes a `RequestError` that names it and the fix."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any

from PIL.Image import Image

from dimoo.core.errors import RequestError


def whole(value: Any, what: str) -> int:
    """A whole number of any integer type, numpy's among them."""
    try:
        return index(value)
    except TypeError:
        raise RequestError(f"{what} {value!r} must be a whole number, as 7") from None


def pair(size: Any) -> tuple[int, int]:
    """A picture's size."""
    try:
        height, width = map(index, size)
    except (TypeError, ValueError):
        raise RequestError(f"size {size!r} must be (height, width) in pixels, as (64, 48)") from None
    return height, width


def words(text: Any, what: str) -> str:
    """A string."""
    if not isinstance(text, str):
        raise RequestError(f"the {what} {text!r} must be a string, not {type(text).__name__}")
    return text


def picture(image: Any, what: str = "image") -> Image:
    """A Pillow image."""
    if not isinstance(image, Image):
        raise RequestError(
            f"the {what} must be a Pillow image, not {type(image).__name__} {image!r:.60};"
            " PIL.Image.open(path) reads a file, PIL.Image.fromarray(array) takes an array"
        )
    return image


def pictures(images: Any) -> tuple[Image, ...]:
    """One Pillow image or several."""
    several = isinstance(images, Sequence) and not isinstance(images, str | bytes)
    return tuple(picture(image) for image in (images if several else [images]))
