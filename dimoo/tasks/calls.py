"""The calls that users make, one for each task: each writes a request and runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from PIL.Image import Image

from dimoo.core.requests import (
    AskRequest,
    ChatRequest,
    InpaintRequest,
    Mark,
    Message,
    OutpaintRequest,
    Request,
    RetouchRequest,
    TaskRequest,
)
from dimoo.diffusion.canvas import Plan
from dimoo.presets.config import ImageSettings, ModelConfig, TextSettings
from dimoo.tasks.chat import as_messages
from dimoo.tasks.generate import as_requests
from dimoo.tasks.inputs import pair, pictures
from dimoo.tasks.job import Job
from dimoo.tasks.problems import CAPTION_REQUEST

How = ImageSettings | Plan | None
"""How to sample pictures, as settings or a ready plan; None: the model's own settings."""
HowText = TextSettings | Plan | None
"""The same for words."""
_T = TypeVar("_T")


class Calls(ABC):
    """One method per task, over `run`. All take a `seed`, and `settings` where the model's own are not wanted.

    Every call raises `RequestError` before anything is computed, where the model was not taught the task, a size is off
    the image tokenizer's grid, a text is too long, or a value is of a wrong type.
    """

    config: ModelConfig

    @abstractmethod
    def run(
        self,
        requests: Sequence[Request | Job[Any]],
        *,
        image: ImageSettings | Plan | None = None,
        text: TextSettings | Plan | None = None,
    ) -> list[Any]:
        """The results of requests, in order."""

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        size: tuple[int, int] | Sequence[tuple[int, int]] | None = None,
        num_images: int = 1,
        negative: str | None = None,
        seed: int | Sequence[int] = 0,
        settings: How = None,
    ) -> list[Image]:
        """Pictures from words, all in one batch; those of one prompt side by side.

        Args:
            prompts: one prompt or several.
            size: (height, width) in pixels, one for all or one for each prompt; the model's own by default.
            num_images: pictures of each prompt.
            negative: what guidance leads away from.
            seed: one number, from which picture i gets seed + i, or one for each prompt.
            settings: how to sample, as settings or a ready plan; the model's own settings by default.

        Raises:
            RequestError: a size is off the grid, a prompt is too long, or the numbers of prompts, sizes and seeds
                differ.
        """
        shape = self.config.image_size if size is None else size
        requests = as_requests(prompts, size=shape, seed=seed, negative=negative, num_images=num_images)
        return self.run(requests, image=settings)

    def edit(
        self, image: Image, instruction: str, *, negative: str | None = None, seed: int = 0, settings: How = None
    ) -> Image:
        """The picture after an instruction, as "remove the cat"."""
        return self._task("edit", instruction, (image,), negative=negative, seed=seed, settings=settings)

    def subject(
        self,
        images: Image | Sequence[Image],
        prompt: str,
        *,
        size: tuple[int, int] | None = None,
        negative: str | None = None,
        seed: int = 0,
        settings: How = None,
    ) -> Image:
        """A new picture, (height, width) as `size` says, of the subject of one or several reference pictures."""
        seen = pictures(images)
        return self._task("subject", prompt, seen, size=size, negative=negative, seed=seed, settings=settings)

    def stylize(
        self, image: Image, style: Image | str, *, negative: str | None = None, seed: int = 0, settings: How = None
    ) -> Image:
        """The picture in the style of another one, or in a style that is named: "make it grey"."""
        if isinstance(style, str):
            return self._task("restyle", style, (image,), negative=negative, seed=seed, settings=settings)
        return self._task("style", "", (image, style), negative=negative, seed=seed, settings=settings)

    def control(
        self,
        map: Image,
        kind: str,
        prompt: str,
        *,
        negative: str | None = None,
        seed: int = 0,
        settings: How = None,
    ) -> Image:
        """A picture from words and a map of a kind that the model knows, as "canny"; `dimoo.conditions` makes maps."""
        return self._task("control", prompt, (map,), option=kind, negative=negative, seed=seed, settings=settings)

    def predict(
        self, image: Image, kind: str, *, negative: str | None = None, seed: int = 0, settings: How = None
    ) -> Image:
        """The map of a picture (dense prediction), of a kind that the model knows, as "depth"."""
        return self._task("predict", "", (image,), option=kind, negative=negative, seed=seed, settings=settings)

    def view(
        self, image: Image, view: str, *, negative: str | None = None, seed: int = 0, settings: How = None
    ) -> Image:
        """What the picture shows, seen from another side."""
        return self._task("view", "", (image,), option=view, negative=negative, seed=seed, settings=settings)

    def inpaint(
        self,
        image: Image,
        mask: Image,
        prompt: str,
        *,
        negative: str | None = None,
        seed: int = 0,
        settings: How = None,
    ) -> Image:
        """The picture with the white region of `mask` made anew; every pixel outside it stays as it was.

        Raises:
            RequestError: the mask is of another size or empty, the size is off the grid, or the prompt is too long.
        """
        request = InpaintRequest(image=image, mask=mask, prompt=prompt, negative=negative, seed=seed)
        return self._one(request, Image, image=settings)

    def outpaint(
        self,
        image: Image,
        prompt: str,
        *,
        left: int = 0,
        right: int = 0,
        top: int = 0,
        bottom: int = 0,
        negative: str | None = None,
        seed: int = 0,
        settings: How = None,
    ) -> Image:
        """The picture continued on a larger canvas, as many pixels on each side; it stays as it is in the middle."""
        request = OutpaintRequest(
            image=image, prompt=prompt, left=left, right=right, top=top, bottom=bottom, negative=negative, seed=seed
        )
        return self._one(request, Image, image=settings)

    def retouch(
        self,
        image: Image,
        marks: Mark | Sequence[Mark],
        prompt: str | None = None,
        *,
        feather: int = 0,
        negative: str | None = None,
        seed: int = 0,
        settings: How = None,
    ) -> Image:
        """The picture with marked regions made anew; see `RetouchRequest`, and `dimoo.Retouching` to go on and undo.

        Raises:
            RequestError: there is no mark, one reaches out of the picture, the size is off the grid, or the prompt is
                too long.
        """
        several = tuple(marks) if isinstance(marks, Sequence) else (marks,)
        request = RetouchRequest(
            image=image, marks=several, prompt=prompt, feather=feather, negative=negative, seed=seed
        )
        return self._one(request, Image, image=settings)

    def ask(
        self,
        images: Image | Sequence[Image],
        question: str,
        *,
        tokens: int | None = None,
        seed: int = 0,
        settings: HowText = None,
    ) -> str:
        """The answer to a question about one or several pictures.

        Raises:
            RequestError: there is no image or question, a size is off the grid, the question is too long, or no
                token is planned for the answer.
        """
        request = AskRequest(images=pictures(images), question=question, tokens=tokens, seed=seed)
        return self._one(request, str, text=settings)

    def caption(self, image: Image, *, seed: int = 0, settings: HowText = None) -> str:
        """A description of a picture."""
        return self.ask(image, CAPTION_REQUEST, seed=seed, settings=settings)

    def chat(
        self,
        messages: str | Sequence[Message | Mapping[str, str]],
        *,
        tokens: int | None = None,
        seed: int = 0,
        settings: HowText = None,
    ) -> str:
        """The answer to a message, or to the last one of a conversation.

        Args:
            messages: a string, or the turns so far: `Message` objects or mappings with `role` and `content`; user and
                assistant in turn, the user last, a system message first if there is one. A model without a chat
                template, as "mini", takes one message.
            tokens: planned for the answer, the model's own number by default.
            seed: names the draws.
            settings: how to sample, as settings or a ready plan; the model's own settings by default.

        Raises:
            RequestError: the model cannot chat, the turns are in another order, no token is planned for the
                answer, or both together are longer than the model takes.
            CheckpointError: the model's chat template cannot render the conversation.
        """
        request = ChatRequest(messages=as_messages(messages), tokens=tokens, seed=seed)
        return self._one(request, str, text=settings)

    def illustrate(
        self,
        prompt: str,
        *,
        size: tuple[int, int] | None = None,
        tokens: int | None = None,
        negative: str | None = None,
        seed: int = 0,
        image: How = None,
        text: HowText = None,
    ) -> tuple[Image, str]:
        """A picture and words about it, denoised together so that each sees the other."""
        height, width = (None, None) if size is None else pair(size)
        request = TaskRequest(
            task="illustrate",
            words=prompt,
            height=height,
            width=width,
            tokens=tokens,
            negative=negative,
            seed=seed,
        )
        picture, words = self.run([request], image=image, text=text)[0]
        return picture, words

    def _task(
        self,
        task: str,
        words: str,
        images: tuple[Image, ...],
        *,
        option: str = "",
        size: tuple[int, int] | None = None,
        negative: str | None,
        seed: int,
        settings: How,
    ) -> Image:
        height, width = (None, None) if size is None else pair(size)
        request = TaskRequest(
            task=task,
            words=words,
            option=option,
            images=images,
            height=height,
            width=width,
            negative=negative,
            seed=seed,
        )
        return self._one(request, Image, image=settings)

    def _one(self, request: Request, kind: type[_T], *, image: How = None, text: HowText = None) -> _T:
        (result,) = self.run([request], image=image, text=text)
        assert isinstance(result, kind)
        return result
