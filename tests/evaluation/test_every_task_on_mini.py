"""What the bundled model does for every task, by content: few fixed easy cases of each kind, most of them right.

Scenes show one object on one colour (two where the task needs two) in combinations that training knows. A kind is
skipped only where the model's own table does not have its task. Another checkpoint: `pytest THIS --model FOLDER`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dimoo
from dimoo.core.requests import InpaintRequest, Request, RetouchRequest
from dimoo.data.world import WorldConfig, sample_scene
from dimoo.data.world.draws import TaskCase
from dimoo.data.world.language import plain_caption
from dimoo.data.world.tasks import KINDS, WorldTask
from dimoo.evaluation.criteria import fulfils
from dimoo.evaluation.judge import Judge
from dimoo.evaluation.requests import Answer, answer_of, request_of, untaught
from dimoo.evaluation.suites import plain, world_of
from dimoo.evaluation.task_cases import draw_cases, judged
from dimoo.evaluation.task_criteria import CRITERIA, Right, keeps
from dimoo.tasks.model import Dimoo
from dimoo.weights.hub import resolve

SMALL, ROOMY = (32, 32), (48, 48)
NEED_ROOM = {*KINDS["inpaint"], "edit_add", "edit_move", "subject_two", "illustrate_two"}
EACH, SEED, BATCH = 8, 11, 40
UNLEARNT = {
    "view_rotated",
    "restyle_inverted",
    "restyle_outlined",
    "compare_which",
    "compare_color",
    "illustrate_two",
}
"""What `mini` does right for at most half of its cases; its card has the scores. A better one makes these pass."""
STEPS = 8
ALL = [(task, kind) for task, kinds in KINDS.items() for kind in kinds]

Pool = dict[str, list[tuple[TaskCase, Answer]]]


def canvas_for(kind: str) -> tuple[int, int]:
    return ROOMY if kind in NEED_ROOM else SMALL


@pytest.fixture(scope="session")
def folder(pytestconfig: pytest.Config) -> Path:
    return resolve(pytestconfig.getoption("--model"))


@pytest.fixture(scope="session")
def model(folder: Path) -> Dimoo:
    return dimoo.load(folder)


@pytest.fixture(scope="session")
def easy(folder: Path) -> WorldConfig:
    return plain(world_of(folder)).model_copy(update={"object_counts": (1.0, 0.0, 0.0, 0.0)})


@pytest.fixture(scope="session")
def missing(folder: Path, model: Dimoo, easy: WorldConfig) -> dict[str, str]:
    """Kinds that the model's table does not have, and why."""
    if "tasks" not in json.loads((folder / "config.json").read_text(encoding="utf-8")):
        return {kind: "this checkpoint has no table of tasks" for _, kind in ALL}
    drawn = {
        kind: draw_cases(easy, task, kind, 1, SEED, split="train", canvas=canvas_for(kind))[0] for task, kind in ALL
    }
    reasons = {kind: untaught(model.config, case.example) for kind, case in drawn.items()}
    return {kind: reason for kind, reason in reasons.items() if reason}


@pytest.fixture(scope="session")
def pool(model: Dimoo, easy: WorldConfig, missing: dict[str, str]) -> Pool:
    """Cases and judged answers by kind, made in a few batches of all tasks mixed."""
    cases = {
        (task, kind): draw_cases(easy, task, kind, EACH, SEED, split="train", canvas=canvas_for(kind))
        for task, kind in ALL
        if kind not in missing
    }
    requests: list[Request] = [request_of(case.example, SEED) for group in cases.values() for case in group]
    parts = [requests[start : start + BATCH] for start in range(0, len(requests), BATCH)]
    quick = model.config.image.model_copy(update={"steps": STEPS})
    results = (answer_of(made) for part in parts for made in model.run(part, image=quick))
    judge = Judge(world=easy)
    return {
        kind: list(zip(group, judged(judge, task, [next(results) for _ in group]), strict=True))
        for (task, kind), group in cases.items()
    }


def right_share(pool: Pool, kind: str, right: Right) -> float:
    return float(np.mean([right(case, answer) for case, answer in pool[kind]]))


