"""The table of condition kinds and the one call that makes a map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from PIL import Image

from dimoo.conditions.edges import canny, soft_edges
from dimoo.core.errors import RequestError
from dimoo.core.pictures import as_rgb


class Estimator(Protocol):
    """Anything that makes a map of a picture, a network most likely."""

    def __call__(self, picture: Image.Image, /) -> Image.Image:
        """A map of the same size as the upright RGB picture."""
        ...


MAKERS: Mapping[str, Callable[[Image.Image], Image.Image]] = MappingProxyType(
    {"canny": canny, "soft_edges": soft_edges}
)
"""Kinds that are computed, each a function of an upright RGB picture."""

ESTIMATED = ("depth", "normal", "pose", "mask", "hed")
"""Kinds that need a network: the user brings the map or an `Estimator`."""


def make(kind: str, picture: Image.Image, *, estimators: Mapping[str, Estimator] | None = None) -> Image.Image:
    """The condition map of a picture: RGB, of the size of the upright picture, which is not changed.

    Args:
        kind: A name in `MAKERS` or in `estimators`.
        picture: Any Pillow image; it is turned upright and transparency is laid on white.
        estimators: Own makers by kind. They go before the built-in ones, and the kind may be a new one.

    Raises:
        RequestError: The kind is unknown or needs an estimator that is not given, the picture is none, or an
            estimator's map is no picture or has another size than the picture.
    """
    upright = _rgb(picture, "the picture")
    if estimators is not None and kind in estimators:
        return _checked(kind, _rgb(estimators[kind](upright), f"the {kind} estimator's map"), upright)
    if kind in MAKERS:
        return MAKERS[kind](upright)
    if kind in ESTIMATED:
        raise RequestError(
            f"a {kind} map needs a network: bring the map itself, make one with `dimoo predict --kind {kind}`,"
            f" or pass an estimator, make({kind!r}, picture, estimators={{{kind!r}: your_function}})"
        )
    raise RequestError(
        f"condition {kind!r} is unknown; the kinds are {', '.join((*MAKERS, *ESTIMATED))}, or pass an estimator for it"
    )


def _rgb(value: object, what: str) -> Image.Image:
    if not isinstance(value, Image.Image):
        raise RequestError(
            f"{what} must be a Pillow image, not {type(value).__name__} {value!r:.60};"
            " PIL.Image.open(path) reads a file, PIL.Image.fromarray(array) takes an array"
        )
    return as_rgb(value)


def _checked(kind: str, result: Image.Image, picture: Image.Image) -> Image.Image:
    if result.size != picture.size:
        raise RequestError(
            f"the {kind} estimator made a map of {result.height}x{result.width} for a picture of"
            f" {picture.height}x{picture.width}; let it return a map as large as its picture"
        )
    return result
