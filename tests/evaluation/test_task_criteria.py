"""A right answer is right, and each way of being wrong is noticed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dimoo.core.requests import InpaintRequest, OutpaintRequest, TaskRequest
from dimoo.data.world import Background, Scene, WorldConfig, render
from dimoo.data.world.draws import TaskCase
from dimoo.data.world.styles import STYLES, stylise
from dimoo.data.world.tasks import KINDS, WorldTask
from dimoo.evaluation.requests import Answer, answer_of, request_of, true_answer
from dimoo.evaluation.task_cases import draw_cases
from dimoo.evaluation.task_criteria import CRITERIA, JUDGED, keeps, scores_of
from dimoo.tasks.regions import enlarged

WORLD = WorldConfig(nouns=24, canvases=((64, 64), (48, 48)), two_tone=0.0)
ALL = [(task, kind) for task, kinds in KINDS.items() for kind in kinds]


def cases(task: WorldTask, kind: str, count: int = 8) -> list[TaskCase]:
    return draw_cases(WORLD, task, kind, count, 3, split="train", canvas=(64, 64))


def seen(scene: Scene, **words: str) -> Answer:
    return Answer(picture=render(scene), seen=scene, **words)  # type: ignore[arg-type]


@pytest.mark.parametrize(("task", "kind"), ALL)
def test_the_truth_is_right_and_that_of_other_cases_mostly_not(task: WorldTask, kind: str) -> None:
    drawn = cases(task, kind)
    for name, right in scores_of(task, kind).items():
        assert all(right(case, true_answer(case)) for case in drawn), name
        if task != "chat" and kind not in ("compare_which", "compare_same"):  # few answers are possible there
            crossed = [right(a, true_answer(b)) for a, b in zip(drawn, drawn[1:] + drawn[:1], strict=True)]
            assert np.mean(crossed) < 0.5, name


@pytest.mark.parametrize(("task", "kind"), [(task, kind) for task, kind in ALL if task in JUDGED])
def test_a_missing_object_is_wrong(task: WorldTask, kind: str) -> None:
    right = CRITERIA[task]
    for case in cases(task, kind):
        assert case.scene is not None
        answer = replace(true_answer(case), seen=replace(case.scene, entities=case.scene.entities[:-1]))
        assert right(case, answer) == (not case.scene.entities)


@pytest.mark.parametrize("task", ["edit", "inpaint", "subject", "illustrate"])
def test_a_wrong_background_is_wrong(task: WorldTask) -> None:
    for kind in KINDS[task]:
        for case in cases(task, kind):
            assert case.scene is not None
            color = next(color for color in WORLD.colors if color not in case.scene.background.colors)
            other = replace(case.scene, background=Background(colors=(color,)))
            assert not CRITERIA[task](case, replace(true_answer(case), seen=other))


@pytest.mark.parametrize("kind", ["edit_add", "edit_replace", "edit_move"])
def test_an_edited_object_must_be_where_it_was_put(kind: str) -> None:
    """Elsewhere is wrong; except where an object was added and no place could be named."""
    outcomes = set()
    for case in cases("edit", kind, 24):
        assert case.before is not None
        assert case.scene is not None
        (new,) = (entity for entity in case.scene.entities if entity not in case.before.entities)
        far = replace(new, x=(new.x + 24) % 40, y=(new.y + 24) % 40)
        elsewhere = replace(case.scene, entities=tuple(far if e is new else e for e in case.scene.entities))
        named = " in the " in case.example.words or " at the " in case.example.words or " on the " in case.example.words
        right = CRITERIA["edit"](case, seen(elsewhere))
        assert not right or (kind == "edit_add" and not named)
        outcomes.add(right)
    assert False in outcomes


def test_what_an_edit_has_to_keep() -> None:
    for case in cases("edit", "edit_replace"):
        assert case.before is not None
        assert case.scene is not None
        truth = true_answer(case)
        assert truth.picture is not None
        inside = truth.picture.copy()
        (new,) = (entity for entity in case.scene.entities if entity not in case.before.entities)
        inside[new.y : new.y + new.size_px, new.x : new.x + new.size_px] = 0
        assert keeps(case, replace(truth, picture=inside))
        assert not keeps(case, replace(truth, picture=truth.picture // 2))


def test_one_given_pixel_that_changed_is_wrong() -> None:
    for kind in KINDS["inpaint"]:
        for case in cases("inpaint", kind):
            truth, given = true_answer(case), case.example.given
            assert truth.picture is not None
            assert given is not None
            for where, right in ((given, False), (~given, True)):
                changed = truth.picture.copy()
                y, x = np.argwhere(where)[0]
                changed[y, x] ^= 1
                assert CRITERIA["inpaint"](case, replace(truth, picture=changed)) == right


@pytest.mark.parametrize("task", ["style", "restyle"])
def test_another_style_and_none_are_wrong(task: WorldTask) -> None:
    for kind in KINDS[task]:
        for case in cases(task, kind, 3):
            content = case.example.images[0]
            for other in (content, *(stylise(content, style) for style in STYLES if not kind.endswith(style))):
                assert not CRITERIA[task](case, Answer(picture=other))


def test_another_view_is_wrong() -> None:
    for kind in KINDS["view"]:
        wrong = 0
        for case in cases("view", kind):
            front = case.example.images[0]
            wrong += not CRITERIA["view"](case, Answer(picture=front))
        assert wrong >= 6  # some objects are symmetric


def test_a_map_of_another_scene_is_wrong() -> None:
    for kind in KINDS["control"]:
        for case in cases("control", kind, 4):
            assert case.scene is not None
            moved = replace(
                case.scene,
                entities=tuple(replace(e, x=(e.x + 24) % 40, y=(e.y + 24) % 40) for e in case.scene.entities),
            )
            assert not CRITERIA["control"](case, seen(moved))


def test_words_must_agree_with_the_picture_beside_them() -> None:
    for case in cases("illustrate", "illustrate_one"):
        assert case.scene is not None
        color = next(color for color in WORLD.colors if color not in case.scene.background.colors)
        other = replace(case.scene, background=Background(colors=(color,)))
        said = str(case.example.text)
        assert not CRITERIA["illustrate"](case, seen(other, words=said))
        assert CRITERIA["illustrate"](case, seen(other, words=said.replace(case.scene.background.colors[0], color)))
        noun = case.scene.entities[0].noun
        wrong = said.replace(noun, next(word for word in WORLD.words if word != noun))
        assert not CRITERIA["illustrate"](case, seen(case.scene, words=wrong))


def test_a_request_says_what_its_example_says_and_not_the_answer() -> None:
    for task, kind in ALL:
        example = cases(task, kind, 1)[0].example
        request = request_of(example, 7)
        assert request.seed == 7
        match request:
            case TaskRequest():
                assert (request.task, request.words, request.option) == (example.task, example.words, example.option)
                assert [np.asarray(image).tobytes() for image in request.images] == [
                    image.tobytes() for image in example.images
                ]
            case InpaintRequest():
                assert example.given is not None
                np.testing.assert_array_equal(np.asarray(request.mask), ~example.given)
                assert {tuple(pixel) for pixel in np.asarray(request.image)[~example.given]} == {(128, 128, 128)}
            case OutpaintRequest():
                sides = (request.left, request.right, request.top, request.bottom)
                _, keep = enlarged(request.image, *sides)
                np.testing.assert_array_equal(keep, example.given)
            case _:
                raise AssertionError(kind)


def test_every_kind_of_known_part_becomes_a_request() -> None:
    kinds = {
        kind: {type(request_of(case.example, 0)) for case in cases("inpaint", kind, 24)} for kind in KINDS["inpaint"]
    }
    assert InpaintRequest in kinds["inpaint_region"]
    assert kinds["inpaint_extend"] == {OutpaintRequest}


def test_answers_of_all_forms() -> None:
    picture = Image.new("RGB", (4, 2), "red")
    assert answer_of("yes").words == "yes"
    assert answer_of(picture).picture.shape == (2, 4, 3)  # type: ignore[union-attr]
    both = answer_of((picture, "red"))
    assert both.words == "red"
    assert both.picture is not None
