"""The gallery that `dimoo demo` writes: every task that a model knows, each answer marked by the exact judge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dimoo.data.example import TaskExample
from dimoo.data.world.config import WorldConfig
from dimoo.data.world.sample import Canvas
from dimoo.evaluation.demo_prompts import Stage, drawings, outpainting, previews, questions, retouching
from dimoo.evaluation.demo_tasks import task_sections
from dimoo.evaluation.judge import Judge
from dimoo.evaluation.page import page
from dimoo.evaluation.requests import untaught
from dimoo.evaluation.strips import Section, html_of
from dimoo.evaluation.suites import canvas_of
from dimoo.tasks.model import Dimoo

CANVAS: Canvas = (48, 48)
"""(height, width) of the tasks that take pictures, where the world has it."""
BATCH = 32
NOTE = (
    "Every task that this model knows. Scenes hold combinations that training never showed. A tick: the exact judge"
    " finds in the picture what was asked for, a picture or a map is near enough to the true one, or the answer is the"
    " true one."
)
BLANK = np.zeros((64, 64, 3), np.uint8)
OPENING: tuple[tuple[Callable[[Stage], Section], str, TaskExample], ...] = (
    (drawings, "Pictures from prompts", TaskExample(task="generate", words="a", image=BLANK)),
    (previews, "How a picture comes about", TaskExample(task="generate", words="a", image=BLANK)),
    (questions, "Questions", TaskExample(task="ask", words="a", images=(BLANK,), text="a")),
    (outpainting, "Larger canvases", TaskExample(task="inpaint", words="a", image=BLANK)),
    (retouching, "Retouching", TaskExample(task="inpaint", words="a", image=BLANK)),
)
"""Sections that begin with prompts, their titles, and an example of what a model has to know for them."""


def make_demo(model: Dimoo, world: WorldConfig, folder: Path, seed: int) -> Path:
    """Write `index.html` and its pictures; it shows nothing that is not in the folder.

    Args:
        model: what is shown.
        world: what it was trained for, see `dimoo.evaluation.suites.world_of`.
        folder: made where it is absent.
        seed: of prompts and sampling.

    Returns:
        The path of the page.

    Raises:
        ConfigError: the world has nothing held out, or no room for two objects.
        RequestError: the world's canvases or its grid (`align`) are off the tokenizer's grid.
    """
    folder.mkdir(parents=True, exist_ok=True)
    judge = Judge(world=world)
    stage = Stage(model=model, world=world, judge=judge, seed=seed)
    sections = []
    for make, title, example in OPENING:
        reason = untaught(model.config, example)
        sections.append(Section(title=title, note=f"Left out: {reason}.") if reason else make(stage))
    canvas = CANVAS if CANVAS in world.canvases else canvas_of(world)
    tasks = task_sections(model.config, world, canvas, seed)
    requests = [request for task in tasks for request in task.requests]
    parts = [requests[start : start + BATCH] for start in range(0, len(requests), BATCH)]
    results = iter([result for part in parts for result in model.run(part)])
    sections += [task.show(judge, [next(results) for _ in task.requests]) for task in tasks]
    path = folder / "index.html"
    written = [html_of(section, folder) for section in sections]
    path.write_text(page(f"dimoo: {model.config.name}", NOTE, written), encoding="utf-8")
    return path
