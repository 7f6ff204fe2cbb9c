from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from rich.progress import Progress

from dimoo.core.errors import ConfigError, RequestError
from dimoo.core.requests import AskRequest, GenerateRequest, Request
from dimoo.data.world import Scene, WorldConfig, describe, prompts, qa_suite, render
from dimoo.evaluation.cases import picture_of
from dimoo.evaluation.suites import WORLD_FILE, Evaluation, canvas_of, evaluate, plain, world_of
from dimoo.tasks.model import Dimoo
from dimoo.tasks.problems import CAPTION_REQUEST

LIMIT, SEED = 28, 5
PICTURES = ("single_object", "background", "two_objects", "relation", "count", "place", "size")


class Lossless:
    """A tokenizer of one code per value."""

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels * 255).round().long()

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return codes.float() / 255


class Oracle:
    """Stands in for a model that is always right: it looks every request up."""

    def __init__(self, world: WorldConfig) -> None:
        canvas = canvas_of(world)
        self.kit = SimpleNamespace(pictures=Lossless())
        self.config = SimpleNamespace(answer_tokens=8, caption_tokens=24)
        self.batches: list[int] = []
        self._scenes: dict[str, Scene] = {}
        self._words: dict[tuple[bytes, str], str] = {}
        for kind in ("one", "two", "count", "place", "size"):
            count = LIMIT if kind in ("one", "two") else LIMIT // 2
            for text, scene in prompts(plain(world), kind, count, SEED, canvas=canvas):  # type: ignore[arg-type]
                self._scenes[text] = scene
                self._words[render(scene).tobytes(), CAPTION_REQUEST] = describe(scene)
        for scene, qa in qa_suite(world, LIMIT, SEED, canvas=canvas):
            self._words[render(scene).tobytes(), qa.question] = qa.answer

    def run(self, requests: list[Request]) -> list[Any]:
        self.batches.append(len(requests))
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Any:
        if isinstance(request, GenerateRequest):
            return picture_of(self._scenes[request.prompt])
        assert isinstance(request, AskRequest)
        return self._words[np.asarray(request.images[0]).tobytes(), request.question]


def score(model: Any, world: WorldConfig, *, limit: int = LIMIT, batch: int = 8) -> Evaluation:
    with Progress(disable=True) as progress:
        evaluation = evaluate(cast(Dimoo, model), world, limit=limit, seed=SEED, batch=batch, progress=progress)
        assert progress.finished
    return evaluation


@pytest.fixture(scope="module")
def perfect(world: WorldConfig) -> tuple[Oracle, Evaluation]:
    oracle = Oracle(world)
    return oracle, score(oracle, world)


def test_a_perfect_model_scores_one_and_shuffled_prompts_do_not(perfect: tuple[Oracle, Evaluation]) -> None:
    scores = perfect[1].scores
    for name in (*PICTURES, *(f"ceiling_{name}" for name in PICTURES), "tokenizer_noun", "caption_noun"):
        assert scores[name].score == 1, name
    assert {scores[name].score for name in scores if name.startswith("questions")} == {1.0}
    for name in (*PICTURES, "questions"):
        assert scores[f"floor_{name}"].score < 0.6, name
    assert scores["floor_single_object"].score < 0.35
    assert scores["floor_two_objects"].score < 0.15


def test_as_many_cases_as_asked_for(perfect: tuple[Oracle, Evaluation]) -> None:
    oracle, evaluation = perfect
    scores = evaluation.scores
    for name in ("single_object", "background", "two_objects", "relation", "questions", "floor_questions"):
        assert scores[name].n == LIMIT, name
    for name in ("count", "place", "size", "caption_noun", "floor_size", "ceiling_place"):
        assert scores[name].n == LIMIT // 2, name
    assert scores["tokenizer_noun"].n == 3 * LIMIT
    assert sum(s.n for name, s in scores.items() if name.startswith("questions_")) == LIMIT
    assert max(oracle.batches) == 8
    assert sum(oracle.batches) == 5 * LIMIT
    for name, value in scores.items():
        rights = [case.right for case in evaluation.cases if case.name == name]
        assert (value.n, value.score) == (len(rights), sum(rights) / len(rights))


def test_a_random_model_scores_nothing_and_twice_the_same(random_model: Dimoo, world: WorldConfig) -> None:
    first, second = (score(random_model, world, limit=4, batch=batch) for batch in (3, 16))
    assert first.scores == second.scores
    pictures = [[case.picture.tobytes() for case in run.cases] for run in (first, second)]
    assert pictures[0] == pictures[1]
    for name in ("single_object", "two_objects", "questions", "caption_noun"):
        assert first.scores[name].score < 0.5, name


def test_the_world_is_read_beside_the_checkpoint(tmp_path: Path, world: WorldConfig) -> None:
    assert world_of(tmp_path) == WorldConfig()
    world.save(tmp_path / WORLD_FILE)
    assert world_of(tmp_path) == world
    (tmp_path / WORLD_FILE).write_text('{"nouns": 12, "moons": 3}')
    with pytest.raises(ConfigError, match="moons"):
        world_of(tmp_path)


def test_canvas_and_ground() -> None:
    assert canvas_of(WorldConfig(canvases=((48, 64), (64, 64)))) == (64, 64)
    assert canvas_of(WorldConfig(canvases=((48, 64), (32, 96)))) == (48, 64)
    assert plain(WorldConfig(nouns=7)) == WorldConfig(nouns=7, two_tone=0.0)


@pytest.mark.parametrize(("limit", "batch", "message"), [(0, 1, "limit is 0"), (1, -2, "batch is -2")])
def test_counts_must_be_positive(random_model: Dimoo, world: WorldConfig, limit: int, batch: int, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        score(random_model, world, limit=limit, batch=batch)
