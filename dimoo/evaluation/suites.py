"""Scores of a model on held-out prompts and questions of the built-in world.

Prompts are drawn on plain backgrounds, so that a score is about what it is named after; questions are asked about plain
and two-tone scenes alike. Each picture score comes with its ceiling (true renderings passed through the image
tokenizer, judged alike) and its floor (the same generated pictures judged against other prompts). Of the tasks of the
world those are scored that the model's table knows, by kind and by task.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from dimoo.core.errors import ConfigError, RequestError
from dimoo.data.world.config import WorldConfig
from dimoo.data.world.sample import Canvas
from dimoo.data.world.suite import PROMPT_KINDS, PromptKind, prompts, qa_suite
from dimoo.evaluation.cases import Case, Runner, answer_cases, caption_cases, picture_cases
from dimoo.evaluation.judge import Judge
from dimoo.evaluation.score import Score, proportion
from dimoo.evaluation.task_cases import LEAST, task_cases
from dimoo.evaluation.task_cases import suite as task_suite
from dimoo.tasks.model import Dimoo
from dimoo.weights.hub import resolve

WORLD_FILE = "world.json"
"""Name of the `WorldConfig` that a recipe leaves beside the checkpoint it exports."""
CANVAS: Canvas = (64, 64)
MAIN_KINDS: frozenset[PromptKind] = frozenset({"one", "two"})


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores by name, and the cases behind them."""

    scores: Mapping[str, Score]
    cases: Sequence[Case]
    left_out: Mapping[str, str]
    """Kinds of tasks without a score, and why: the model was not taught them, or the world has none."""


def world_of(folder: Path) -> WorldConfig:
    """The world that the checkpoint in a folder was trained for; the default one where none is noted.

    Raises:
        ConfigError: the note is not a world.
    """
    note = folder / WORLD_FILE
    if note.is_file():
        return WorldConfig.load(note)
    logging.getLogger(__name__).warning("no %s in %s: taking the default world", WORLD_FILE, folder)
    return WorldConfig()


def world_at(where: str) -> WorldConfig:
    """The world noted beside a checkpoint (a folder, "mini", or owner/name on the hub), or in a file.

    Two checkpoints' scores are of the same scenes where they are scored in one world.

    Raises:
        CheckpointError: there is no such checkpoint.
        ConfigError: no world is noted there, or the note is not one.
    """
    note = Path(where)
    if not note.is_file():
        note = resolve(where, patterns=(WORLD_FILE,)) / WORLD_FILE
    if not note.is_file():
        raise ConfigError(f"no {WORLD_FILE} in {where!r}; give a checkpoint of the built-in world, or such a file")
    return WorldConfig.load(note)


def canvas_of(world: WorldConfig) -> Canvas:
    """The (height, width) to evaluate on: 64x64, or the first canvas of a world that has none such."""
    return CANVAS if CANVAS in world.canvases else world.canvases[0]


def plain(world: WorldConfig) -> WorldConfig:
    """The same world with backgrounds of one colour."""
    return world.model_copy(update={"two_tone": 0.0})


def evaluate(model: Dimoo, world: WorldConfig, *, limit: int, seed: int, batch: int, progress: Progress) -> Evaluation:
    """Generate, ask, judge.

    Scores: `single_object`, `background` (of the same pictures), `two_objects`, `relation`, `count`, `place`, `size`,
    each with `floor_` and `ceiling_`; `tokenizer_noun`, objects still named right after the tokenizer alone;
    `questions` with its floor, and `questions_<kind>`; `caption_noun`, captions that name what is shown. Of every task
    that the model knows (`dimoo.data.world.tasks.KINDS`) the share of right answers, as `edit`, and of every kind, as
    `edit_add`, see `task_criteria`; and `edit_keeps`, edited pictures that are as before outside the edit.

    Args:
        model: what is scored, with its own sampling settings.
        world: what it is asked about: its own (`world_of`), or another's (`world_at`).
        limit: prompts of one object, prompts of two objects, and questions, each; half as many of everything else, and
            of each kind of a task one in 25, at least 4.
        seed: of the held-out scenes and of sampling.
        batch: requests run together.
        progress: shows how far it is.

    Raises:
        ConfigError: the world has nothing held out, or no room for two objects.
        RequestError: `limit` or `batch` is not positive, or the world's canvas is off the tokenizer's grid.
    """
    for name, value in (("limit", limit), ("batch", batch)):
        if value < 1:
            raise RequestError(f"{name} is {value}; use at least 1")
    canvas, ground, fewer = canvas_of(world), plain(world), -(-limit // 2)
    suites = {
        kind: prompts(ground, kind, limit if kind in MAIN_KINDS else fewer, seed, canvas=canvas)
        for kind in PROMPT_KINDS
    }
    asked = qa_suite(world, limit, seed, canvas=canvas)
    shown = [scene for _, scene in suites["one"][:fewer]]
    of_kind = min(limit, max(LEAST, limit // 25))
    drawn, left_out = task_suite(model.config, world, of_kind, seed, canvas)
    total = sum(len(suite) for suite in (*suites.values(), *drawn.values())) + len(asked) + len(shown)
    run = Runner(model=model, batch=batch, progress=progress, bar=progress.add_task("evaluating", total=total))
    judge = Judge(world=world)
    cases: list[Case] = []
    for kind, suite in suites.items():
        cases += picture_cases(run, judge, kind, suite, seed)
    cases += answer_cases(run, asked, seed)
    cases += caption_cases(run, shown, seed)
    for (task, form), told in drawn.items():
        cases += task_cases(run, judge, task, form, told, seed)
    return Evaluation(scores=_scores(cases), cases=cases, left_out=left_out)


def _scores(cases: Sequence[Case]) -> dict[str, Score]:
    rights: dict[str, list[bool]] = {}
    for case in cases:
        rights.setdefault(case.name, []).append(case.right)
    return {name: proportion(values) for name, values in rights.items()}
