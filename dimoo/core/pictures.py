"""What a picture looks like, whatever its file says it with. Free of torch."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps


def as_rgb(image: Image.Image) -> Image.Image:
    """The picture in 8-bit RGB, turned upright as its EXIF tag says; the input is not changed.

    Transparent pixels are laid on white, grey and palette pictures become RGB, 16-bit grey is scaled to 8 bits.
    """
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "I" or upright.mode.startswith("I;16"):  # "I" is how older Pillows open 16-bit grey
        upright = Image.fromarray((np.asarray(upright) >> 8).clip(0, 255).astype(np.uint8))
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return upright.convert("RGB")
