from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from world_oracle import (
    NUMBERS,
    PLACES,
    RELATIONS,
    background,
    check_caption,
    check_question,
    held_out,
    in_place,
    stands,
)

from dimoo.core.errors import ConfigError
from dimoo.data.world import Background, Entity, Scene, WorldConfig, describe, plain_caption, region, render
from dimoo.data.world.atlas import lexicon
from dimoo.data.world.draws import TaskCase
from dimoo.data.world.holdout import held_out_color
from dimoo.data.world.maps import map_of
from dimoo.data.world.palette import PALETTE
from dimoo.data.world.render import on_color
from dimoo.data.world.styles import stylise
from dimoo.data.world.tasks import KINDS, task_case
from dimoo.presets.tasks import STANDARD
from recipes.named.world import mini_world

WORLD = mini_world()
TASK_OF = {kind: task for task, kinds in KINDS.items() for kind in kinds}


def cases(kind: str, split: str = "train", *, n: int = 40, world: WorldConfig = WORLD, **options) -> list[TaskCase]:  # type: ignore[no-untyped-def]
    return [
        task_case(world, np.random.default_rng([5, i]), TASK_OF[kind], split, kind=kind, **options)  # type: ignore[arg-type]
        for i in range(n)
    ]


def read(picture: np.ndarray) -> tuple[str, str, int, int, int]:
    """(colour, noun, size, x, y) of the one object on a plain background, found by comparing all that it can be."""
    color = max(PALETTE, key=lambda name: int((picture == PALETTE[name]).all(-1).sum()))
    rows, columns = np.nonzero((picture != PALETTE[color]).any(-1))
    found = [
        (color, noun, size, x, y)
        for size in (WORLD.small, WORLD.big)
        for y in range(0, picture.shape[0] - size + 1, 8)
        for x in range(0, picture.shape[1] - size + 1, 8)
        if y <= rows.min() and rows.max() < y + size and x <= columns.min() and columns.max() < x + size
        for noun in WORLD.words
        if (on_color(noun, size, color) == picture[y : y + size, x : x + size]).all()
    ]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("kind", TASK_OF)
