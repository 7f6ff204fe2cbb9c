"""The Dimoo object: a model with its tokenizers, and the calls that users make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from PIL.Image import Image
from typing_extensions import assert_never

from dimoo.backbone.model import Backbone
from dimoo.core.errors import RequestError
from dimoo.core.requests import AskRequest, GenerateRequest, InpaintRequest, Request
from dimoo.diffusion.sampler import State
from dimoo.tasks import engine
from dimoo.tasks.config import ImageSettings, ModelConfig, TextSettings
from dimoo.tasks.generate import generate
from dimoo.tasks.inpaint import inpaint
from dimoo.tasks.job import Job, Kit
from dimoo.tasks.problems import CAPTION_REQUEST
from dimoo.tasks.understand import ask
from dimoo.tokenizers.base import Tokenizer
from dimoo.tokenizers.prompts import Prompts
from dimoo.tokenizers.text import TextTokenizer


class Dimoo:
    """A masked diffusion model over text and images. `dimoo.load` makes one.

    Every call takes a seed; the same seed gives the same result, alone or in a batch.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        backbone: Backbone,
        text_tokenizer: TextTokenizer,
        image_tokenizer: Tokenizer,
    ) -> None:
        self.config = config
        self.backbone = backbone.eval()
        self.prompts = Prompts(text=text_tokenizer, vocabulary=config.vocabulary, template=config.template)
        self.kit = Kit(
            prompts=self.prompts, image_tokenizer=image_tokenizer, device=backbone.embedding.weight.device
        )

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        size: tuple[int, int] | Sequence[tuple[int, int]] | None = None,
        seed: int | Sequence[int] = 0,
        settings: ImageSettings | None = None,
    ) -> list[Image]:
        """Pictures from words, all in one batch.

        Args:
            prompts: one prompt or several.
            size: (height, width) in pixels, one for all or one for each; the model's own size by default.
            seed: one number, from which picture i gets seed + i, or one for each.
            settings: how to sample; the model's own settings by default.

        Raises:
            RequestError: a size is off the grid, a prompt is too long, or the numbers of prompts, sizes and seeds
                differ.
        """
        words = [prompts] if isinstance(prompts, str) else list(prompts)
        sizes = _each(self.config.image_size if size is None else size, len(words), "sizes")
        seeds = [seed + index for index in range(len(words))] if isinstance(seed, int) else list(seed)
        if len(seeds) != len(words):
            raise RequestError(
                f"{len(words)} prompts but {len(seeds)} seeds; give one seed, or one for each prompt"
            )
        requests = [
            GenerateRequest(prompt=prompt, height=height, width=width, seed=own)
            for prompt, (height, width), own in zip(words, sizes, seeds, strict=True)
        ]
        return self.run(requests, image=settings)

    def inpaint(
        self, image: Image, mask: Image, prompt: str, *, seed: int = 0, settings: ImageSettings | None = None
    ) -> Image:
        """The picture with the white region of `mask` made anew; every pixel outside it stays as it was.

        Raises:
            RequestError: the mask is of another size or empty, the size is off the grid, or the prompt is too long.
        """
        result: Image = self.run(
            [InpaintRequest(image=image, mask=mask, prompt=prompt, seed=seed)], image=settings
        )[0]
        return result

    def ask(
        self,
        images: Image | Sequence[Image],
        question: str,
        *,
        tokens: int | None = None,
        seed: int = 0,
        settings: TextSettings | None = None,
    ) -> str:
        """The answer to a question about one or several pictures.

        Raises:
            RequestError: there is no image or question, a size is off the grid, the question is too long, or no
                token is planned for the answer.
        """
        pictures = (images,) if isinstance(images, Image) else tuple(images)
        planned = self.config.answer_tokens if tokens is None else tokens
        request = AskRequest(images=pictures, question=question, tokens=planned, seed=seed)
        answer: str = self.run([request], text=settings)[0]
        return answer

    def caption(self, image: Image, *, seed: int = 0, settings: TextSettings | None = None) -> str:
        """A description of a picture."""
        return self.ask(
            image, CAPTION_REQUEST, tokens=self.config.caption_tokens, seed=seed, settings=settings
        )

    def run(
        self,
        requests: Sequence[Request],
        *,
        image: ImageSettings | None = None,
        text: TextSettings | None = None,
    ) -> list[Any]:
        """Any mixture of requests and sizes in one batch; a picture or a string for each, in order."""
        return engine.run(self.backbone, self.config.vocabulary, self._jobs(requests, image, text))

    def stream(
        self,
        requests: Sequence[Request],
        *,
        image: ImageSettings | None = None,
        text: TextSettings | None = None,
    ) -> Iterator[State]:
        """The states of the same denoising, step by step; stop iterating to cancel."""
        jobs = self._jobs(requests, image, text)
        canvas = engine.start(self.config.vocabulary, jobs, self.backbone.embedding.weight.device)
        return engine.stream(self.backbone, canvas, jobs)

    def _jobs(
        self, requests: Sequence[Request], image: ImageSettings | None, text: TextSettings | None
    ) -> list[Job[Any]]:
        return [
            self._job(request, image or self.config.image, text or self.config.text) for request in requests
        ]

    def _job(self, request: Request, image: ImageSettings, text: TextSettings) -> Job[Any]:
        match request:
            case GenerateRequest():
                return generate(self.kit, request, image)
            case InpaintRequest():
                return inpaint(self.kit, request, image)
            case AskRequest():
                return ask(self.kit, request, text)
            case _:
                assert_never(request)


def _each(
    size: tuple[int, int] | Sequence[tuple[int, int]], count: int, what: str
) -> Sequence[tuple[int, int]]:
    """One size for each of `count` requests."""
    first = size[0]
    if isinstance(first, int):
        return [(first, int(size[1]))] * count  # type: ignore[arg-type]
    sizes: list[tuple[int, int]] = [(int(height), int(width)) for height, width in size]  # type: ignore[misc]
    if len(sizes) != count:
        raise RequestError(f"{count} prompts but {len(sizes)} {what}; give one, or one for each prompt")
    return sizes
