"""What records tell of besides requests: choices, and sessions of several steps."""

from __future__ import annotations

from dataclasses import dataclass

from PIL.Image import Image

from dimoo.core.requests import Mark
from dimoo.diffusion.canvas import Plan
from dimoo.presets.config import ImageSettings


@dataclass(frozen=True, kw_only=True)
class Choosing:
    """Which of several answers is likeliest; see `Dimoo.choose`."""

    images: tuple[Image, ...]
    question: str
    choices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a retouching session: what `Retouching.retouch` was called with, its defaults filled in."""

    marks: tuple[Mark, ...]
    prompt: str | None
    feather: int
    negative: str | None
    seed: int
    settings: ImageSettings | Plan


@dataclass(frozen=True, kw_only=True)
class Session:
    """A retouching session: the picture that was opened, and what was done to it, the first step first."""

    image: Image
    steps: tuple[Step, ...]
