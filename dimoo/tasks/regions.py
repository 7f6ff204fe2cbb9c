"""What a user marks on a picture, as masks: regions, soft seams, larger canvases. Free of torch.

Shapes: H, W the height and width of the upright picture, in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dimoo.core.errors import RequestError
from dimoo.core.pictures import as_rgb
from dimoo.core.requests import Box, Mark, Polygon
from dimoo.tasks.inputs import picture, whole

ORIENTATION = 0x0112
"""The EXIF tag that says how a picture is to be turned."""

GREY = (128, 128, 128)
"""What an enlarged picture shows where there is nothing yet."""


def region_of(image: Image.Image, marks: Sequence[Mark]) -> NDArray[np.bool_]:
    """The pixels that any of the marks selects, bool [H, W].

    A brush mask is painted on the picture as it is stored, and turned with it; boxes and polygons are upright.

    Raises:
        RequestError: There is no mark, or what is no mark; a box is empty, reversed or reaches out of the picture;
            a polygon has fewer than 3 points; a mask has another size than the picture; nothing is selected.
    """
    if not isinstance(marks, Sequence) or isinstance(marks, str):
        raise RequestError(
            f"marks must be in a tuple, as (Box(0, 0, 16, 16),), not {type(marks).__name__} {marks!r:.60}"
        )
    if not marks:
        raise RequestError("there is no mark; give at least one box, polygon or mask of what is to be made anew")
    width, height = ImageOps.exif_transpose(image).size
    region = np.zeros((height, width), dtype=np.bool_)
    for mark in marks:
        match mark:
            case Box():
                left, top, right, bottom = _sides(mark, height, width)
                region[top:bottom, left:right] = True
            case Polygon():
                region |= _filled(mark, height, width)
            case _:
                region |= _painted(picture(mark, "mark, unless a Box or a Polygon,"), image)
    if not region.any():
        raise RequestError(
            "the mask selects no pixel; paint what is to be made anew in white, or draw the outline inside the picture"
        )
    return region


def touched(region: NDArray[np.bool_], step: tuple[int, ...]) -> NDArray[np.bool_]:
    """The codes with a pixel in a region: bool [H, W] -> [H / step[0], W / step[1]]; sides are multiples of a step."""
    (height, width), (down, across) = region.shape, step
    blocks = region.reshape(height // down, down, width // across, across)
    return np.asarray(blocks.any(axis=(1, 3)))


def bright(mask: Image.Image, *, like: Image.Image) -> NDArray[np.bool_]:
    """What a mask selects, bool [H, W]: brightness of 128 and more. It is turned as the picture `like` is."""
    turned = mask.copy()
    turned.getexif()[ORIENTATION] = like.getexif().get(ORIENTATION, 1)
    turned = ImageOps.exif_transpose(turned)
    if turned.has_transparency_data:
        layer = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", layer.size, "black"), layer)
    return np.asarray(turned.convert("L")) >= 128


def feather(region: NDArray[np.bool_], width: int) -> NDArray[np.float32]:
    """How much of the new picture shows, alpha [H, W] in [0, 1]: the seam fades inside the region alone.

    alpha = min(1, d / (width + 1)), where d is the distance in pixels to the nearest pixel outside the region: 0
    outside, `width` pixels in between, 1 from there on; width 0 is a hard seam. There is no fade at the border of the
    picture. A strip of up to 2 * width pixels never reaches 1.

    Raises:
        RequestError: The width is negative or not a whole number.
    """
    from scipy.ndimage import distance_transform_edt

    if whole(width, "the feather width") < 0:
        raise RequestError(f"the feather width {width} is negative; 0 is a hard seam")
    if region.all():  # no pixel outside to measure from
        return np.ones(region.shape, dtype=np.float32)
    distance: NDArray[np.float64] = distance_transform_edt(region)
    return np.minimum(distance / (width + 1), 1).astype(np.float32)


def composite(new: Image.Image, old: Image.Image, alpha: NDArray[np.floating[Any]]) -> Image.Image:
    """The new picture over the old one, RGB: round(alpha * new + (1 - alpha) * old), the old one exactly at alpha 0.

    Raises:
        RequestError: The pictures and alpha [H, W] differ in size.
    """
    above, below = (np.asarray(as_rgb(image), dtype=np.float64) for image in (new, old))
    if not above.shape[:2] == below.shape[:2] == alpha.shape:
        raise RequestError(
            f"the new picture is {_by(above.shape)}, the old one {_by(below.shape)} and alpha {_by(alpha.shape)};"
            " make them equal in size"
        )
    share = alpha.astype(np.float64)[:, :, None]
    return Image.fromarray(np.rint(share * above + (1 - share) * below).astype(np.uint8))


def enlarged(
    image: Image.Image, left: int = 0, right: int = 0, top: int = 0, bottom: int = 0
) -> tuple[Image.Image, NDArray[np.bool_]]:
    """The picture on a canvas with margins, in pixels, and where it lies: RGB and bool, [top + H + bottom, ...].

    The margins are mid-grey.

    Raises:
        RequestError: A margin is negative or not a whole number, or all are 0.
    """
    margins = {"left": left, "right": right, "top": top, "bottom": bottom}
    for side, margin in margins.items():
        if whole(margin, f"the {side} margin") < 0:
            raise RequestError(f"the {side} margin {margin} is negative; margins are pixels to add, so crop instead")
    if not any(margins.values()):
        raise RequestError("all margins are 0; say how many pixels to add to at least one side")
    original = as_rgb(image)
    canvas = Image.new("RGB", (left + original.width + right, top + original.height + bottom), GREY)
    canvas.paste(original, (left, top))
    keep = np.zeros((canvas.height, canvas.width), dtype=np.bool_)
    keep[top : top + original.height, left : left + original.width] = True
    return canvas, keep


def _sides(box: Box, height: int, width: int) -> tuple[int, int, int, int]:
    left, top, right, bottom = (
        whole(getattr(box, side), f"{side} of the box") for side in ("left", "top", "right", "bottom")
    )
    if left >= right or top >= bottom:
        raise RequestError(f"{box} is empty; left must be less than right, and top less than bottom")
    if left < 0 or top < 0 or right > width or bottom > height:
        raise RequestError(f"{box} reaches out of the picture, which is {width} wide and {height} high; cut it there")
    return left, top, right, bottom


def _filled(polygon: Polygon, height: int, width: int) -> NDArray[np.bool_]:
    from skimage.draw import polygon as pixels_inside

    try:
        points = np.array(polygon.points, dtype=np.float64).reshape(len(polygon.points), 2)
        sound = bool(np.isfinite(points).all())
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise RequestError(f"{polygon} must have points (x, y) of finite numbers, as ((0, 0), (8, 0), (8, 8))")
    if len(points) < 3:
        raise RequestError(f"{polygon} has {len(points)} points; an outline needs at least 3")
    x, y = points.T - 0.5  # pixels are tested where their centres are
    region = np.zeros((height, width), dtype=np.bool_)
    region[pixels_inside(y, x, shape=region.shape)] = True
    return region


def _painted(mask: Image.Image, image: Image.Image) -> NDArray[np.bool_]:
    if mask.size != image.size:
        raise RequestError(
            f"the mask is {_by(mask.size[::-1])} but the image is {_by(image.size[::-1])};"
            " make the mask as large as the image"
        )
    return bright(mask, like=image)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
