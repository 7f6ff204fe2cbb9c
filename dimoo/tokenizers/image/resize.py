"""Picture sizes, cropping, and Pillow images <-> tensors. Sizes are (height, width) throughout.

Axes: B = batch, H W = pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from dimoo.core.errors import RequestError
from dimoo.core.pictures import as_rgb

CENTRE = (0.5, 0.5)


def buckets(target: int, *, unit: int = 32, max_aspect: float = 4.0) -> tuple[tuple[int, int], ...]:
    """The sizes (H, W) of about target^2 pixels, in units, from the widest to the tallest.

    A staircase along the maximal area P = (target / unit)^2 units: from (1, P), one unit is added to the
    height while the area stays within P, else one is taken from the width; sizes more elongated than
    `max_aspect` are left out. The rule of the Lumina family: 49 sizes at target 512 and 97 at 1024.

    Raises:
        RequestError: the target is not a positive multiple of the unit.
    """
    if unit < 1 or target < unit or target % unit:
        raise RequestError(f"target {target} must be a positive multiple of the unit {unit}")
    area = (target // unit) ** 2
    sizes, across, down = [], area, 1
    while across > 0:
        if max(across, down) <= max_aspect * min(across, down):
            sizes.append((down * unit, across * unit))
        if (down + 1) * across <= area:
            down += 1
        else:
            across -= 1
    return tuple(sizes)


def bucket_for(size: tuple[int, int], sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The one of `sizes` (see `buckets`) that a picture of `size` fills best.

    That is the largest min(a, b) / max(a, b), where a and b are the scales needed down and across; ties go to
    the larger width, then the larger height.

    Raises:
        RequestError: there is nothing to choose from, or the picture is empty.
    """
    height, width = size
    if not sizes or height < 1 or width < 1:
        raise RequestError(f"cannot choose among {len(sizes)} sizes for a picture of {size} pixels")

    def fit(bucket: tuple[int, int]) -> tuple[float, int, int]:
        # Cross products: the same ratio as that of the scales, without their rounding, so that ties are ties.
        down, across = bucket[0] * width, bucket[1] * height
        return (min(down, across) / max(down, across), bucket[1], bucket[0])

    return max(sizes, key=fit)


def cover_crop(image: Image.Image, size: tuple[int, int], anchor: tuple[float, float] = CENTRE) -> Image.Image:
    """Scale (bicubic, one resampling) to cover `size` (H, W) without distortion and crop what sticks out.

    Args:
        image: any Pillow image.
        size: (height, width) of the result.
        anchor: which part is kept, down and across: 0 top or left, 0.5 middle, 1 bottom or right.

    Raises:
        RequestError: the size is not positive, or the anchor is outside [0, 1].
    """
    if min(size) < 1 or not all(0 <= part <= 1 for part in anchor):
        raise RequestError(f"cannot crop to {size} at {anchor}: sizes are positive, anchors in [0, 1]")
    height, width = size
    down, across = anchor
    return ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC, centering=(across, down))


def to_pixels(images: Sequence[Image.Image]) -> Tensor:
    """Pillow images of one size -> floats [B, 3, H, W] in [0, 1].

    Raises:
        RequestError: there are none, or their sizes differ.
    """
    sizes = {image.size[::-1] for image in images}
    if len(sizes) != 1:
        raise RequestError(f"a batch needs pictures of one size, not {sorted(sizes)}; use cover_crop first")
    arrays = np.stack([np.asarray(as_rgb(image)) for image in images])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).contiguous().float() / 255


def to_images(pixels: Tensor) -> list[Image.Image]:
    """Floats [B, 3, H, W], clamped to [0, 1] -> Pillow images, rounded to 8 bits.

    Raises:
        RequestError: not a batch of RGB pictures.
    """
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise RequestError(f"pictures must be [B, 3, H, W], not {tuple(pixels.shape)}")
    levels = (pixels.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return [Image.fromarray(array) for array in levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()]
