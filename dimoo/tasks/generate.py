"""Text-to-image: every code of the answer is made."""

from __future__ import annotations

from PIL.Image import Image
from torch import Tensor

from dimoo.core.requests import GenerateRequest
from dimoo.tasks.config import ImageSettings
from dimoo.tasks.job import Job, Kit
from dimoo.tasks.plans import image_plan
from dimoo.tasks.problems import text_to_image
from dimoo.tokenizers.image.resize import to_images
from dimoo.tokenizers.prompts import Grid


def generate(kit: Kit, request: GenerateRequest, settings: ImageSettings) -> Job[Image]:
    """The job of a picture from words.

    Raises:
        RequestError: the size is off the tokenizer's grid, or the prompt is too long.
    """
    tokenizer = kit.image_tokenizer
    shape = tokenizer.grid_for((request.height, request.width))
    grid = Grid(modality=tokenizer.modality, shape=shape)
    return Job(
        problem=text_to_image(kit.prompts, request.prompt, grid),
        plans={tokenizer.modality: image_plan(settings)},
        seed=request.seed,
        read=lambda ids: decode_answer(kit, grid, ids),
    )


def decode_answer(kit: Kit, grid: Grid, ids: Tensor) -> Image:
    """The picture of an image answer's ids, int64 [n] on the CPU."""
    codes = kit.prompts.grid_of_answer(grid, ids)
    return to_images(kit.image_tokenizer.decode(codes[None].to(kit.device)))[0]
