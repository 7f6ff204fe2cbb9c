"""Text-to-image: every code of the answer is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

from PIL.Image import Image

from dimoo.core.errors import RequestError
from dimoo.core.requests import GenerateRequest, TaskRequest
from dimoo.tasks.compose import Settings
from dimoo.tasks.inputs import pair, whole
from dimoo.tasks.job import Job, Kit
from dimoo.tasks.table import run_entry


def generate(kit: Kit, request: GenerateRequest, settings: Settings) -> Job[Image]:
    """The job of a picture from words.

    Raises:
        RequestError: the model knows text only, the size is off the tokenizer's grid, the prompt is too long, or a
            value is of a wrong type.
    """
    return run_entry(
        kit,
        TaskRequest(
            task="generate",
            words=request.prompt,
            height=request.height,
            width=request.width,
            negative=request.negative,
            seed=request.seed,
        ),
        settings,
    )


def as_requests(
    prompts: str | Sequence[str],
    *,
    size: tuple[int, int] | Sequence[tuple[int, int]],
    seed: int | Sequence[int],
    negative: str | None = None,
    num_images: int = 1,
) -> list[GenerateRequest]:
    """Requests for `num_images` pictures of each prompt, those of one prompt side by side.

    Args:
        prompts: one or several.
        size: (height, width) in pixels, one for all or one for each prompt.
        seed: one number, from which picture i of all gets seed + i; or one for each prompt, whose pictures count on
            from it.
        negative: what guidance leads away from, for all.
        num_images: pictures of each prompt.

    Raises:
        RequestError: the numbers of prompts, sizes and seeds differ, or a value is of a wrong type.
    """
    if not isinstance(prompts, Sequence):
        raise RequestError(f"prompts must be a string or a list of strings, not {type(prompts).__name__}")
    words = [prompts] if isinstance(prompts, str) else list(prompts)
    count, copies = len(words), whole(num_images, "num_images")
    if copies < 1:
        raise RequestError(f"num_images is {copies}; ask for at least 1")
    sizes = size if _several(size) else [pair(size)] * count
    seeds = seed if isinstance(seed, Sequence) else [whole(seed, "seed") + index * copies for index in range(count)]
    for what, values in (("sizes", sizes), ("seeds", seeds)):
        if len(values) != count:
            raise RequestError(f"{count} prompts but {len(values)} {what}; give one, or one for each prompt")
    return [
        GenerateRequest(prompt=prompt, height=height, width=width, negative=negative, seed=whole(own, "seed") + copy)
        for prompt, (height, width), own in zip(words, map(pair, sizes), seeds, strict=True)
        for copy in range(copies)
    ]


def _several(size: object) -> TypeGuard[Sequence[Sequence[int]]]:
    """Whether it is a size for each picture, not one for all."""
    return isinstance(size, Sequence) and all(isinstance(entry, Sequence) for entry in size)
