"""The Dimoo object: a model with its tokenizers, and the calls that users make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

from PIL.Image import Image
from torch import nn

from dimoo.core.errors import RequestError
from dimoo.core.requests import AskRequest, GenerateRequest, InpaintRequest, Request
from dimoo.denoise import MaskPredictor
from dimoo.diffusion.canvas import Plan
from dimoo.presets.config import ImageSettings, ModelConfig, TextSettings
from dimoo.tasks.engine import Stream
from dimoo.tasks.generate import generate
from dimoo.tasks.inpaint import inpaint
from dimoo.tasks.inputs import pair, pictures, whole
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
        backbone: MaskPredictor,
        text_tokenizer: TextTokenizer,
        image_tokenizer: Tokenizer,
    ) -> None:
        self.config = config
        self.backbone = backbone
        if isinstance(backbone, nn.Module):
            backbone.eval()
        self.prompts = Prompts(text=text_tokenizer, vocabulary=config.vocabulary, template=config.template)
        self.kit = Kit(
            prompts=self.prompts,
            image_tokenizer=image_tokenizer,
            image_size=config.image_size,
            answer_tokens=config.answer_tokens,
        )

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        size: tuple[int, int] | Sequence[tuple[int, int]] | None = None,
        seed: int | Sequence[int] = 0,
        settings: ImageSettings | Plan | None = None,
    ) -> list[Image]:
        """Pictures from words, all in one batch.

        Args:
            prompts: one prompt or several.
            size: (height, width) in pixels, one for all or one for each; the model's own size by default.
            seed: one number, from which picture i gets seed + i, or one for each.
            settings: how to sample, as settings or a ready plan; the model's own settings by default.

        Raises:
            RequestError: a size is off the grid, a prompt is too long, or the numbers of prompts, sizes and seeds
                differ.
        """
        if not isinstance(prompts, Sequence):
            raise RequestError(f"prompts must be a string or a list of strings, not {type(prompts).__name__}")
        words = [prompts] if isinstance(prompts, str) else list(prompts)
        count = len(words)
        sizes = size if _several(size) else [self.config.image_size if size is None else pair(size)] * count
        seeds = seed if isinstance(seed, Sequence) else [whole(seed, "seed") + index for index in range(count)]
        for what, values in (("sizes", sizes), ("seeds", seeds)):
            if len(values) != count:
                raise RequestError(f"{count} prompts but {len(values)} {what}; give one, or one for each prompt")
        requests = [
            GenerateRequest(prompt=prompt, height=height, width=width, seed=own)
            for prompt, (height, width), own in zip(words, map(pair, sizes), seeds, strict=True)
        ]
        return self.run(requests, image=settings)

    def inpaint(
        self, image: Image, mask: Image, prompt: str, *, seed: int = 0, settings: ImageSettings | Plan | None = None
    ) -> Image:
        """The picture with the white region of `mask` made anew; every pixel outside it stays as it was.

        Raises:
            RequestError: the mask is of another size or empty, the size is off the grid, or the prompt is too long.
        """
        result: Image = self.run([InpaintRequest(image=image, mask=mask, prompt=prompt, seed=seed)], image=settings)[0]
        return result

    def ask(
        self,
        images: Image | Sequence[Image],
        question: str,
        *,
        tokens: int | None = None,
        seed: int = 0,
        settings: TextSettings | Plan | None = None,
    ) -> str:
        """The answer to a question about one or several pictures.

        Raises:
            RequestError: there is no image or question, a size is off the grid, the question is too long, or no
                token is planned for the answer.
        """
        request = AskRequest(images=pictures(images), question=question, tokens=tokens, seed=seed)
        answer: str = self.run([request], text=settings)[0]
        return answer

    def caption(self, image: Image, *, seed: int = 0, settings: TextSettings | Plan | None = None) -> str:
        """A description of a picture."""
        return self.ask(image, CAPTION_REQUEST, tokens=self.config.caption_tokens, seed=seed, settings=settings)

    def run(
        self,
        requests: Sequence[Request | Job[Any]],
        *,
        image: ImageSettings | Plan | None = None,
        text: TextSettings | Plan | None = None,
    ) -> list[Any]:
        """Any mixture of requests and sizes in one batch; a picture or a string for each, in order.

        Args:
            requests: what to do; a `Job` is a task of your own, whose result is what its `read` returns.
            image: how to sample pictures, as settings or a ready plan; the model's own settings by default.
            text: the same for text.

        Raises:
            RequestError: a request cannot be served, or is none.
        """
        return self.stream(requests, image=image, text=text).results()

    def stream(
        self,
        requests: Sequence[Request | Job[Any]],
        *,
        image: ImageSettings | Plan | None = None,
        text: TextSettings | Plan | None = None,
    ) -> Stream[Any]:
        """The same step by step: iterate over the states, stop to cancel; `results` takes the steps that are left."""
        if not isinstance(requests, Sequence) or isinstance(requests, str):
            raise RequestError(f"requests must be a list, not {type(requests).__name__}; for one write [request]")
        picture = self.config.image if image is None else image
        words = self.config.text if text is None else text
        jobs = [self._job(request, picture, words) for request in requests]
        return Stream(self.backbone, self.config.vocabulary, jobs)

    def _job(self, request: Request | Job[Any], image: ImageSettings | Plan, text: TextSettings | Plan) -> Job[Any]:
        match request:
            case Job():
                return request
            case GenerateRequest():
                return generate(self.kit, request, image)
            case InpaintRequest():
                return inpaint(self.kit, request, image)
            case AskRequest():
                return ask(self.kit, request, text)
            case _:
                raise RequestError(
                    f"a request is a GenerateRequest, InpaintRequest, AskRequest or Job, not {type(request).__name__}"
                )


def _several(size: object) -> TypeGuard[Sequence[Sequence[int]]]:
    """Whether it is a size for each picture, not one for all."""
    return isinstance(size, Sequence) and all(isinstance(entry, Sequence) for entry in size)
