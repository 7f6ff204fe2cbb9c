"""Options that several commands share."""

from __future__ import annotations

import re
from typing import Annotated

import typer


def parse_size(text: str) -> tuple[int, int]:
    """"64x48" -> (64, 48): height, then width.

    Raises:
        typer.BadParameter: the text is not of that form.
    """
    match = re.fullmatch(r"([1-9]\d*)[xX]([1-9]\d*)", text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no size; write HEIGHTxWIDTH in pixels, as 64x64")
    return int(match[1]), int(match[2])


Model = Annotated[
    str, typer.Option("--model", metavar="FOLDER", help='A checkpoint folder, or "mini", the bundled model.')
]
Seed = Annotated[int, typer.Option("--seed", help="The same seed gives the same result.")]
