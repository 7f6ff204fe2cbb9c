"""What methods are tried on: random weights, which tell cost, and checkpoints, which tell quality too.

Axes: parts = lists of jobs that run together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from dimoo.backbone.model import Backbone
from dimoo.bench.methods import Method, Task
from dimoo.bench.quality import Exam, exam
from dimoo.bench.shapes import RandomModel
from dimoo.core.errors import ConfigError
from dimoo.data.world.config import WorldConfig
from dimoo.tasks.dispatch import jobs_of
from dimoo.tasks.job import Job
from dimoo.tasks.model import Dimoo
from dimoo.tokenizers.vocabulary import Vocabulary

Parts = list[list[Job[Any]]]


class Stand(Protocol):
    """A model and what it is asked for."""

    @property
    def name(self) -> str:
        """As in the table."""

    @property
    def network(self) -> Backbone:
        """The transformer."""

    @property
    def vocabulary(self) -> Vocabulary:
        """Its ids."""

    def jobs(self, task: Task, method: Method, batch: int) -> Parts:
        """The jobs of a task, sampled by a method, in batches."""

    def score(self, task: Task, results: Sequence[Any]) -> float | None:
        """The share of right results; None where nothing says what is right."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RandomStand:
    """One batch for random weights."""

    model: RandomModel
    seed: int

    @property
    def name(self) -> str:
        """ "random"."""
        return "random"

    @property
    def network(self) -> Backbone:
        """The transformer."""
        return self.model.network

    @property
    def vocabulary(self) -> Vocabulary:
        """Its ids."""
        return self.model.vocabulary

    def jobs(self, task: Task, method: Method, batch: int) -> Parts:
        """One batch."""
        settings = self.model.settings(method)
        return [[self.model.job(task, settings, self.seed + index) for index in range(batch)]]

    def score(self, task: Task, results: Sequence[Any]) -> float | None:
        """None."""
        del task, results
        return None


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckpointStand:
    """An exam of held-out scenes for a checkpoint."""

    model: Dimoo
    world: WorldConfig
    count: int
    """Requests of each task."""
    seed: int

    @property
    def name(self) -> str:
        """The checkpoint's."""
        return self.model.config.name

    @property
    def network(self) -> Backbone:
        """The transformer.

        Raises:
            ConfigError: it is of a foreign type.
        """
        if not isinstance(self.model.backbone, Backbone):
            raise ConfigError(f"speed is measured on a Backbone, not on {type(self.model.backbone).__name__}")
        return self.model.backbone

    @property
    def vocabulary(self) -> Vocabulary:
        """Its ids."""
        return self.model.config.vocabulary

    def jobs(self, task: Task, method: Method, batch: int) -> Parts:
        """All requests of the exam."""
        config, requests = self.model.config, self._exam(task).requests
        made = jobs_of(self.model.kit, requests, image=method.image(config.image), text=method.text(config.text))
        return [made[start : start + batch] for start in range(0, len(made), batch)]

    def score(self, task: Task, results: Sequence[Any]) -> float | None:
        """The share of right results."""
        return self._exam(task).score(results)

    @cached_property
    def _exams(self) -> dict[Task, Exam]:
        return {}

    def _exam(self, task: Task) -> Exam:
        if task not in self._exams:
            self._exams[task] = exam(task, self.model.config, self.world, count=self.count, seed=self.seed)
        return self._exams[task]
