"""Pictures <-> their codes, many at once.

Axes: H W = pixels, h w = code grid.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from dimoo.data.example import Codes, Example, Picture, PictureT, Pixels, TaskExample
from dimoo.tokenizers.base import Tokenizer
from dimoo.tokenizers.image.resize import to_images


def encode_pictures(pictures: Iterable[Pixels], tokenizer: Tokenizer) -> dict[int, Tensor]:
    """The codes of pictures, int64 [h, w], by the `id` of each; those of one size are encoded together.

    Raises:
        RequestError: the tokenizer takes no pictures of a size.
    """
    by_shape: dict[tuple[int, ...], dict[int, Pixels]] = defaultdict(dict)
    for picture in pictures:
        by_shape[picture.shape][id(picture)] = picture
    codes: dict[int, Tensor] = {}
    for group in by_shape.values():
        stacked = np.stack([np.asarray(picture) for picture in group.values()])
        pixels = torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255
        codes.update(zip(group, tokenizer.encode(pixels), strict=True))
    return codes


def decoded(example: Example[Picture], tokenizer: Tokenizer) -> Example:
    """The example with what the tokenizer makes of the codes in it; pictures stay as they are."""

    def shown(picture: Picture) -> Pixels:
        if not isinstance(picture, Codes):
            return picture
        (image,) = to_images(tokenizer.decode(torch.from_numpy(picture.codes).long()[None]))
        return np.asarray(image)

    return converted(example, shown)


def converted(example: Example[Picture], convert: Callable[[Picture], PictureT]) -> Example[PictureT]:
    """The example with every picture converted."""

    def task(one: TaskExample[Picture]) -> TaskExample[PictureT]:
        image = None if one.image is None else convert(one.image)
        other = replace(one, images=tuple(map(convert, one.images)), image=image)
        return cast("TaskExample[PictureT]", other)  # mypy holds that `replace` keeps the kind of pictures

    image = None if example.image is None else convert(example.image)
    return Example(image=image, caption=example.caption, qa=example.qa, tasks=tuple(map(task, example.tasks)))
