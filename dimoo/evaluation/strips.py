"""Sections of a gallery: strips of pictures and words, and what becomes of them in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

from dimoo.evaluation.page import figure, mark, words

SCALE = 2
"""CSS pixels per pixel of a picture, so that larger pictures are larger."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A picture above its words, or words alone."""

    picture: Image.Image | None = None
    lines: tuple[str, ...] = ()
    """Plain text; the first one bears the mark."""
    right: bool | None = None
    """A tick or a cross; None: neither."""
    small: bool = False
    """Shown pixel by pixel, as a truth beside what was made."""


Strip = Sequence[Tile]
"""Tiles that belong together, what is given before what is made."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, a line below it, and strips."""

    title: str
    note: str = ""
    strips: Sequence[Strip] = ()


def html_of(section: Section, folder: Path) -> tuple[str, str]:
    """(heading, HTML) of a section; its pictures are written into a folder, named after the heading."""
    name = "_".join("".join(c if c.isalnum() else " " for c in section.title.lower()).split()[:3])
    strips = [
        "".join(_tile(tile, folder, f"{name}_{row:02}_{column}.png") for column, tile in enumerate(strip))
        for row, strip in enumerate(section.strips)
    ]
    cards = "".join(f'<div class="strip">{strip}</div>\n' for strip in strips)
    note = f'<p class="note">{escape(section.note)}</p>\n' if section.note else ""
    return section.title, f'{note}<div class="cards">{cards}</div>' if cards else note


def _tile(tile: Tile, folder: Path, name: str) -> str:
    first, *rest = map(escape, tile.lines or ("",))
    lines = [f"{first} {mark(tile.right)}".strip(), *(f"<small>{line}</small>" for line in rest)]
    if tile.picture is None:
        return words(*lines)
    tile.picture.save(folder / name)
    return figure(name, *lines, width=tile.picture.width * (1 if tile.small else SCALE))
