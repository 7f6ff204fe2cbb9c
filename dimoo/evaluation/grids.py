"""Picture grids with captions: what people look at while training and afterwards."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

TILE, LINE, LINES, GAP = 128, 12, 3, 8


def captioned_grid(pictures: Sequence[Image.Image], captions: Sequence[str], *, columns: int) -> Image.Image:
    """Pictures, enlarged without smoothing to fit a tile, each above its caption, on white.

    Args:
        pictures: of any sizes.
        captions: one for each.
        columns: tiles in a row.
    """
    rows = -(-len(pictures) // columns)
    cell_width, cell_height = TILE + GAP, TILE + LINES * LINE + GAP
    sheet = Image.new("RGB", (columns * cell_width + GAP, rows * cell_height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=10)
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, top = GAP + index % columns * cell_width, GAP + index // columns * cell_height
        factor = TILE / max(picture.size)
        size = (round(picture.width * factor), round(picture.height * factor))
        sheet.paste(picture.convert("RGB").resize(size, Image.Resampling.NEAREST), (left, top))
        text = "\n".join(textwrap.wrap(caption, 24)[:LINES])
        draw.multiline_text((left, top + TILE + 2), text, fill="black", font=font, spacing=1)
    return sheet
