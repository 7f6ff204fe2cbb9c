"""Every task of the world, with its exact answer: one call, `task_case`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np

from dimoo.core.errors import ConfigError
from dimoo.data.example import TaskExample
from dimoo.data.world import pictured, spoken
from dimoo.data.world.config import WorldConfig
from dimoo.data.world.dice import below
from dimoo.data.world.draws import Draw, TaskCase
from dimoo.data.world.edits import EDITS, draw_edit
from dimoo.data.world.maps import MAPS
from dimoo.data.world.render import render
from dimoo.data.world.sample import Canvas, Split
from dimoo.data.world.styles import STYLES

WorldTask = Literal[
    "edit",
    "inpaint",
    "subject",
    "style",
    "restyle",
    "control",
    "predict",
    "view",
    "compare",
    "chat",
    "illustrate",
]

KINDS: Mapping[WorldTask, tuple[str, ...]] = MappingProxyType(
    {
        "edit": tuple(EDITS),
        "inpaint": ("inpaint_region", "inpaint_extend"),
        "subject": ("subject_one", "subject_two"),
        "style": tuple(f"style_{style}" for style in STYLES),
        "restyle": tuple(f"restyle_{style}" for style in STYLES),
        "control": tuple(f"control_{kind}" for kind in MAPS),
        "predict": tuple(f"predict_{kind}" for kind in MAPS),
        "view": ("view_mirrored", "view_rotated"),
        "compare": ("compare_which", "compare_what", "compare_color", "compare_same"),
        "chat": ("chat_scene", "chat_fact"),
        "illustrate": ("illustrate_one", "illustrate_two"),
    }
)
"""All kinds of each task."""

PICTURE = "picture"
"""No task: a picture with its caption and questions."""


def task_of(name: str) -> tuple[WorldTask, str | None]:
    """The task that a task or one of its kinds names, and the kind, if it is one.

    Raises:
        ConfigError: the world has neither.
    """
    for task, kinds in KINDS.items():
        if name == task or name in kinds:
            return task, None if name == task else name
    raise ConfigError(
        f"the world has no task or kind {name!r}; use {PICTURE!r}, a task ({', '.join(KINDS)}) or one of its kinds"
        f" ({', '.join(kind for kinds in KINDS.values() for kind in kinds)})"
    )


def task_case(
    config: WorldConfig,
    rng: np.random.Generator,
    task: WorldTask,
    split: Split = "train",
    *,
    canvas: Canvas | None = None,
    kind: str | None = None,
) -> TaskCase:
    """Draw a task with its answer.

    Of "train" no scene contains a held-out combination. Of "heldout" the scene asked for contains one; where words are
    asked for, the first picture or the scene that the words describe does. Two things have none to hold out: the small
    facts of "chat_fact", and the reference pictures of "style" and "subject", which are as in training.

    Args:
        config: the world.
        rng: the only source of randomness.
        task: which task.
        split: which part of all scenes to draw from.
        canvas: (height, width) of the answer's picture, or of the pictures asked about; None: one of the config's with
            room for what the task needs.
        kind: one of `KINDS[task]`; None: drawn evenly.

    Raises:
        ConfigError: there is no such task or kind, or the world, or this canvas, has no such case.
    """
    if task not in KINDS:
        raise ConfigError(f"the world has no task {task!r}; use one of {', '.join(KINDS)}")
    if kind is None:
        kind = KINDS[task][below(rng, len(KINDS[task]))]
    elif kind not in KINDS[task]:
        raise ConfigError(f"task {task!r} has no kind {kind!r}; use one of {', '.join(KINDS[task])}")
    return MAKERS[task](Draw(config=config, rng=rng, split=split, canvas=canvas), kind)


def _edit(draw: Draw, kind: str) -> TaskCase:
    edit = draw_edit(draw.config, draw.rng, kind, draw.split, draw.canvas)
    example = TaskExample(task="edit", words=edit.instruction, images=(render(edit.before),), image=render(edit.after))
    return TaskCase(kind=kind, example=example, before=edit.before, scene=edit.after)


MAKERS: Mapping[WorldTask, Callable[[Draw, str], TaskCase]] = MappingProxyType(
    {
        "edit": _edit,
        "inpaint": pictured.inpaint,
        "subject": pictured.subject,
        "style": pictured.style,
        "restyle": pictured.restyle,
        "control": pictured.control,
        "predict": pictured.predict,
        "view": pictured.view,
        "compare": spoken.compare,
        "chat": spoken.chat,
        "illustrate": pictured.illustrate,
    }
)
"""Task -> a function that draws a case of one of its kinds."""
