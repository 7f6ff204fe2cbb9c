"""inpaint, retouch, outpaint: a part of a picture made anew, the rest kept pixel by pixel."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dimoo.cli.files import read_picture, read_stored
from dimoo.cli.making import Making, Out, Wanted, make
from dimoo.cli.pictures import Picture

if TYPE_CHECKING:
    from dimoo.core.requests import Box, Mark, Polygon

Prompt = Annotated[str, typer.Option(metavar="TEXT", help="Describes the whole picture as it should be.")]
Pixels = Annotated[int, typer.Option(min=0, metavar="PIXELS", help="To add on this side.")]
NUMBER = r"(-?\d+(?:\.\d+)?)"


def parse_box(text: str) -> Box:
    """`8,16,24,32` -> left 8, top 16, right 24, bottom 32.

    Raises:
        typer.BadParameter: the text is not of that form.
    """
    from dimoo.core.requests import Box

    match = re.fullmatch(",".join([r"\s*(-?\d+)\s*"] * 4), text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no box; write LEFT,TOP,RIGHT,BOTTOM in pixels, as 8,16,24,32")
    return Box(*map(int, match.groups()))


def parse_polygon(text: str) -> Polygon:
    """`0,0 8,0 8,8` -> its points (x, y).

    Raises:
        typer.BadParameter: the text is not of that form.
    """
    from dimoo.core.requests import Polygon

    points = [match for point in text.split() if (match := re.fullmatch(f"{NUMBER},{NUMBER}", point))]
    if not 3 <= len(points) == len(text.split()):
        raise typer.BadParameter(f'{text!r} is no outline; write at least three points X,Y, as "0,0 8,0 8,8"')
    return Polygon(tuple((float(point[1]), float(point[2])) for point in points))


def inpaint(
    picture: Picture,
    mask: Annotated[Path, typer.Option(metavar="MASK", help="As large as the picture; white is made anew.")],
    prompt: Prompt,
    out: Out,
    how: Making,
) -> None:
    """Make a masked region of a picture anew.

    Every pixel outside the mask stays as it was. Prints the path of the new picture.
    """
    from dimoo.core.requests import InpaintRequest
    from dimoo.tasks.regions import region_of

    before, region = read_stored(picture), read_stored(mask, "mask")
    region_of(before, [region])  # a mask that does not fit is refused before a model is loaded
    make(how, out, Wanted(request=InpaintRequest(image=before, mask=region, prompt=prompt), said={"prompt": prompt}))


def retouch(
    picture: Picture,
    out: Out,
    how: Making,
    box: Annotated[
        list[str] | None,
        typer.Option(metavar="X0,Y0,X1,Y1", help="Left, top, right, bottom; may be repeated."),
    ] = None,
    polygon: Annotated[
        list[str] | None,
        typer.Option(metavar='"X,Y X,Y X,Y"', help="An outline; may be repeated."),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(metavar="MASK", help="A picture as large as this one, painted white there.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What should be there.  [default: whatever fits]")
    ] = None,
    feather: Annotated[
        int, typer.Option(min=0, metavar="PIXELS", help="Width inside the region over which the new fades in.")
    ] = 0,
) -> None:
    """Make marked regions of a picture anew.

    Boxes, outlines and a painted mask, together. Every pixel outside them stays as it was. Prints the path of the new
    picture.
    """
    from dimoo.core.requests import RetouchRequest
    from dimoo.tasks.regions import region_of

    drawn: tuple[Mark, ...] = (*map(parse_box, box or []), *map(parse_polygon, polygon or []))
    if not drawn and mask is None:
        raise typer.BadParameter("say what is to be made anew, by --box, --polygon or --mask")
    before = read_stored(picture)
    marks = drawn if mask is None else (*drawn, read_stored(mask, "mask"))
    region_of(before, marks)  # a mark that does not fit is refused before a model is loaded
    request = RetouchRequest(image=before, marks=marks, prompt=prompt, feather=feather)
    make(how, out, Wanted(request=request, said={"prompt": prompt}))


def outpaint(
    picture: Picture,
    prompt: Prompt,
    out: Out,
    how: Making,
    left: Pixels = 0,
    right: Pixels = 0,
    top: Pixels = 0,
    bottom: Pixels = 0,
) -> None:
    """Continue a picture beyond its sides.

    It stays pixel by pixel as it is, on a larger canvas. Prints the path of the new picture.
    """
    from dimoo.core.requests import OutpaintRequest

    if not left + right + top + bottom:
        raise typer.BadParameter("say how far to go on, by --left, --right, --top or --bottom")
    request = OutpaintRequest(
        image=read_picture(picture), prompt=prompt, left=left, right=right, top=top, bottom=bottom
    )
    make(how, out, Wanted(request=request, said={"prompt": prompt}))
