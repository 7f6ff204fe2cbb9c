"""The Dimoo object: a model with its tokenizers, and the calls that users make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL.Image import Image
from torch import nn

from dimoo.core.errors import ConfigError, RequestError
from dimoo.core.requests import Request
from dimoo.denoise import Cache, MaskPredictor
from dimoo.diffusion.canvas import Plan
from dimoo.diffusion.trajectory import Trajectory
from dimoo.presets.config import ImageSettings, ModelConfig, TextSettings
from dimoo.presets.tasks import TaskText
from dimoo.tasks.calls import Calls, How, HowText
from dimoo.tasks.choose import Choice, choose
from dimoo.tasks.dispatch import jobs_of
from dimoo.tasks.engine import Stream
from dimoo.tasks.fingerprint import fingerprint
from dimoo.tasks.job import Job, Kit
from dimoo.tasks.likelihood import Likelihood, known_problem, likelihood
from dimoo.tasks.records.provenance import traced
from dimoo.tasks.save import Saves
from dimoo.tokenizers.base import Tokenizer
from dimoo.tokenizers.chat import Chat
from dimoo.tokenizers.prompts import Prompts
from dimoo.tokenizers.text import TextTokenizer


class Dimoo(Calls, Saves):
    """A masked diffusion model over text and images, or over text alone. `dimoo.load` makes one.

    Every call takes a seed; the same seed gives the same result, alone or in a batch.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        backbone: MaskPredictor,
        text_tokenizer: TextTokenizer,
        image_tokenizer: Tokenizer | None = None,
        source: str | None = None,
    ) -> None:
        """A model of these parts; one without an image tokenizer knows text only.

        `source` is where it was loaded from, for the records of what it makes.

        Raises:
            CheckpointError: the text tokenizer lacks a tag of the prompts or its chat template, or that is not valid.
        """
        self.config, self.source, self.backbone = config, source, backbone
        if isinstance(backbone, nn.Module):
            backbone.eval()
        self.prompts = Prompts(text=text_tokenizer, vocabulary=config.vocabulary, template=config.template)
        chat = config.chat
        self.kit = Kit(
            prompts=self.prompts,
            image_tokenizer=image_tokenizer,
            chat=None if chat is None else Chat(text=text_tokenizer, vocabulary=config.vocabulary, template=chat),
            image_size=config.image_size,
            answer_tokens=config.answer_tokens,
            caption_tokens=config.caption_tokens,
            tasks=config.tasks,
            max_tokens=config.max_tokens,
            input_targets=config.input_targets,
        )

    @property
    def fingerprint(self) -> str:
        """Which model it is; see `dimoo.tasks.fingerprint`. All weights are read for it."""
        return fingerprint(self.config, self.backbone, self.kit.fingerprints)

    def nll(
        self,
        target: Image | str,
        *,
        prompt: str = "",
        images: Image | Sequence[Image] = (),
        tokens: int | None = None,
        samples: int = 64,
        seed: int = 0,
        batch: int = 16,
    ) -> Likelihood:
        """How likely the model finds a picture or an answer: an upper bound on -log p(target | prompt, images).

        The bound is estimated over random masks, with its standard error; of a target of few tokens it is computed (see
        `dimoo.tasks.likelihood`). One picture under two prompts compares, and so do two answers to one question.

        Args:
            target: a picture, of whose codes the likelihood is as drawn from `prompt`; or a string, that of its
                tokens and their end as the answer to `prompt` about `images`.
            prompt: what is drawn or asked; may be empty. Without images a model that has a chat template takes it as
                the user's message; without one either, the target is a text by itself.
            images: what is asked about, one picture, several or none; a picture as target takes none.
            tokens: planned for a text answer and its end, as in `ask`; exactly as many as it takes by default. A model
                that has learnt padded answers, as "mini" has, finds those likelier that have their usual room.
            samples: draws of masks, at least 2; the error falls with their root.
            seed: names the draws.
            batch: draws in one forward pass; for memory and speed, not for the numbers.

        Raises:
            RequestError: a picture comes with `images` or `tokens`, a text takes more than `tokens`, a size is off the
                grid, the prompt is too long, `samples` or `batch` is too small, or a value is of a wrong type.
        """
        problem = known_problem(self.kit, target, prompt, images, tokens)
        mask = self.config.vocabulary.mask
        return likelihood(self.backbone, problem, mask=mask, samples=samples, seed=seed, batch=batch)

    def run(
        self,
        requests: Sequence[Request | Job[Any]],
        *,
        image: ImageSettings | Plan | None = None,
        text: TextSettings | Plan | None = None,
        cache: Cache | None = None,
    ) -> list[Any]:
        """Any mixture of requests and sizes in one batch; a picture, a string or a tuple of them for each, in order.

        Args:
            requests: what to do; a `Job` is a task of your own, whose result is what its `read` returns.
            image: how to sample pictures, as settings or a ready plan; the model's own settings by default.
            text: the same for text.
            cache: one of your own for all requests, in place of what their settings say.

        Raises:
            RequestError: a request cannot be served, or is none; `cache` is no cache.
            ConfigError: a cache would take more than its bound, or does not go with the order.
        """
        return self.stream(requests, image=image, text=text, cache=cache).results()

    def stream(
        self,
        requests: Sequence[Request | Job[Any]],
        *,
        image: ImageSettings | Plan | None = None,
        text: TextSettings | Plan | None = None,
        cache: Cache | None = None,
    ) -> Stream[Any]:
        """The same step by step: iterate over the states, look at previews, stop to cancel, go on, keep the record."""
        if cache is not None and not hasattr(cache, "denoiser"):
            raise RequestError(
                f"cache={cache!r} is none: give an object, as StoredCache(policy=MaxLogit()), or set a kind of cache in"
                " the settings for image= and text="
            )
        jobs = self._jobs(requests, image, text)
        if cache is None:  # no record could say what another one was
            jobs = traced(self, requests, jobs, *self._how(image, text))
        return Stream.sampled(self.backbone, self.config.vocabulary, jobs, cache=cache)

    def replay(
        self,
        requests: Sequence[Request | Job[Any]],
        trajectory: Trajectory,
        *,
        image: ImageSettings | Plan | None = None,
        text: TextSettings | Plan | None = None,
    ) -> Stream[Any]:
        """What `stream` did, over again and exactly, from its `record`; the network is not used.

        The pictures carry no record of how they were made: a trajectory knows tokens, not the settings of its run, nor
        all that was said.

        Args:
            requests: those that were recorded.
            trajectory: the record; `dimoo.diffusion.trajectory` saves and loads them.
            image: how pictures were sampled, for the checks that requests undergo.
            text: the same for text.

        Raises:
            RequestError: as `run`.
            DataError: the trajectory is that of other requests.
        """
        return Stream.replayed(self.config.vocabulary, self._jobs(requests, image, text), trajectory)

    def choose(self, images: Image | Sequence[Image], question: str, choices: Sequence[str]) -> Choice:
        """The likeliest of several one-token answers to a question about pictures, or about none.

        Everything else of the answer is given, so one forward pass decides, and nothing is drawn.

        Raises:
            RequestError: a choice takes several tokens, two are the same, there are fewer than two, or the question
                cannot be served (see `ask` and `chat`).
        """
        return self.choose_all([(images, question, choices)])[0]

    def choose_all(self, questions: Sequence[tuple[Image | Sequence[Image], str, Sequence[str]]]) -> list[Choice]:
        """The same for several (images, question, choices) in one forward pass, in order."""
        return choose(self.backbone, self.kit, questions)

    def with_tasks(self, tasks: Mapping[str, TaskText]) -> Dimoo:
        """A model with more tasks in its table, or others of the same names. It shares the weights of this one.

        Raises:
            ConfigError: a task's family has no system prompt in the model's template.
        """
        systems = self.config.template.systems
        for name, entry in tasks.items():
            if entry.family not in systems:
                raise ConfigError(
                    f"the task {name!r} is of the family {entry.family!r}, for which the prompt template has no system"
                    f" prompt; it has {', '.join(systems) or 'none'}"
                )
        return self._variant(None, tasks={**self.config.tasks, **tasks})

    def with_settings(self, *, image: ImageSettings | None = None, text: TextSettings | None = None) -> Dimoo:
        """A model that samples otherwise by default. It shares the weights of this one."""
        changes = {"image": image, "text": text}
        return self._variant(self.source, **{name: value for name, value in changes.items() if value is not None})

    def _how(self, image: How, text: HowText) -> tuple[ImageSettings | Plan, TextSettings | Plan]:
        return self.config.image if image is None else image, self.config.text if text is None else text

    def _jobs(self, requests: Sequence[Request | Job[Any]], image: How, text: HowText) -> list[Job[Any]]:
        if not isinstance(requests, Sequence) or isinstance(requests, str):
            raise RequestError(f"requests must be a list, not {type(requests).__name__}; for one write [request]")
        picture, words = self._how(image, text)
        return jobs_of(self.kit, requests, image=picture, text=words)

    def _variant(self, source: str | None, **changes: Any) -> Dimoo:
        return Dimoo(
            self.config.model_copy(update=changes),
            backbone=self.backbone,
            text_tokenizer=self.prompts.text,
            image_tokenizer=self.kit.image_tokenizer,
            source=source,
        )
