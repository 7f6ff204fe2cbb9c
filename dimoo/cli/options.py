"""Options that several commands share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import typer


@dataclass(frozen=True)
class Size:
    """Of a picture, in pixels."""

    height: int
    width: int


def parse_size(text: str) -> Size:
    """`64x48` -> height 64, width 48.

    Raises:
        typer.BadParameter: the text is not of that form.
    """
    match = re.fullmatch(r"([1-9]\d*)[xX]([1-9]\d*)", text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no size; write HEIGHTxWIDTH in pixels, as 64x64")
    return Size(int(match[1]), int(match[2]))


Model = Annotated[
    str, typer.Option("--model", metavar="FOLDER", help='A checkpoint folder, or "mini", the bundled model.')
]
Seed = Annotated[int, typer.Option("--seed", help="The same seed gives the same result.")]
