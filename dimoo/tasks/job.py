"""A job: a request in tokens, how to denoise it, and how to read the answer back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from PIL.Image import Image
from torch import Tensor

from dimoo.diffusion.canvas import Plan
from dimoo.tasks.problem import Problem
from dimoo.tokenizers.base import Tokenizer
from dimoo.tokenizers.image.resize import to_pixels
from dimoo.tokenizers.prompts import Grid, Prompts

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, kw_only=True)
class Kit:
    """What tasks need of a model to translate requests: no backbone among it."""

    prompts: Prompts
    image_tokenizer: Tokenizer
    image_size: tuple[int, int]
    """(height, width) in pixels where a request names none."""
    answer_tokens: int
    """Tokens planned for an answer where a request names no number."""

    def encode(self, image: Image) -> Tensor:
        """The codes of a picture, int64 [h, w] (or [h, w, codebooks]) on the CPU.

        Raises:
            RequestError: the picture's size is off the tokenizer's grid.
        """
        self.image_tokenizer.grid_for((image.height, image.width))
        return self.image_tokenizer.encode(to_pixels([image]))[0].cpu()

    def grid(self, image: Image) -> Grid:
        """A picture as a grid of known codes.

        Raises:
            RequestError: the picture's size is off the tokenizer's grid.
        """
        return Grid.of(self.image_tokenizer.modality, self.encode(image), self.image_tokenizer.codebooks)


@dataclass(frozen=True, kw_only=True, eq=False)
class Job(Generic[ResultT]):
    """One request, ready to be denoised next to any others."""

    problem: Problem
    plans: Mapping[str, Plan]
    """How to denoise the targets, by modality."""
    seed: int
    read: Callable[[Tensor], ResultT]
    """The answer's ids, int64 [n] on the CPU -> the result."""
