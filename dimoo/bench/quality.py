"""What a method's answers are worth, on held-out scenes of the world, judged as `dimoo evaluate` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from dimoo.bench.methods import Task
from dimoo.core.requests import AskRequest, GenerateRequest, Request
from dimoo.data.world.config import WorldConfig
from dimoo.data.world.suite import prompts, qa_suite
from dimoo.data.world.tasks import KINDS
from dimoo.evaluation.cases import look, picture_of
from dimoo.evaluation.criteria import CRITERIA
from dimoo.evaluation.judge import Judge
from dimoo.evaluation.requests import answer_of, request_of
from dimoo.evaluation.suites import canvas_of, plain
from dimoo.evaluation.task_cases import draw_cases, judged
from dimoo.evaluation.task_criteria import scores_of
from dimoo.presets.config import ModelConfig
from dimoo.tasks.problems import CAPTION_REQUEST

Mark = Callable[[Any], bool]


@dataclass(frozen=True, kw_only=True)
class Exam:
    """Requests whose answers can be judged."""

    requests: Sequence[Request]
    marks: Callable[[Sequence[Any]], list[bool]]
    """Which results, in the order of the requests, are right."""

    def score(self, results: Sequence[Any]) -> float:
        """The share of right results."""
        right = self.marks(results)
        return sum(right) / len(right)


def exam(task: Task, config: ModelConfig, world: WorldConfig, *, count: int, seed: int) -> Exam:
    """The exam of a task.

    "image": prompts of one and of two objects, half of them each, right as `single_object` and `two_objects` are.
    "edit": the kinds of edits by turns. "text": questions, and captions that name every noun, half of them each.

    Args:
        task: which.
        config: the model's.
        world: what it was trained for.
        count: requests.
        seed: of the scenes and of sampling.
    """
    canvas = canvas_of(world)
    judge = Judge(world=world)
    half = -(-count // 2)
    match task:
        case "image":
            asked = [
                (kind, text, scene)
                for kind in ("one", "two")
                for text, scene in prompts(plain(world), kind, half, seed, canvas=canvas)
            ]
            requests: list[Request] = [
                GenerateRequest(prompt=text, height=scene.height, width=scene.width, seed=seed + index)
                for index, (_, text, scene) in enumerate(asked)
            ]
            rights = {kind: next(iter(CRITERIA[kind].values())) for kind in ("one", "two")}
            return Exam(
                requests=requests,
                marks=lambda results: [
                    rights[kind](truth, seen)
                    for (kind, _, truth), seen in zip(asked, look(judge, list(results)), strict=True)
                ],
            )
        case "edit":
            each = -(-count // len(KINDS["edit"]))
            cases = [
                case
                for kind in KINDS["edit"]
                for case in draw_cases(world, "edit", kind, each, seed, split="heldout", canvas=canvas)
            ]
            return Exam(
                requests=[request_of(case.example, seed + index) for index, case in enumerate(cases)],
                marks=lambda results: [
                    scores_of("edit", case.kind)[case.kind](case, answer)
                    for case, answer in zip(
                        cases, judged(judge, "edit", [answer_of(result) for result in results]), strict=True
                    )
                ],
            )
        case "text":
            questions = qa_suite(world, half, seed, canvas=canvas)
            shown = [scene for _, scene in prompts(plain(world), "one", half, seed, canvas=canvas)]
            told = [(picture_of(scene), qa.question, config.answer_tokens) for scene, qa in questions]
            told += [(picture_of(scene), CAPTION_REQUEST, config.caption_tokens) for scene in shown]
            marks: list[Mark] = [lambda said, wanted=qa.answer: bool(said == wanted) for _, qa in questions]  # type: ignore[misc]
            marks += [lambda said, scene=scene: _names(scene.counts(), said) for scene in shown]  # type: ignore[misc]
            return Exam(
                requests=[_ask(*one, seed + index) for index, one in enumerate(told)],
                marks=lambda results: [mark(said) for mark, said in zip(marks, results, strict=True)],
            )


def _ask(picture: Image.Image, question: str, tokens: int, seed: int) -> AskRequest:
    return AskRequest(images=(picture,), question=question, tokens=tokens, seed=seed)


def _names(nouns: Any, caption: str) -> bool:
    return all(f" {noun} " in f" {caption} " for noun in nouns)
