"""The pictures of files, brought to sizes that a model is taught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from dimoo.data.config import BUCKET_UNIT
from dimoo.data.example import Example, FileSource, Picture, Pixels, TaskExample, pixels_of
from dimoo.data.rows import same_shape
from dimoo.tokenizers.image.resize import bucket_for, buckets, cover_crop


def sizes_of(size: tuple[int, int] | int) -> tuple[tuple[int, int], ...]:
    """The (height, width) that pictures may have: the one, or the buckets of about `size` x `size` pixels.

    Raises:
        RequestError: a number is not a multiple of the buckets' unit; see `buckets`.
    """
    return buckets(size, unit=BUCKET_UNIT) if isinstance(size, int) else (size,)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A source whose pictures are scaled to cover one of some sizes and cropped at their centre.

    Each takes the size that it fills best. The answer's picture of a task takes the size and the crop of the request's
    first picture where both are of one shape, so that an edited picture lies on its source (SPEC section 7, mistake 9).
    """

    source: FileSource
    sizes: Sequence[tuple[int, int]]
    """(height, width) in pixels."""

    @property
    def size(self) -> int | None:
        """The source's."""
        return self.source.size

    def file_sizes(self, index: int) -> list[int]:
        """The source's."""
        return self.source.file_sizes(index)

    def example(self, index: int) -> Example[Picture]:
        """The example at an index, its pictures fitted.

        Raises:
            IndexError: the index is out of range.
            DataError: a picture is stored as codes, or cannot be read any more.
        """
        example = self.source.example(index)
        done: dict[tuple[int, tuple[int, int]], Pixels] = {}

        def fit(picture: Picture, like: Picture) -> Pixels:
            pixels = pixels_of(picture)
            height, width, _ = pixels_of(like).shape
            key = (id(picture), bucket_for((height, width), self.sizes))
            if key not in done:  # one that several tasks share stays one
                done[key] = np.asarray(cover_crop(Image.fromarray(pixels), key[1]), dtype=np.uint8)
            return done[key]

        def task(one: TaskExample[Picture]) -> TaskExample[Picture]:
            image = one.image
            if image is not None:
                image = fit(image, one.images[0] if one.images and same_shape(one.images[0], image) else image)
            return replace(one, images=tuple(fit(picture, picture) for picture in one.images), image=image)

        image = None if example.image is None else fit(example.image, example.image)
        return replace(example, image=image, tasks=tuple(map(task, example.tasks)))
