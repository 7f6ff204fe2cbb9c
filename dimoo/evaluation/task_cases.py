"""The cases of the world's tasks: what a model makes of each, whether it is right, its floor and its ceiling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from dimoo.core.errors import ConfigError
from dimoo.data.world.config import WorldConfig
from dimoo.data.world.draws import TaskCase
from dimoo.data.world.sample import Canvas, Split
from dimoo.data.world.tasks import KINDS, WorldTask, task_case
from dimoo.evaluation.cases import CEILING, FLOOR, Case, Runner, combination, look, others
from dimoo.evaluation.judge import Judge
from dimoo.evaluation.requests import Answer, answer_of, request_of, true_answer, untaught
from dimoo.evaluation.task_criteria import JUDGED, Right, scores_of
from dimoo.presets.config import ModelConfig

LEAST = 4
"""Cases of each kind, unless fewer of everything are asked for."""


def draw_cases(
    world: WorldConfig, task: WorldTask, kind: str, count: int, seed: int, *, split: Split, canvas: Canvas
) -> list[TaskCase]:
    """Cases of one kind; they depend on the kind and the seed alone, so that kinds may be added or left out.

    Raises:
        ConfigError: the world has no such case.
    """
    rng = np.random.default_rng([seed, *kind.encode()])
    return [task_case(world, rng, task, split, canvas=canvas, kind=kind) for _ in range(count)]


def suite(
    config: ModelConfig, world: WorldConfig, count: int, seed: int, canvas: Canvas
) -> tuple[dict[tuple[WorldTask, str], list[TaskCase]], dict[str, str]]:
    """Held-out cases by (task, kind), and why there are none of the kinds that are left out."""
    drawn: dict[tuple[WorldTask, str], list[TaskCase]] = {}
    left_out: dict[str, str] = {}
    for task, kinds in KINDS.items():
        for kind in kinds:
            try:
                cases = draw_cases(world, task, kind, count, seed, split="heldout", canvas=canvas)
            except ConfigError as error:
                left_out[kind] = str(error)
                continue
            if reason := untaught(config, cases[0].example):
                left_out[kind] = reason
            else:
                drawn[task, kind] = cases
    return drawn, left_out


def task_cases(
    run: Runner, judge: Judge, task: WorldTask, kind: str, asked: Sequence[TaskCase], seed: int
) -> Iterator[Case]:
    """The cases of one kind and size, under every score that they count for.

    The floor judges the same answers against other cases of the kind that they would not be right for. The ceiling
    judges true pictures after the image tokenizer; words have none.
    """
    results = run([request_of(case.example, seed + index) for index, case in enumerate(asked)])
    made = judged(judge, task, [answer_of(result) for result in results])
    best = judged(judge, task, _rebuilt(run, asked))
    for name, right in scores_of(task, kind).items():
        bounds = [("", asked, made), (FLOOR, others(asked, _differ(right)), made)]
        if best:
            bounds.append((CEILING, asked, best))
        for prefix, truths, answers in bounds:
            for truth, case, answer in zip(truths, asked, answers, strict=True):
                yield Case(
                    name=prefix + name,
                    right=right(truth, answer),
                    picture=_shown(case, answer),
                    words=_words(case, answer),
                    combination=combination(case.scene) if case.scene is not None else "",
                )


def judged(judge: Judge, task: WorldTask, answers: Sequence[Answer]) -> list[Answer]:
    """Answers with what the judge sees in them, where the task is about a scene; their pictures are of one size."""
    pictures = [Image.fromarray(answer.picture) for answer in answers if answer.picture is not None]
    if task not in JUDGED or not pictures:
        return list(answers)
    return [replace(answer, seen=scene) for answer, scene in zip(answers, look(judge, pictures), strict=True)]


def _differ(right: Right) -> Callable[[TaskCase, TaskCase], bool]:
    return lambda mine, other: not right(other, true_answer(mine))


def _rebuilt(run: Runner, asked: Sequence[TaskCase]) -> list[Answer]:
    """The true answers after the image tokenizer, what is given in them as it was; none where they are words alone."""
    truths = [case.example for case in asked if case.example.image is not None]
    pictures = run.through_tokenizer([Image.fromarray(one.image) for one in truths if one.image is not None])
    answers = []
    for one, picture in zip(truths, pictures, strict=True):
        pixels = np.asarray(picture)
        if one.given is not None and one.image is not None:
            pixels = np.where(one.given[..., None], one.image, pixels)
        answers.append(Answer(picture=pixels, words=one.text))
    return answers


def _shown(case: TaskCase, answer: Answer) -> Image.Image:
    """The picture that was made, or the first that was asked about; white where there is none."""
    if answer.picture is not None:
        return Image.fromarray(answer.picture)
    images = case.example.images
    return Image.fromarray(images[0]) if images else Image.new("RGB", (64, 64), "white")


def _words(case: TaskCase, answer: Answer) -> str:
    said = case.example.words or case.kind
    return said if answer.words is None else f"{said}? {answer.words}"
