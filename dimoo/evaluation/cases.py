"""The cases of an evaluation: what a model makes of prompts and questions, and whether it is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from rich.progress import Progress, TaskID

from dimoo.core.requests import AskRequest, GenerateRequest, Request
from dimoo.data.world.questions import QA
from dimoo.data.world.render import render
from dimoo.data.world.scene import Scene, relation
from dimoo.data.world.suite import PromptKind
from dimoo.evaluation.criteria import CRITERIA
from dimoo.evaluation.judge import Judge
from dimoo.tasks.model import Dimoo
from dimoo.tasks.problems import CAPTION_REQUEST
from dimoo.tokenizers.image.resize import to_images, to_pixels

FLOOR, CEILING = "floor_", "ceiling_"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case of one score."""

    name: str
    """The score that it counts for."""
    right: bool
    picture: Image.Image
    """The picture that was made, or that was asked about."""
    words: str
    """The prompt, the question and the model's answer, or the model's caption."""
    combination: str = ""
    """What was held out of training in the scene of a prompt, see `combination`."""


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Runs many requests in batches."""

    model: Dimoo
    batch: int
    progress: Progress
    bar: TaskID

    def __call__(self, requests: Sequence[Request]) -> list[Any]:
        """A picture or a string for each request."""
        results: list[Any] = []
        for start in range(0, len(requests), self.batch):
            part = requests[start : start + self.batch]
            results += self.model.run(part)
            self.progress.advance(self.bar, len(part))
        return results

    def through_tokenizer(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """Pictures encoded and decoded: the best that the model could make of them."""
        tokenizer = self.model.kit.pictures
        results: list[Image.Image] = []
        for start in range(0, len(pictures), self.batch):
            pixels = to_pixels(pictures[start : start + self.batch])
            results += to_images(tokenizer.decode(tokenizer.encode(pixels)))
        return results


def picture_cases(
    run: Runner, judge: Judge, kind: PromptKind, suite: Sequence[tuple[str, Scene]], seed: int
) -> Iterator[Case]:
    """Pictures made from prompts of one kind and size, with floor and ceiling."""
    requests = [
        GenerateRequest(prompt=text, height=scene.height, width=scene.width, seed=seed + index)
        for index, (text, scene) in enumerate(suite)
    ]
    made = run(requests)
    rebuilt = run.through_tokenizer([picture_of(scene) for _, scene in suite])
    seen, seen_rebuilt = look(judge, made), look(judge, rebuilt)
    for name, right in CRITERIA[kind].items():
        wrong = others(suite, lambda mine, other, right=right: not right(other[1], mine[1]))  # type: ignore[misc]
        for prefix, said, shown, pictures in (
            ("", suite, seen, made),
            (FLOOR, wrong, seen, made),
            (CEILING, suite, seen_rebuilt, rebuilt),
        ):
            for (text, truth), scene, picture in zip(said, shown, pictures, strict=True):
                yield Case(
                    name=prefix + name,
                    right=right(truth, scene),
                    picture=picture,
                    words=text,
                    combination=combination(truth),
                )
    if kind in ("one", "two"):
        for (text, truth), scene, picture in zip(suite, seen_rebuilt, rebuilt, strict=True):
            for noun in truth.counts():
                yield Case(name="tokenizer_noun", right=noun in scene.counts(), picture=picture, words=text)


def answer_cases(run: Runner, asked: Sequence[tuple[Scene, QA]], seed: int) -> Iterator[Case]:
    """Questions about true scenes; the floor compares answers with those to other questions of the same kind."""
    pictures = [picture_of(scene) for scene, _ in asked]
    answers = run(_ask(pictures, [qa.question for _, qa in asked], run.model.config.answer_tokens, seed))
    by_kind: dict[str, list[tuple[QA, Image.Image, str]]] = {}
    for picture, (_, qa), answer in zip(pictures, asked, answers, strict=True):
        by_kind.setdefault(qa.kind, []).append((qa, picture, answer))
    for kind, group in by_kind.items():
        for (qa, picture, answer), (other, _, _) in zip(
            group, others(group, lambda mine, other: mine[0].answer != other[0].answer), strict=True
        ):
            words = f"{qa.question}? {answer}"
            for name, right in (
                ("questions", answer == qa.answer),
                (f"questions_{kind}", answer == qa.answer),
                (f"{FLOOR}questions", answer == other.answer),
            ):
                yield Case(name=name, right=right, picture=picture, words=words)


def caption_cases(run: Runner, scenes: Sequence[Scene], seed: int) -> Iterator[Case]:
    """Captions of true scenes, right if they name every noun."""
    pictures = [picture_of(scene) for scene in scenes]
    captions = run(_ask(pictures, [CAPTION_REQUEST] * len(scenes), run.model.config.caption_tokens, seed))
    for picture, scene, caption in zip(pictures, scenes, captions, strict=True):
        right = all(f" {noun} " in f" {caption} " for noun in scene.counts())
        yield Case(name="caption_noun", right=right, picture=picture, words=caption)


def look(judge: Judge, pictures: Sequence[Image.Image]) -> list[Scene]:
    """The scenes that the judge sees in pictures of one size."""
    return [seen.scene for seen in judge.see(np.stack([np.asarray(one.convert("RGB")) for one in pictures]))]


def picture_of(scene: Scene) -> Image.Image:
    """The true picture of a scene."""
    return Image.fromarray(render(scene))


def others(items: Sequence[T], differ: Callable[[T, T], bool]) -> list[T]:
    """Beside each item another one that differs from it in truth: the first such from half their number on.

    An item from which none differs keeps the one that stands there.
    """
    count = len(items)
    chosen = []
    for index, one in enumerate(items):
        row = [items[(index + count // 2 + shift) % count] for shift in range(count)]
        chosen.append(next((other for other in row if differ(one, other)), row[0]))
    return chosen


def combination(truth: Scene) -> str:
    """What was held out of training in a scene: two nouns in their relation, or nouns on their background."""
    if len(truth.counts()) == 2 and len(truth.entities) == 2:
        first, second = truth.entities
        return f"{first.noun} {relation(first, second)} {second.noun}"
    return f"{' '.join(sorted(truth.counts()))} on {' '.join(truth.background.colors)}"


def _ask(pictures: Sequence[Image.Image], questions: Sequence[str], tokens: int, seed: int) -> list[AskRequest]:
    return [
        AskRequest(images=(picture,), question=question, tokens=tokens, seed=seed + index)
        for index, (picture, question) in enumerate(zip(pictures, questions, strict=True))
    ]
