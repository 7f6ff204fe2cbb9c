"""The nouns of the world and their sprites, read once from the bundled atlas."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dimoo.core.errors import ConfigError

ASSETS = Path(__file__).resolve().parents[2] / "assets" / "world"


@dataclass(frozen=True, kw_only=True)
class Noun:
    """One thing that can be drawn, and how to speak of it."""

    name: str
    plural: str
    article: str
    cell: int
    """Its place in the atlas, counted row by row; also its rank: a world uses the first n nouns."""


@lru_cache(maxsize=1)
def lexicon() -> Mapping[str, Noun]:
    """All nouns of the atlas by name, in the order of their cells."""
    rows = _index()["nouns"]
    nouns = (
        Noun(name=row["noun"], plural=row["plural"], article=row["article"], cell=cell) for cell, row in enumerate(rows)
    )
    return MappingProxyType({noun.name: noun for noun in nouns})


@lru_cache(maxsize=8)
def names(count: int | None = None) -> tuple[str, ...]:
    """The first `count` nouns of the atlas (None: all)."""
    return tuple(lexicon())[:count]


@lru_cache(maxsize=1024)
def sprite(noun: str, size: int) -> NDArray[np.float32]:
    """The picture of a noun: float32 [size, size, 4] (premultiplied RGB, alpha) in 0..1, read-only.

    Raises:
        ConfigError: the atlas has no such noun, or the size is not positive.
    """
    if noun not in lexicon():
        raise ConfigError(f"no noun {noun!r} in the atlas; known: {', '.join(names())}")
    if size < 1:
        raise ConfigError(f"a sprite of {size} px cannot be drawn; use at least 1")
    index = _index()
    row, column = divmod(lexicon()[noun].cell, index["columns"])
    cell = index["cell"]
    picture = _atlas().crop((column * cell, row * cell, (column + 1) * cell, (row + 1) * cell))
    # Premultiplied before scaling, so that the colour of transparent pixels cannot bleed in; the Hamming
    # filter has no negative lobes, so that colour never exceeds alpha.
    small = picture.convert("RGBa").resize((size, size), Image.Resampling.HAMMING)
    pixels = np.stack([np.asarray(plane) for plane in small.split()], axis=-1).astype(np.float32) / np.float32(255)
    pixels.setflags(write=False)
    return pixels


@lru_cache(maxsize=1)
def _index() -> dict:  # type: ignore[type-arg]  # plain JSON
    return json.loads((ASSETS / "nouns.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


@lru_cache(maxsize=1)
def _atlas() -> Image.Image:
    with Image.open(ASSETS / "atlas.png") as picture:
        return picture.convert("RGBA")
