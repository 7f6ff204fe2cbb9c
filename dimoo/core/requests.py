"""What a user can ask for. Pictures are Pillow images; nothing here needs torch.

Any request may be run next to any others. `seed` names all its draws; `negative` is what guidance leads away from, in
place of nothing. A size that is None is the model's own, or that of the picture that the task starts from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """A picture from words."""

    prompt: str
    height: int | None = None
    """Pixels; a multiple of the image tokenizer's downsampling. None: the model's own."""
    width: int | None = None
    negative: str | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class TaskRequest:
    """Any task of the model's table (`ModelConfig.tasks`): words and pictures in, a picture or words or both out."""

    task: str
    """A key of the table, as "edit"."""
    words: str = ""
    """What the user says: an instruction, a prompt, a question."""
    option: str = ""
    """One of the task's options, as "canny"."""
    images: tuple[Image, ...] = ()
    height: int | None = None
    width: int | None = None
    tokens: int | None = None
    """Tokens planned for an answer in words, its end included. None: the model's own number."""
    negative: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of the upright picture; right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Polygon:
    """A closed outline: points (x, y) in pixels of the upright picture, (0, 0) its upper left corner.

    A pixel is inside if its centre is, by the even-odd rule; what reaches over the border of the picture is cut off.
    """

    points: Sequence[tuple[float, float]]


Mark: TypeAlias = Box | Polygon | Image
"""What selects pixels. A picture is a brush mask: bright is selected, transparent is not."""


@dataclass(frozen=True, kw_only=True)
class InpaintRequest:
    """A picture whose masked region is made anew."""

    image: Image
    mask: Image
    """As large as the image as it is stored; every pixel of at least half brightness is to be made anew.

    The image's EXIF turn goes for both. What is transparent in the mask is kept."""
    prompt: str
    """Describes the whole picture as it should be."""
    negative: str | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class OutpaintRequest:
    """A picture continued beyond its sides, on a larger canvas. May be repeated on its result."""

    image: Image
    prompt: str
    """Describes the whole picture as it should be."""
    left: int = 0
    """Pixels to add; multiples of the image tokenizer's downsampling."""
    right: int = 0
    top: int = 0
    bottom: int = 0
    negative: str | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class RetouchRequest:
    """A picture in which one or several marked regions are made anew, each pixel outside them kept."""

    image: Image
    marks: tuple[Mark, ...]
    """Boxes, polygons and brush masks; together they are the region."""
    prompt: str | None = None
    """What should be there. None: whatever fits."""
    feather: int = 0
    """Pixels inside the region over which the new picture fades in, so that no seam shows."""
    negative: str | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class AskRequest:
    """Words about pictures."""

    images: tuple[Image, ...]
    question: str
    tokens: int | None = None
    """Tokens planned for the answer, its end included. None: the model's own number."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: str
    """"system", "user" or "assistant"."""
    content: str


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """The answer to a conversation: by the model's chat template, or in its own words where it has none."""

    messages: tuple[Message, ...]
    """User and assistant in turn, the user last; a system message may come first. A model without a chat template
    takes one message."""
    tokens: int | None = None
    """Tokens planned for the answer, its end included. None: the model's own number."""
    seed: int = 0


@dataclass(frozen=True)
class Masked:
    """A picture of which a part is to be made anew: the answer's first picture starts from it."""

    image: Image
    marks: tuple[Mark, ...]


@dataclass(frozen=True, kw_only=True)
class PictureAnswer:
    """A picture is to be made."""

    height: int | None = None
    width: int | None = None


@dataclass(frozen=True, kw_only=True)
class TextAnswer:
    """Words are to be made."""

    tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class InterleavedRequest:
    """A message of words and pictures in any order, and what is wanted back, in order; all of it denoised together."""

    parts: tuple[str | Image | Masked, ...]
    answer: tuple[PictureAnswer | TextAnswer, ...]
    family: str = "other"
    """The task family, a key of the prompt template's `systems`."""
    negative: str | None = None
    seed: int = 0


Request = (
    GenerateRequest
    | TaskRequest
    | InpaintRequest
    | OutpaintRequest
    | RetouchRequest
    | AskRequest
    | ChatRequest
    | InterleavedRequest
)
