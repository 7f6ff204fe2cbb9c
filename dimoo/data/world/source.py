"""The world as an endless source of training examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dimoo.data.example import Example
from dimoo.data.world.config import WorldConfig
from dimoo.data.world.language import caption
from dimoo.data.world.questions import questions
from dimoo.data.world.render import render
from dimoo.data.world.sample import Split, sample_scene
from dimoo.data.world.scene import Scene


@dataclass(frozen=True)
class WorldSource:
    """Scenes with a caption and questions; stateless, so workers and resuming need no bookkeeping."""

    config: WorldConfig
    seed: int = 0
    split: Split = "train"

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
        """Picture, caption and questions number `index` of this seed.

        Raises:
            IndexError: the index is negative.
        """
        scene, rng = self._draw(index)
        pairs = questions(scene, rng, nouns=self.config.words)
        return Example(
            image=render(scene),
            caption=caption(scene, rng),
            qa=tuple((qa.question, qa.answer) for qa in pairs),
        )

    def _draw(self, index: int) -> tuple[Scene, np.random.Generator]:
        if index < 0:
            raise IndexError(f"index {index} is negative; the world begins at 0")
        rng = np.random.default_rng([self.seed, index])
        return sample_scene(self.config, rng, self.split), rng
