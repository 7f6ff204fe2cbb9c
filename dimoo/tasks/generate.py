"""Text-to-image: every code of the answer is made."""

from __future__ import annotations

from PIL.Image import Image
from torch import Tensor

from dimoo.core.requests import GenerateRequest
from dimoo.tasks.config import ImageSettings
from dimoo.tasks.job import Job, Kit
from dimoo.tasks.plans import image_plan
from dimoo.tasks.problems import text_to_image
from dimoo.tokenizers.image.resize import to_image
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
        read=lambda ids: to_image(decode_answer(kit, grid, ids)),
    )


def decode_answer(kit: Kit, grid: Grid, ids: Tensor) -> Tensor:
    """The pixels, float [3, H, W] in [0, 1], of an image answer's ids [n]."""
    tokens = kit.prompts.grid_of_answer(grid, ids)
    pixels: Tensor = kit.image_tokenizer.decode(tokens.unsqueeze(0))[0]
    return pixels
