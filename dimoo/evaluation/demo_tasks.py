"""The gallery's sections that follow from the world's tasks: what is given, what was made, and the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from PIL import Image

from dimoo.core.requests import Request
from dimoo.data.world.config import WorldConfig
from dimoo.data.world.draws import TaskCase
from dimoo.data.world.sample import Canvas
from dimoo.data.world.tasks import KINDS, WorldTask
from dimoo.evaluation.judge import Judge
from dimoo.evaluation.requests import Answer, answer_of, known, request_of, untaught
from dimoo.evaluation.strips import Section, Strip, Tile
from dimoo.evaluation.task_cases import draw_cases, judged
from dimoo.evaluation.task_criteria import CRITERIA
from dimoo.presets.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class Told:
    """How a task is shown."""

    title: str
    note: str
    each: int = 1
    """Cases of each kind."""
    given: tuple[str, ...] = ("given",)
    """What stands below the pictures that a request brings."""


TOLD: Mapping[WorldTask, Told] = MappingProxyType(
    {
        "edit": Told(title="Editing", note="A picture and an instruction.", given=("before",), each=2),
        "subject": Told(
            title="Subjects",
            note="Objects from pictures of their own, in a new picture; the words do not name them.",
            given=("first object", "second object"),
        ),
        "style": Told(title="Style of another picture", note="", given=("picture", "style")),
        "restyle": Told(title="Style in words", note="", given=("picture",)),
        "control": Told(title="Control by a map", note="A map and words make a picture.", given=("map",)),
        "predict": Told(title="Dense prediction", note="A picture makes a map.", given=("picture",)),
        "view": Told(title="Other views", note="", given=("front",), each=2),
        "inpaint": Told(
            title="Inpainting and continuing",
            note="Grey is to be made; every given pixel stays.",
            each=3,
        ),
        "compare": Told(title="Questions about two pictures", note="", given=("first", "second")),
        "chat": Told(title="Words alone", note="", each=3),
        "illustrate": Told(title="Pictures with captions", note="A picture and words about it, made together.", each=2),
    }
)


@dataclass(frozen=True, kw_only=True)
class TaskSection:
    """The cases of a task that are shown."""

    task: WorldTask
    cases: Sequence[TaskCase]
    requests: Sequence[Request]
    reason: str
    """Why there is none; empty: there are."""

    def show(self, judge: Judge, results: Sequence[Any]) -> Section:
        """The section, from the results of the requests."""
        told = TOLD[self.task]
        if self.reason:
            return Section(title=told.title, note=f"Left out: {self.reason}.")
        answers = judged(judge, self.task, [answer_of(result) for result in results])
        strips = [self._strip(case, answer) for case, answer in zip(self.cases, answers, strict=True)]
        return Section(title=told.title, note=told.note, strips=strips)

    def _strip(self, case: TaskCase, answer: Answer) -> Strip:
        example, told = case.example, TOLD[self.task]
        tiles = [
            Tile(picture=Image.fromarray(image), lines=(label,))
            for image, label in zip(example.images, told.given, strict=False)
        ]
        if example.given is not None:
            tiles.append(Tile(picture=known(example), lines=("given",)))
        made = None if answer.picture is None else Image.fromarray(answer.picture)
        right = CRITERIA[self.task](case, answer)
        asked = (f"{example.option}: {example.words}" if example.words else example.option) if example.option else ""
        lines = [asked or example.words or case.kind.partition("_")[2]]
        if answer.words is not None:
            lines.append(f"answer: {answer.words}")
            if not right:
                lines.append(f"true: {example.text}")
        tiles.append(Tile(picture=made, lines=tuple(lines), right=right))
        if example.image is not None:
            tiles.append(Tile(picture=Image.fromarray(example.image), lines=("truth",), small=True))
        return tiles


def task_sections(config: ModelConfig, world: WorldConfig, canvas: Canvas, seed: int) -> list[TaskSection]:
    """All tasks in the order of `TOLD`, held-out cases of every kind.

    Raises:
        ConfigError: the world has no case of a kind.
    """
    sections = []
    for task, told in TOLD.items():
        cases = [
            case
            for kind in KINDS[task]
            for case in draw_cases(world, task, kind, told.each, seed, split="heldout", canvas=canvas)
        ]
        reason = next(filter(None, (untaught(config, case.example) for case in cases)), "")
        requests = [] if reason else [request_of(case.example, seed + index) for index, case in enumerate(cases)]
        sections.append(TaskSection(task=task, cases=cases, requests=requests, reason=reason))
    return sections
