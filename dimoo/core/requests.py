"""What a user can ask for. Pictures are Pillow images; nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass

from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """A picture from words."""

    prompt: str
    height: int | None = None
    """Pixels; a multiple of the image tokenizer's downsampling. None: the model's own."""
    width: int | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class InpaintRequest:
    """A picture whose masked region is made anew."""

    image: Image
    mask: Image
    """As large as the image as it is stored; every pixel of at least half brightness is to be made anew.

    The image's EXIF turn goes for both. What is transparent in the mask is kept."""
    prompt: str
    """Describes the whole picture as it should be."""
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
    """The answer to a conversation, by a model with a chat template."""

    messages: tuple[Message, ...]
    """User and assistant in turn, the user last; a system message may come first."""
    tokens: int | None = None
    """Tokens planned for the answer, its end included. None: the model's own number."""
    seed: int = 0


Request = GenerateRequest | InpaintRequest | AskRequest | ChatRequest
