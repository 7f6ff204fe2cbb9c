"""Pictures, masks and requests for the task tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from dimoo.core.requests import AskRequest, GenerateRequest, InpaintRequest, Request
from dimoo.tasks.model import Dimoo
from dimoo.tokenizers.base import Tokenizer


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Noise: every pixel tells."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def box(height: int, width: int, corners: tuple[int, int, int, int]) -> Image.Image:
    """A mask, white inside (left, top, right, bottom)."""
    mask = Image.new("L", (width, height), 0)
    mask.paste(255, corners)
    return mask


def mixture() -> list[Request]:
    """Every task, prompts and pictures of different lengths and sizes."""
    return [
        GenerateRequest(prompt="a red apple", height=16, width=16, seed=1),
        InpaintRequest(image=picture(24, 16), mask=box(24, 16, (0, 0, 9, 16)), prompt="a cat left of two dogs", seed=2),
        AskRequest(images=(picture(16, 24, 1),), question="what is left of the apple ?", tokens=5, seed=3),
        GenerateRequest(prompt="two green apples on a blue and white background", height=24, width=40, seed=4),
        AskRequest(images=(picture(8, 8, 2), picture(16, 8, 3)), question="which ?", tokens=3, seed=5),
        GenerateRequest(prompt="", height=16, width=16, seed=1),
    ]


def equal(one: object, two: object) -> bool:
    """Whether two results, pictures or words, are the same to the last bit."""
    if isinstance(one, Image.Image) and isinstance(two, Image.Image):
        return one.size == two.size and one.tobytes() == two.tobytes()
    return one == two


def all_equal(one: Sequence[object], two: Sequence[object]) -> bool:
    """Whether two lists of results are the same."""
    return len(one) == len(two) and all(map(equal, one, two))


class Spy:
    """A network that keeps the sequences of every call."""

    def __init__(self, network):
        self.network, self.device, self.vocab_size = network, network.device, network.vocab_size
        self.seen: list[list[list[int]]] = []

    def __call__(self, tokens, layout):
        self.seen.append([part.tolist() for part in tokens.split(list(layout.query_lengths))])
        return self.network(tokens, layout)

    def head(self, rows, columns=None):
        return self.network.head(rows, columns)


class Idle:
    """A network that must not be asked."""

    def __init__(self, network):
        self.device, self.vocab_size = network.device, network.vocab_size

    def __call__(self, tokens, layout):
        raise AssertionError("the network was asked")

    def head(self, rows, columns=None):
        raise AssertionError("the network was asked")


def served_by(model: Dimoo, network: object, *, tokenizer: Tokenizer | None = None, **changes: object) -> Dimoo:
    """The model with another network, perhaps another image tokenizer, and with changes to its config."""
    return Dimoo(
        model.config.model_copy(update=changes),
        backbone=network,
        text_tokenizer=model.prompts.text,
        image_tokenizer=model.kit.image_tokenizer if tokenizer is None else tokenizer,
    )
