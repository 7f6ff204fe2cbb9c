"""Text-to-image: every code of the answer is made."""

from __future__ import annotations

from PIL.Image import Image
from torch import Tensor

from dimoo.core.requests import GenerateRequest
from dimoo.diffusion.canvas import Plan
from dimoo.presets.config import ImageSettings
from dimoo.tasks.inputs import pair, whole, words
from dimoo.tasks.job import Job, Kit
from dimoo.tasks.plans import image_plan
from dimoo.tasks.problems import text_to_image
from dimoo.tokenizers.image.resize import to_images
from dimoo.tokenizers.prompts import Grid


def generate(kit: Kit, request: GenerateRequest, settings: ImageSettings | Plan) -> Job[Image]:
    """The job of a picture from words.

    Raises:
        RequestError: the size is off the tokenizer's grid, the prompt is too long, or a value is of a wrong type.
    """
    tokenizer, (height, width) = kit.image_tokenizer, kit.image_size
    size = pair(
        (
            height if request.height is None else request.height,
            width if request.width is None else request.width,
        )
    )
    grid = Grid(modality=tokenizer.modality, shape=tokenizer.grid_for(size), codebooks=tokenizer.codebooks)
    return Job(
        problem=text_to_image(kit.prompts, words(request.prompt, "prompt"), grid),
        plans={tokenizer.modality: image_plan(settings)},
        seed=whole(request.seed, "seed"),
        read=lambda ids: decode_answer(kit, grid, ids),
    )


def decode_answer(kit: Kit, grid: Grid, ids: Tensor) -> Image:
    """The picture of an image answer's ids, int64 [n] on the CPU."""
    codes = kit.prompts.grid_of_answer(grid, ids)
    return to_images(kit.image_tokenizer.decode(codes[None]))[0]
