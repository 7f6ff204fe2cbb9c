"""The world as an endless source of training examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from dimoo.data.example import Example
from dimoo.data.world.config import WorldConfig
from dimoo.data.world.dice import pick
from dimoo.data.world.language import caption
from dimoo.data.world.questions import questions
from dimoo.data.world.render import render
from dimoo.data.world.sample import Split, sample_scene
from dimoo.data.world.scene import Scene
from dimoo.data.world.tasks import PICTURE, task_case, task_of

TASK_STREAM = 7
"""Names the draws of what kind of example each is."""


@dataclass(frozen=True)
class WorldSource:
    """Scenes with a caption and questions; stateless, so workers and resuming need no bookkeeping."""

    config: WorldConfig
    seed: int = 0
    split: Split = "train"
    tasks: Mapping[str, float] = field(default_factory=lambda: {PICTURE: 1.0})
    """How often an example is one of each task or kind, relative; "picture" is one with its caption and questions."""

    @property
    def size(self) -> int | None:
        """None: endless."""
        return None

    def scene(self, index: int) -> Scene:
        """The scene behind an example.

        Raises:
            IndexError: the index is negative.
        """
        return self._draw(index)[0]

    def example(self, index: int) -> Example:
        """Example number `index` of this seed: a picture with its caption and questions, or a task.

        Raises:
            IndexError: the index is negative.
        """
        name = self._name(index)
        if name != PICTURE:
            rng = np.random.default_rng([self.seed, index])
            task, kind = task_of(name)
            return Example(tasks=(task_case(self.config, rng, task, self.split, kind=kind).example,))
        scene, rng = self._draw(index)
        pairs = questions(scene, rng, nouns=self.config.words)
        return Example(
            image=render(scene),
            caption=caption(scene, rng),
            qa=tuple((qa.question, qa.answer) for qa in pairs),
        )

    def _name(self, index: int) -> str:
        """Drawn from a stream of its own, so that pictures do not depend on what else there is."""
        if len(self.tasks) == 1:
            return next(iter(self.tasks))
        rng = np.random.default_rng([self.seed, max(0, index), TASK_STREAM])
        return list(self.tasks)[pick(rng, list(self.tasks.values()))]

    def _draw(self, index: int) -> tuple[Scene, np.random.Generator]:
        if index < 0:
            raise IndexError(f"index {index} is negative; the world begins at 0")
        rng = np.random.default_rng([self.seed, index])
        return sample_scene(self.config, rng, self.split), rng
