"""Inpainting: codes under the mask are made, the others given; pixels outside the mask stay the original's."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import max_pool2d

from dimoo.core.errors import RequestError
from dimoo.core.requests import InpaintRequest
from dimoo.tasks.config import ImageSettings
from dimoo.tasks.generate import decode_answer
from dimoo.tasks.job import Job, Kit
from dimoo.tasks.plans import image_plan
from dimoo.tasks.problems import text_to_image
from dimoo.tokenizers.image.resize import as_rgb
from dimoo.tokenizers.prompts import Grid


def inpaint(kit: Kit, request: InpaintRequest, settings: ImageSettings) -> Job[Image.Image]:
    """The job of filling a masked region. A code is made anew if any of its pixels is masked.

    Raises:
        RequestError: the mask is of another size or empty, the size is off the grid, or the prompt is too long.
    """
    tokenizer, image = kit.image_tokenizer, as_rgb(request.image)
    if request.mask.size != image.size:
        raise RequestError(
            f"the mask is {_size(request.mask)} but the image is {_size(image)}; make the mask as large as the image"
        )
    shape = tokenizer.grid_for((image.height, image.width))
    region = torch.from_numpy(np.array(request.mask.convert("L"))) >= 128
    if not bool(region.any()):
        raise RequestError("the mask selects no pixel; paint what is to be made anew in white")
    codes = kit.encode(image)
    remade = max_pool2d(region[None].float(), tokenizer.downsampling, tokenizer.downsampling)[0] > 0
    grid = Grid(modality=tokenizer.modality, shape=shape, codes=codes, keep=~remade)

    def read(ids: Tensor) -> Image.Image:
        # Decoding changes pixels near the seam, so the originals go back outside the mask.
        return Image.composite(decode_answer(kit, grid, ids), image, Image.fromarray(region.numpy()))

    return Job(
        problem=text_to_image(kit.prompts, request.prompt, grid),
        plans={tokenizer.modality: image_plan(settings)},
        seed=request.seed,
        read=read,
    )


def _size(image: Image.Image) -> str:
    return f"{image.height}x{image.width}"
