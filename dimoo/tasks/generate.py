"""Text-to-image: every code of the answer is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

from PIL.Image import Image
from torch import Tensor

from dimoo.core.errors import RequestError
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
        RequestError: the model knows text only, the size is off the tokenizer's grid, the prompt is too long, or a
            value is of a wrong type.
    """
    tokenizer, (height, width) = kit.pictures, kit.image_size
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


def as_requests(
    prompts: str | Sequence[str], *, size: tuple[int, int] | Sequence[tuple[int, int]], seed: int | Sequence[int]
) -> list[GenerateRequest]:
    """One request for each prompt.

    Args:
        prompts: one or several.
        size: (height, width) in pixels, one for all or one for each.
        seed: one number, from which prompt i gets seed + i, or one for each.

    Raises:
        RequestError: the numbers of prompts, sizes and seeds differ, or a value is of a wrong type.
    """
    if not isinstance(prompts, Sequence):
        raise RequestError(f"prompts must be a string or a list of strings, not {type(prompts).__name__}")
    words = [prompts] if isinstance(prompts, str) else list(prompts)
    count = len(words)
    sizes = size if _several(size) else [pair(size)] * count
    seeds = seed if isinstance(seed, Sequence) else [whole(seed, "seed") + index for index in range(count)]
    for what, values in (("sizes", sizes), ("seeds", seeds)):
        if len(values) != count:
            raise RequestError(f"{count} prompts but {len(values)} {what}; give one, or one for each prompt")
    return [
        GenerateRequest(prompt=prompt, height=height, width=width, seed=own)
        for prompt, (height, width), own in zip(words, map(pair, sizes), seeds, strict=True)
    ]


def _several(size: object) -> TypeGuard[Sequence[Sequence[int]]]:
    """Whether it is a size for each picture, not one for all."""
    return isinstance(size, Sequence) and all(isinstance(entry, Sequence) for entry in size)


def decode_answer(kit: Kit, grid: Grid, ids: Tensor) -> Image:
    """The picture of an image answer's ids, int64 [n] on the CPU."""
    codes = kit.prompts.grid_of_answer(grid, ids)
    return to_images(kit.pictures.decode(codes[None]))[0]