@pytest.mark.parametrize(("task", "kind"), ALL)
def test_most_answers_are_right(
    task: WorldTask, kind: str, pool: Pool, missing: dict[str, str], request: pytest.FixtureRequest
) -> None:
    if kind in missing:
        pytest.skip(missing[kind])
    if kind in UNLEARNT:
        request.applymarker(pytest.mark.xfail(reason="not learnt by the bundled model", strict=False))
    share = right_share(pool, kind, CRITERIA[task])
    words = [(case.example.words or kind, answer.words, answer.seen) for case, answer in pool[kind]]
    assert share > 0.5, f"{share:.2f} right: {words}"


@pytest.mark.parametrize("task", [task for task, kinds in KINDS.items() if len(kinds) > 1 and task != "illustrate"])
def test_most_answers_of_a_task_are_right(task: WorldTask, pool: Pool, missing: dict[str, str]) -> None:
    """Of all its kinds together; of `illustrate`, that with one object alone is easy."""
    kinds = KINDS[task]
    if reasons := [missing[kind] for kind in kinds if kind in missing]:
        pytest.skip(reasons[0])
    shares = {kind: right_share(pool, kind, CRITERIA[task]) for kind in kinds}
    assert np.mean(list(shares.values())) > 0.5, shares


@pytest.mark.parametrize("kind", [kind for kind in KINDS["edit"] if kind != "edit_recolor"])
def test_edits_keep_the_rest(kind: str, pool: Pool, missing: dict[str, str]) -> None:
    if kind in missing:
        pytest.skip(missing[kind])
    assert right_share(pool, kind, keeps) > 0.5


@pytest.mark.parametrize("kind", KINDS["inpaint"])
def test_no_given_pixel_changes(kind: str, pool: Pool, missing: dict[str, str]) -> None:
    """Not most, but every one."""
    if kind in missing:
        pytest.skip(missing[kind])
    for case, answer in pool[kind]:
        given, truth = case.example.given, case.example.image
        assert given is not None
        assert truth is not None
        assert answer.picture is not None
        np.testing.assert_array_equal(answer.picture[given], truth[given])
        assert not np.array_equal(answer.picture, np.where(given[..., None], truth, 128))


def inpainted(before: Image.Image, mask: Image.Image, prompt: str) -> Request:
    return InpaintRequest(image=before, mask=mask, prompt=prompt, seed=SEED)


def retouched(before: Image.Image, mask: Image.Image, prompt: str) -> Request:
    return RetouchRequest(image=before, marks=(mask,), prompt=prompt, feather=2, seed=SEED)


@pytest.mark.parametrize("made_by", [inpainted, retouched])
def test_an_object_becomes_another(
    made_by: Callable[[Image.Image, Image.Image, str], Request], model: Dimoo, easy: WorldConfig
) -> None:
    """Every model of the world can: the square of an object, masked, and the prompt of a picture with another one."""
    asked: list[tuple[Any, Request, Any, Any]] = []
    for case in draw_cases(easy, "edit", "edit_replace", EACH, SEED, split="train", canvas=ROOMY):
        assert case.before is not None
        assert case.scene is not None
        (old,) = case.before.entities
        region = np.zeros(ROOMY, np.bool_)
        region[old.y : old.y + old.size_px, old.x : old.x + old.size_px] = True
        before = Image.fromarray(case.example.images[0])
        words = case.example.words.partition(" with ")[2] + f" on a {case.scene.background.colors[0]} background"
        asked.append((case.scene, made_by(before, Image.fromarray(region), words), region, np.asarray(before)))
    made = [np.asarray(picture) for picture in model.run([request for _, request, _, _ in asked])]
    seen = [one.scene for one in Judge(world=easy).see(np.stack(made))]
    assert np.mean([fulfils("one", truth, one) for (truth, *_), one in zip(asked, seen, strict=True)]) > 0.5
    for (_, _, region, before), after in zip(asked, made, strict=True):
        np.testing.assert_array_equal(after[~region], before[~region])


@pytest.mark.parametrize("size", [(64, 64), (48, 64), (32, 32)])
def test_prompts_are_drawn_at_several_sizes(size: tuple[int, int], model: Dimoo, easy: WorldConfig) -> None:
    rng = np.random.default_rng(SEED)
    truths = [sample_scene(easy, rng, "train", canvas=size) for _ in range(EACH)]
    pictures = model.generate([plain_caption(truth) for truth in truths], size=size, seed=SEED)
    assert {picture.size for picture in pictures} == {size[::-1]}
    seen = [one.scene for one in Judge(world=easy).see(np.stack([np.asarray(picture) for picture in pictures]))]
    assert np.mean([fulfils("one", truth, one) for truth, one in zip(truths, seen, strict=True)]) > 0.5
