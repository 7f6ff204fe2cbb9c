from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from rich.progress import Progress

from dimoo.core.errors import CheckpointError, ConfigError, RequestError
from dimoo.core.requests import AskRequest, GenerateRequest, Request
from dimoo.data.world import Scene, WorldConfig, describe, prompts, qa_suite, render
from dimoo.data.world.tasks import KINDS
from dimoo.evaluation.cases import picture_of
from dimoo.evaluation.requests import request_of
from dimoo.evaluation.suites import WORLD_FILE, Evaluation, canvas_of, evaluate, plain, world_at, world_of
from dimoo.evaluation.task_cases import draw_cases, suite
from dimoo.presets.families import FAMILIES
from dimoo.presets.tasks import STANDARD
from dimoo.tasks.model import Dimoo
from dimoo.tasks.problems import CAPTION_REQUEST
from dimoo.weights.hub import MINI

LIMIT, SEED = 28, 5
PICTURES = ("single_object", "background", "two_objects", "relation", "count", "place", "size")


TASKS = [(task, kind) for task, kinds in KINDS.items() for kind in kinds]
OF_KIND = 4


def key(request: Request) -> str:
    """What a request says, pictures byte by byte."""
    values = vars(request).items()
    return repr([(name, [one.tobytes() for one in images(value)] or value) for name, value in values])


def images(value: Any) -> list[Image.Image]:
    return [one for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, Image.Image)]


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
        self.config = SimpleNamespace(
            answer_tokens=8,
            caption_tokens=24,
            tasks={**STANDARD, "control": STANDARD["control"].model_copy(update={"text": "{option} {words}"})},
            template=SimpleNamespace(systems=dict.fromkeys(FAMILIES, "")),
        )
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
        self._told: dict[str, Any] = {}
        for task, kind in TASKS:
            for index, case in enumerate(draw_cases(world, task, kind, OF_KIND, SEED, split="heldout", canvas=canvas)):
                example = case.example
                picture = None if example.image is None else Image.fromarray(example.image)
                parts = tuple(part for part in (picture, example.text) if part is not None)
                self._told[key(request_of(example, SEED + index))] = parts if len(parts) > 1 else parts[0]

    def run(self, requests: list[Request]) -> list[Any]:
        self.batches.append(len(requests))
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Any:
        if not isinstance(request, GenerateRequest | AskRequest):
            return self._told[key(request)]
        if isinstance(request, GenerateRequest):
            return picture_of(self._scenes[request.prompt])
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
    assert sum(oracle.batches) == 5 * LIMIT + len(TASKS) * OF_KIND
    for name, value in scores.items():
        rights = [case.right for case in evaluation.cases if case.name == name]
        assert (value.n, value.score) == (len(rights), sum(rights) / len(rights))


def test_every_task_is_scored_by_kind_and_as_a_whole(perfect: tuple[Oracle, Evaluation]) -> None:
    scores, evaluation = perfect[1].scores, perfect[1]
    assert evaluation.left_out == {}
    for task, kinds in KINDS.items():
        names = (task, *kinds)
        assert [scores[name].score for name in names] == [1.0] * len(names), task
        assert [scores[name].n for name in names] == [OF_KIND * len(kinds), *[OF_KIND] * len(kinds)]
        assert scores[f"floor_{task}"].score < 0.35, task
        words = task in ("compare", "chat")
        assert [scores[f"ceiling_{name}"].score for name in names if not words] == [1.0] * len(names) * (not words)
        assert words == (f"ceiling_{task}" not in scores)
    assert (scores["edit_keeps"].score, scores["edit_keeps"].n) == (1.0, 4 * OF_KIND)


def test_what_the_table_lacks_is_left_out(random_model: Dimoo, world: WorldConfig) -> None:
    evaluation = score(random_model, world, limit=1)
    assert set(evaluation.left_out) == {kind for _, kind in TASKS}
    assert not {name for name in evaluation.scores if name in KINDS}
    assert "takes 1 pictures, not 2" in evaluation.left_out["compare_what"]
    assert "no task 'edit'" in evaluation.left_out["edit_add"]


def test_a_world_without_a_kind_leaves_it_out(willing_model: Dimoo, world: WorldConfig) -> None:
    one_color = world.model_copy(update={"colors": world.colors[:1], "two_tone": 0.0, "holdout": 0.4})
    drawn, left_out = suite(willing_model.config, one_color, 1, SEED, (64, 64))
    assert set(left_out) == {"edit_recolor"}
    assert {kind for _, kind in drawn} == {kind for _, kind in TASKS} - {"edit_recolor"}


def test_a_random_model_scores_nothing_and_twice_the_same(willing_model: Dimoo, world: WorldConfig) -> None:
    first, second = (score(willing_model, world, limit=2, batch=batch) for batch in (3, 16))
    assert first.scores == second.scores
    pictures = [[case.picture.tobytes() for case in run.cases] for run in (first, second)]
    assert pictures[0] == pictures[1]
    tasks = [task for task in KINDS if task != "compare"]
    for name in ("single_object", "two_objects", "questions", "caption_noun", *tasks):
        assert first.scores[name].score < 0.5, name


def test_the_world_is_read_beside_the_checkpoint(tmp_path: Path, world: WorldConfig) -> None:
    assert world_of(tmp_path) == WorldConfig()
    world.save(tmp_path / WORLD_FILE)
    assert world_of(tmp_path) == world
    (tmp_path / WORLD_FILE).write_text('{"nouns": 12, "moons": 3}')
    with pytest.raises(ConfigError, match="moons"):
        world_of(tmp_path)


def test_a_world_by_its_checkpoint_or_file(tmp_path: Path, world: WorldConfig) -> None:
    with pytest.raises(ConfigError, match=f"no world.json in '{tmp_path}'"):
        world_at(str(tmp_path))
    world.save(tmp_path / WORLD_FILE)
    assert world_at(str(tmp_path)) == world_at(str(tmp_path / WORLD_FILE)) == world
    assert world_at("mini") == world_of(MINI)
    with pytest.raises(CheckpointError, match="moon"):
        world_at(str(tmp_path / "moon"))
    with pytest.raises(ConfigError, match="d_model"):
        world_at(str(MINI / "config.json"))


def test_canvas_and_ground() -> None:
    assert canvas_of(WorldConfig(canvases=((48, 64), (64, 64)))) == (64, 64)
    assert canvas_of(WorldConfig(canvases=((48, 64), (32, 96)))) == (48, 64)
    assert plain(WorldConfig(nouns=7)) == WorldConfig(nouns=7, two_tone=0.0)


@pytest.mark.parametrize(("limit", "batch", "message"), [(0, 1, "limit is 0"), (1, -2, "batch is -2")])
def test_counts_must_be_positive(random_model: Dimoo, world: WorldConfig, limit: int, batch: int, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        score(random_model, world, limit=limit, batch=batch)
