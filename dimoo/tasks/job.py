"""A job: a request in tokens, how to denoise it, and how to read the answer back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from dimoo.core.errors import RequestError
from dimoo.denoise import Cache, NoCache
from dimoo.diffusion.canvas import Plan
from dimoo.presets.tasks import TaskText
from dimoo.tasks.inputs import whole
from dimoo.tasks.problem import Problem
from dimoo.tasks.regions import touched
from dimoo.tasks.unencoded import Unencoded
from dimoo.tokenizers.base import Tokenizer
from dimoo.tokenizers.chat import Chat
from dimoo.tokenizers.image.resize import bucket_for, buckets, cover_crop, to_images, to_pixels
from dimoo.tokenizers.prompts import Grid, Prompts

ResultT = TypeVar("ResultT")
OtherT = TypeVar("OtherT")
NOT_YET = 0.5
"""Brightness of what is not made yet, in previews."""


@dataclass(frozen=True, kw_only=True)
class Kit:
    """What tasks need of a model to translate requests: no backbone among it."""

    prompts: Prompts
    image_tokenizer: Tokenizer | None
    """None: the model knows text only. Tasks about pictures take it by `pictures`."""
    chat: Chat | None
    """None: the model has no chat template."""
    image_size: tuple[int, int]
    """(height, width) in pixels where a request names none."""
    answer_tokens: int
    """Tokens planned for an answer where a request names no number."""
    caption_tokens: int
    """Tokens planned for a caption, or for words that come with a picture or without one to look at."""
    tasks: Mapping[str, TaskText]
    """What the model can be asked, and how it is said."""
    max_tokens: int | None = None
    """What a request and its answer may take together; None: no bound."""
    input_targets: tuple[int, int] | None = None
    """Bucket targets of pictures that are given: (one that is asked about, all others); None: taken as they are."""

    @cached_property
    def fingerprints(self) -> tuple[str, ...]:
        """Of the tokenizers, for which all their weights are read."""
        image = self.image_tokenizer
        return (self.prompts.text.fingerprint, *([] if image is None else [image.fingerprint]))

    @cached_property
    def unencoded(self) -> Kit:
        """A kit that refuses what this one refuses and reads no picture: the codes of all that are given are 0."""
        image = self.image_tokenizer
        return self if image is None else replace(self, image_tokenizer=Unencoded(image))

    @property
    def pictures(self) -> Tokenizer:
        """The image tokenizer.

        Raises:
            RequestError: the model knows text only.
        """
        if self.image_tokenizer is None:
            raise RequestError(
                'this model knows text only; for pictures load a multimodal one, as "mini", or add an image tokenizer'
                " with dimoo.grow and train it"
            )
        return self.image_tokenizer

    def planned(self, tokens: int | None, *, usual: int | None = None) -> int:
        """How many tokens an answer gets: as many as are asked for, or as usual, or the model's own number.

        Raises:
            RequestError: it is no whole number, or below 1.
        """
        count = (usual or self.answer_tokens) if tokens is None else whole(tokens, "tokens")
        if count < 1:
            raise RequestError(f"an answer of {count} tokens cannot hold anything; plan at least 1")
        return count

    def fitted(self, images: Sequence[Image], *, asked: bool) -> list[Image]:
        """Pictures as the model was taught to look at them: cropped to its buckets, or as they are if it has none.

        A single picture that is asked about is looked at more closely than several, or one to make another from.
        """
        if self.input_targets is None:
            return list(images)
        one, several = self.input_targets
        sizes = buckets(one if asked and len(images) == 1 else several)
        return [cover_crop(image, bucket_for((image.height, image.width), sizes)) for image in images]

    def encode(self, image: Image) -> Tensor:
        """The codes of a picture, int64 [h, w] (or [h, w, codebooks]) on the CPU.

        Raises:
            RequestError: the model knows text only, or the picture's size is off the tokenizer's grid.
        """
        self.pictures.grid_for((image.height, image.width))
        return self.pictures.encode(to_pixels([image]))[0].cpu()

    def grid(self, image: Image) -> Grid:
        """A picture as a grid of known codes.

        Raises:
            RequestError: the model knows text only, or the picture's size is off the tokenizer's grid.
        """
        return Grid.of(self.pictures.modality, self.encode(image), self.pictures.codebooks)

    def blank(self, size: tuple[int, int]) -> Grid:
        """The grid of a picture (height, width) that is to be made.

        Raises:
            RequestError: the model knows text only, or the size is off the tokenizer's grid.
        """
        tokenizer = self.pictures
        return Grid(modality=tokenizer.modality, shape=tokenizer.grid_for(size), codebooks=tokenizer.codebooks)

    def remade(self, region: NDArray[np.bool_]) -> Tensor:
        """The codes that have a pixel in a region bool [H, W]: bool [h, w]."""
        return torch.from_numpy(touched(region, self.pictures.downsampling))

    def decode(self, codes: Tensor) -> Image:
        """The picture of codes int64 [h, w] (or [h, w, codebooks]); where a code is -1 it is grey."""
        missing = codes == -1
        pixels = self.pictures.decode(torch.where(missing, 0, codes)[None]).cpu()
        if bool(missing.any()):
            unmade = missing if self.pictures.codebooks == 1 else missing.any(-1)
            down, across = self.pictures.downsampling
            blank = unmade.repeat_interleave(down, 0).repeat_interleave(across, 1)
            pixels = torch.where(blank, NOT_YET, pixels)
        return to_images(pixels)[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Job(Generic[ResultT]):
    """One request, ready to be denoised next to any others."""

    problem: Problem
    plans: Mapping[str, Plan]
    """How to denoise the targets, by modality."""
    seed: int
    read: Callable[[Tensor], ResultT]
    """The answer's ids, int64 [n] on the CPU -> the result."""
    preview: Callable[[Tensor], ResultT] | None = None
    """The same while some ids are still masks: a look at the result on its way. None: there is none."""
    cache: Cache = field(default_factory=NoCache)
    """What need not be computed again at every step."""

    def then(self, finish: Callable[[ResultT], OtherT]) -> Job[OtherT]:
        """The same job with something done to its result, and to its previews."""
        read, preview = self.read, self.preview
        return Job(
            problem=self.problem,
            plans=self.plans,
            seed=self.seed,
            read=lambda ids: finish(read(ids)),
            preview=None if preview is None else lambda ids: finish(preview(ids)),
            cache=self.cache,
        )
