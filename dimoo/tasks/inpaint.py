"""A part of a picture made anew: codes with a pixel in the region are made, the others given, the rest stays as it was.

Inpainting, retouching and extrapolation are this, with another region and another way to lay the new on the old.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import pad

from dimoo.core.errors import RequestError
from dimoo.core.pictures import as_rgb
from dimoo.core.requests import InpaintRequest, OutpaintRequest, RetouchRequest
from dimoo.tasks.compose import Settings, compose, masked, only
from dimoo.tasks.inputs import picture, whole, words
from dimoo.tasks.job import Job, Kit
from dimoo.tasks.regions import composite, enlarged, feather, region_of
from dimoo.tasks.speech import entry_of, say
from dimoo.tokenizers.prompts import Grid


def inpaint(kit: Kit, request: InpaintRequest, settings: Settings) -> Job[Image.Image]:
    """The job of filling a masked region. A code is made anew if any of its pixels is masked.

    Raises:
        RequestError: the model knows text only, the mask is of another size or empty, the size is off the grid, the
            prompt is too long, or a value is of a wrong type.
    """
    region = region_of(picture(request.image), [picture(request.mask, "mask")])
    return _fill(kit, as_rgb(request.image), region, request, settings)


def retouch(kit: Kit, request: RetouchRequest, settings: Settings, *, known: Grid | None = None) -> Job[Image.Image]:
    """The job of making marked regions anew. Codes outside are frozen, pixels outside are the original's.

    Args:
        kit: the model's tokenizers.
        request: the picture and its marks.
        settings: how to sample.
        known: the picture's codes, where they are known already; None: it is encoded.

    Raises:
        RequestError: as `inpaint`; or there is no mark, one reaches out of the picture, or the feather is negative.
    """
    region = region_of(picture(request.image), request.marks)
    return _fill(kit, as_rgb(request.image), region, request, settings, known, soft=whole(request.feather, "feather"))


def outpaint(kit: Kit, request: OutpaintRequest, settings: Settings) -> Job[Image.Image]:
    """The job of continuing a picture on a larger canvas; the picture itself stays pixel by pixel.

    Raises:
        RequestError: as `inpaint`; or nothing is to be added, or less than nothing.
    """
    sides = {name: whole(getattr(request, name), name) for name in ("left", "right", "top", "bottom")}
    image = as_rgb(picture(request.image))
    known = kit.grid(image)
    for name, pixels in sides.items():
        step = kit.pictures.downsampling[0 if name in ("top", "bottom") else 1]
        if pixels % step:
            raise RequestError(
                f"{name} {pixels} is not a multiple of {step}; the next that is: {-(-pixels // step) * step}"
            )
    canvas, keep = enlarged(image, **sides)
    return _fill(kit, canvas, ~keep, request, settings, surrounded(kit, known, sides))


def _fill(
    kit: Kit,
    image: Image.Image,
    region: NDArray[np.bool_],
    request: InpaintRequest | OutpaintRequest | RetouchRequest,
    settings: Settings,
    known: Grid | None = None,
    soft: int = 0,
) -> Job[Image.Image]:
    entry = entry_of(kit.tasks, "inpaint")
    grid = kit.grid(image) if known is None else known
    said = [None] if request.prompt is None else say(kit.tasks, "inpaint", words=words(request.prompt, "prompt"))
    alpha = feather(region, soft)
    job = compose(
        kit,
        entry.family,
        said,
        [masked(grid, kit.remade(region))],
        settings=settings,
        seed=request.seed,
        negative=request.negative,
    )
    # Decoding changes pixels near the seam, so the originals go back outside the region.
    return only(job).then(lambda made: composite(made, image, alpha))


def surrounded(kit: Kit, grid: Grid, sides: Mapping[str, int]) -> Grid:
    """A known grid with codes to be made around it; `sides` are pixels by name, multiples of the downsampling.

    The picture is encoded alone, so no margin shows in its codes, however far the tokenizer sees.
    """
    assert grid.codes is not None
    down, across = kit.pictures.downsampling
    left, right = sides["left"] // across, sides["right"] // across
    top, bottom = sides["top"] // down, sides["bottom"] // down
    books = () if grid.codebooks == 1 else (0, 0)
    return Grid.of(grid.modality, pad(grid.codes, (*books, left, right, top, bottom), value=-1), grid.codebooks)