def test_cases_are_whole(kind: str) -> None:
    """What the table of tasks asks for is there, and equal draws give equal cases."""
    for case, again in zip(cases(kind, n=6), cases(kind, n=6), strict=True):
        example = case.example
        assert case.kind == kind
        entry = STANDARD[example.task]
        assert entry.images[0] <= len(example.images) <= entry.images[1]
        assert (example.image is not None) == (entry.answer != "text") == (case.scene is not None)
        assert (example.text is not None) == (entry.answer != "image")
        assert (example.given is not None) == (example.task == "inpaint")
        assert re.fullmatch(r"[a-z ]*", example.words + example.option)
        for picture in (*example.images, example.image):
            assert picture is None or (picture.dtype == np.uint8 and picture.shape[2:] == (3,))
        if case.scene is not None and example.image is not None:
            assert example.image.shape[:2] == (case.scene.height, case.scene.width)
            if entry.size == "picture":
                assert example.images[0].shape == example.image.shape
        one, other = again.example, example
        assert (one.words, one.option, one.text, again.before, again.scene) == (
            other.words, other.option, other.text, case.before, case.scene,
        )  # fmt: skip
        for a, b in zip((*one.images, one.image), (*other.images, other.image), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(one.given, other.given)


@pytest.mark.parametrize("kind", [kind for kind in TASK_OF if kind != "chat_fact"])
def test_training_never_sees_what_is_held_out(kind: str) -> None:
    for case in cases(kind):
        for scene in (case.before, case.scene):
            assert scene is None or not held_out(scene, WORLD.holdout)
    for case in cases(kind, "heldout", n=15):
        asked = case.scene or case.before
        assert asked is not None
        assert held_out(asked, WORLD.holdout)


@pytest.mark.parametrize("kind", [kind for kind in TASK_OF if kind != "chat_fact"])
def test_the_canvas_is_the_one_asked_for(kind: str) -> None:
    for case in cases(kind, n=5, canvas=(48, 64)):
        scene = case.scene or case.before
        assert scene is not None
        assert (scene.height, scene.width) == (48, 64)


@pytest.mark.parametrize("kind", KINDS["edit"])
def test_an_edit_shows_the_scenes_before_and_after(kind: str) -> None:
    for case in cases(kind, n=5):
        assert case.before is not None
        assert case.scene is not None
        np.testing.assert_array_equal(case.example.images[0], render(case.before))
        np.testing.assert_array_equal(case.example.image, render(case.scene))


def test_a_region_to_fill_is_a_box_around_one_object() -> None:
    named = larger = 0
    for case in cases("inpaint_region", n=200):
        scene, given = case.scene, case.example.given
        assert scene is not None
        assert given is not None
        np.testing.assert_array_equal(case.example.image, render(scene))
        rows, columns = np.nonzero(~given)
        top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        assert not given[top:bottom, left:right].any()
        assert given.any()
        assert top % 8 == bottom % 8 == left % 8 == right % 8 == 0
        steps = [
            (e, step)
            for e in scene.entities
            for step in (0, 8)
            if (top, left) == (max(0, e.y - step), max(0, e.x - step))
            and (bottom, right) == (min(scene.height, e.y + e.size_px + step), min(scene.width, e.x + e.size_px + step))
        ]
        assert steps
        larger += all(step for _, step in steps)
        phrases = {f"{lexicon()[e.noun].article} {e.noun}" for e, _ in steps}
        if case.example.words in phrases:
            named += 1
        else:
            check_caption(case.example.words, scene)
    assert 30 < named < 75
    assert 60 < larger < 130


@pytest.mark.parametrize("canvas", [None, (128, 128)])
def test_a_picture_to_extend_is_a_crop_missing_on_one_or_two_sides(canvas: tuple[int, int] | None) -> None:
    world = WORLD if canvas is None else WORLD.model_copy(update={"canvases": (canvas,), "canvas_weights": None})
    sides: Counter[int] = Counter()
    for case in cases("inpaint_extend", n=150, world=world):
        scene, given = case.scene, case.example.given
        assert scene is not None
        assert given is not None
        check_caption(case.example.words, scene)
        rows, columns = given.any(1), given.any(0)
        np.testing.assert_array_equal(given, rows[:, None] & columns)
        missing = 0
        for line in (rows, columns):
            kept = np.nonzero(line)[0]
            start, stop = int(kept[0]), int(kept[-1]) + 1
            assert stop - start == len(kept)
            assert start % 8 == stop % 8 == 0
            assert len(kept) == len(line) or len(line) / 2 <= len(kept) <= len(line) * 7 / 8
            missing += (start > 0) + (stop < len(line))
        sides[missing] += 1
    assert set(sides) == {1, 2}
    assert min(sides.values()) > 25


@pytest.mark.parametrize("kind", KINDS["subject"])
def test_subjects_are_known_by_their_pictures_alone(kind: str) -> None:
    placed = 0
    for case in cases(kind, n=25):
        scene, example = case.scene, case.example
        assert scene is not None
        shown = [read(picture) for picture in example.images]
        assert Counter((e.noun, e.size_px) for e in scene.entities) == Counter(
            (noun, px) for _, noun, px, _, _ in shown
        )
        for color, noun, px, x, y in shown:
            alone = Entity(noun=noun, size_name="big" if px == 32 else "small", size_px=px, x=x, y=y)
            assert not held_out(
                Scene(height=32, width=32, background=Background(colors=(color,)), entities=(alone,)), WORLD.holdout
            )
            assert x == y == (32 - px) // 16 * 8
        assert {picture.shape for picture in example.images} == {(32, 32, 3)}
        assert not any(re.search(rf"\b{noun}\b", example.words) for noun in WORLD.words)
        assert example.words.endswith(f" on a {background(scene)} background")
        said = example.words.removesuffix(f" on a {background(scene)} background")
        order = [next(e for e in scene.entities if e.noun == noun) for _, noun, *_ in shown]
        if kind == "subject_two":
            relation = re.fullmatch(rf"the first object ({'|'.join(RELATIONS)}) the second", said)
            assert relation is not None
            assert stands(order[0], relation[1], order[1])
        elif said != "this object":
            placed += 1
            assert in_place(order[0], scene, said.removeprefix("this object "))
    assert kind == "subject_two" or 0 < placed < 15


@pytest.mark.parametrize("kind", [*KINDS["style"], *KINDS["restyle"]])
def test_styles_are_applied_to_the_content(kind: str) -> None:
    task, style = kind.split("_")
    for case in cases(kind, n=8):
        assert case.scene is not None
        content = render(case.scene)
        np.testing.assert_array_equal(case.example.images[0], content)
        np.testing.assert_array_equal(case.example.image, stylise(content, style))
        assert case.example.words == ("" if task == "style" else f"make it {style}")


def test_the_reference_of_a_style_is_another_scene_in_that_style() -> None:
    single = WORLD.model_copy(update={"two_tone": 0.0, "object_counts": (1, 0, 0, 0)})
    for case in (*cases("style_inverted", world=single), *cases("style_inverted", "heldout", world=single)):
        content, reference = case.example.images
        assert reference.shape == content.shape
        color, noun, *_ = read(255 - reference)
        assert (255 - reference != content).any()
        assert not held_out_color(noun, color, WORLD.holdout)
    tiny = WorldConfig(
        nouns=1, canvases=((32, 32),), object_counts=(1, 0, 0, 0), colors=("blue",), two_tone=0, align=32
    )
    with pytest.raises(ConfigError, match="found no 'style_grey' for split 'any'"):
        cases("style_grey", "any", n=1, world=tiny.model_copy(update={"big_share": 1.0}))


@pytest.mark.parametrize("kind", [*KINDS["control"], *KINDS["predict"]])
def test_maps_go_one_way_and_the_other(kind: str) -> None:
    task, option = kind.split("_")
    for case in cases(kind, n=8):
        assert case.scene is not None
        pair = map_of(case.scene, option), render(case.scene)
        expected = pair if task == "control" else pair[::-1]
        np.testing.assert_array_equal(case.example.images[0], expected[0])
        np.testing.assert_array_equal(case.example.image, expected[1])
        assert case.example.option == option
        if task == "control":
            check_caption(case.example.words, case.scene)
        else:
            assert not case.example.words


@pytest.mark.parametrize("kind", KINDS["view"])
def test_views_are_turned(kind: str) -> None:
    for case in cases(kind, n=15):
        front, turned = case.example.images[0], case.example.image
        assert read(front)[0] == "white"
        assert turned is not None
        turns = np.fliplr(front) if kind == "view_mirrored" else np.rot90(front, 2)
        np.testing.assert_array_equal(turned, turns)
    other = cases(kind, n=3, world=WORLD.model_copy(update={"colors": ("yellow", "pink")}))
    assert {read(case.example.images[0])[0] for case in other} == {"yellow"}


@pytest.mark.parametrize("kind", KINDS["compare"])
def test_comparisons_are_answered_by_the_pictures(kind: str) -> None:
    answers: Counter[str] = Counter()
    for case in cases(kind, n=40):
        (first, second), words, answer = map(read, case.example.images), case.example.words, case.example.text
        assert not held_out_color(second[1], second[0], WORLD.holdout)
        assert answer is not None
        answers[answer] += 1
        if which := re.fullmatch(r"which picture shows the (.+)", words):
            assert [which[1] == first[1], which[1] == second[1]] == [answer == "first", answer == "second"]
        elif what := re.fullmatch(r"what is in the (first|second) picture", words):
            assert answer == (first if what[1] == "first" else second)[1]
        elif color := re.fullmatch(r"what colour is the background of the (first|second) picture", words):
            assert answer == (first if color[1] == "first" else second)[0]
        else:
            assert words == "do both pictures show the same object"
            assert answer == ("yes" if first[1] == second[1] else "no")
    assert len(answers) >= 2
    if kind in ("compare_which", "compare_same"):
        assert max(answers.values()) < 30


def test_what_is_asked_about_a_description_follows_from_it() -> None:
    asked: Counter[str] = Counter()
    for case in cases("chat_scene", n=300):
        scene, answer = case.before, case.example.text
        assert scene is not None
        assert answer is not None
        assert case.example.words.startswith(f"{describe(scene)} ")
        question = case.example.words.removeprefix(f"{describe(scene)} ")
        check_question(question, answer, scene)
        place = question.startswith("where") or question.removeprefix("what is ") in PLACES
        if place:
            assert all(region(e, scene) is not None for e in scene.entities)
        asked["place" if place else answer if question.startswith("is there") else question.split()[1]] += 1
    assert set(asked) == {"place", "yes", "no", "many", "colour"}
    assert min(asked.values()) > 20


def test_facts_of_this_world() -> None:
    seen: dict[str, str] = {}
    for case in cases("chat_fact", n=300):
        words, answer = case.example.words, case.example.text
        assert answer is not None
        if plural := re.fullmatch(r"what is the plural of (.+)", words):
            assert answer == lexicon()[plural[1]].plural
            words = "plural"
        elif color := re.fullmatch(r"is (an? )?(.+) a colour", words):
            assert answer == ("yes" if color[2] in WORLD.colors else "no")
            assert color[2] in WORLD.colors or color[1] == f"{lexicon()[color[2]].article} "
            words = f"colour {answer}"
        seen[words] = answer
    assert {words: seen[words] for words in ("hello", "who are you", "what can you draw")} == {
        "hello": "hello",
        "who are you": "a small model of emoji scenes",
        "what can you draw": "emoji on plain backgrounds",
    }
    assert seen["which colours do you know"] == "white and blue and green and pink and yellow and purple"
    assert {"plural", "colour yes", "colour no"} < set(seen)
    assert len(seen) == 7


@pytest.mark.parametrize("kind", KINDS["illustrate"])
def test_illustrations_show_the_nouns_and_say_the_rest(kind: str) -> None:
    for case in cases(kind, n=15):
        scene, example = case.scene, case.example
        assert scene is not None
        np.testing.assert_array_equal(example.image, render(scene))
        assert example.text == plain_caption(scene)
        check_caption(example.text, scene)
        nouns = [f"{lexicon()[e.noun].article} {e.noun}" for e in scene.entities]
        assert example.words == " and ".join(nouns)
        assert len(nouns) == NUMBERS[{"illustrate_one": "a", "illustrate_two": "two"}[kind]]


@pytest.mark.parametrize("task", KINDS)
def test_all_kinds_of_a_task_are_drawn(task: str) -> None:
    n = 60
    drawn = Counter(task_case(WORLD, np.random.default_rng([1, i]), task).kind for i in range(n))  # type: ignore[arg-type]
    assert set(drawn) == set(KINDS[task])  # type: ignore[index]
    assert min(drawn.values()) > n / len(drawn) / 4


def test_unknown_tasks_and_kinds_are_named() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="no task 'sing'; use one of edit, inpaint, "):
        task_case(WORLD, rng, "sing")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="task 'view' has no kind 'edit_add'; use one of view_mirrored, view_rotated"):
        task_case(WORLD, rng, "view", kind="edit_add")
    with pytest.raises(ConfigError, match=r"2 objects do not fit canvas \(32, 32\)"):
        task_case(WORLD, rng, "subject", kind="subject_two", canvas=(32, 32))
