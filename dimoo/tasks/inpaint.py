"""Inpainting: codes under the mask are made, the others given; pixels outside the mask stay the original's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import max_pool2d

from dimoo.core.errors import RequestError
from dimoo.core.pictures import as_rgb
from dimoo.core.requests import InpaintRequest
from dimoo.diffusion.canvas import Plan
from dimoo.presets.config import ImageSettings
from dimoo.tasks.generate import decode_answer
from dimoo.tasks.inputs import picture, whole, words
from dimoo.tasks.job import Job, Kit
from dimoo.tasks.plans import image_plan
from dimoo.tasks.problems import text_to_image

ORIENTATION = 0x0112
"""The EXIF tag that says how a picture is to be turned."""


def inpaint(kit: Kit, request: InpaintRequest, settings: ImageSettings | Plan) -> Job[Image.Image]:
    """The job of filling a masked region. A code is made anew if any of its pixels is masked.

    Raises:
        RequestError: the model knows text only, the mask is of another size or empty, the size is off the grid, the
            prompt is too long, or a value is of a wrong type.
    """
    tokenizer, image = kit.pictures, as_rgb(picture(request.image))
    if picture(request.mask, "mask").size != request.image.size:
        raise RequestError(
            f"the mask is {_size(request.mask)} but the image is {_size(request.image)};"
            " make the mask as large as the image"
        )
    region = torch.from_numpy(_bright(request.mask, like=request.image))
    if not bool(region.any()):
        raise RequestError("the mask selects no pixel; paint what is to be made anew in white")
    known = kit.grid(image)
    remade = max_pool2d(region[None].float(), tokenizer.downsampling, tokenizer.downsampling)[0] > 0
    grid = replace(known, keep=~remade)

    def read(ids: Tensor) -> Image.Image:
        # Decoding changes pixels near the seam, so the originals go back outside the mask.
        return Image.composite(decode_answer(kit, grid, ids), image, Image.fromarray(region.numpy()))

    return Job(
        problem=text_to_image(kit.prompts, words(request.prompt, "prompt"), grid),
        plans={tokenizer.modality: image_plan(settings)},
        seed=whole(request.seed, "seed"),
        read=read,
    )


def _bright(mask: Image.Image, *, like: Image.Image) -> NDArray[np.bool_]:
    """What a mask selects, bool [H, W] of the upright picture: a mask is painted on the picture as it is stored."""
    turned = mask.copy()
    turned.getexif()[ORIENTATION] = like.getexif().get(ORIENTATION, 1)
    turned = ImageOps.exif_transpose(turned)
    if turned.has_transparency_data:
        layer = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", layer.size, "black"), layer)
    return np.asarray(turned.convert("L")) >= 128


def _size(image: Image.Image) -> str:
    return f"{image.height}x{image.width}"
