"""Rows of JSON lines that are tasks and conversations: what they become, how pictures are cropped, what is bad."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dimoo.core.config import parse
from dimoo.core.errors import ConfigError, DataError
from dimoo.data.build import build_source
from dimoo.data.config import JsonlSourceConfig
from dimoo.data.example import Codes, Example, TaskExample
from dimoo.data.fitted import Fitted, sizes_of
from dimoo.data.jsonl import JsonlSource
from dimoo.data.rows import check, same_shape
from dimoo.presets.tasks import STANDARD, TaskText
from dimoo.tokenizers.image.resize import bucket_for, buckets, cover_crop

TASKS = {**STANDARD, "view": TaskText(family="multi_view", text="{option}", options={"left": "l"}, images=(1, 1))}
TURN = {"question": "which is red", "answer": "the first"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of noise by name: a and b of one size, wide of another shape, half of a half the size of a."""
    sizes = {"a": (48, 80), "b": (48, 80), "wide": (20, 80), "half": (24, 40)}
    for seed, (name, size) in enumerate(sizes.items()):
        pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    return tmp_path


def write(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as opened:
        return np.asarray(opened)


def test_a_task_has_all_its_parts(folder: Path) -> None:
    row = {
        "task": "control",
        "option": "canny",
        "words": "a cat",
        "images": ["a.png"],
        "image": "b.png",
        "text": "meow",
    }
    (one,) = JsonlSource(write(folder, row)).example(0).tasks
    assert (one.task, one.option, one.words, one.text) == ("control", "canny", "a cat", "meow")
    (image,) = one.images
    assert one.image is not None
    assert (image == pixels(folder / "a.png")).all()
    assert (one.image == pixels(folder / "b.png")).all()
    assert one.given is None


def test_conversations_about_several_pictures_or_none_are_tasks_turn_by_turn(folder: Path) -> None:
    other = {"question": "how many", "answer": "two"}
    source = JsonlSource(
        write(folder, {"images": ["a.png", "b.png"], "conversations": [TURN, other]}, {"conversations": [TURN]})
    )
    several, silent = source.example(0), source.example(1)
    assert [(one.task, one.words, one.text) for one in several.tasks] == [
        ("ask", "which is red", "the first"),
        ("ask", "how many", "two"),
    ]
    for one in several.tasks:
        assert [
            (image == pixels(folder / name)).all() for image, name in zip(one.images, ("a.png", "b.png"), strict=True)
        ]
        assert one.images[0] is several.tasks[0].images[0]  # so that it is encoded once
    assert [(one.task, one.words, one.text, one.images) for one in silent.tasks] == [
        ("chat", "which is red", "the first", ())
    ]
    assert (several.image, several.qa, silent.qa) == (None, (), ())


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no answer": ({"task": "edit", "words": "red", "images": ["a.png"]}, "the task has no answer"),
    "a caption too": ({"task": "edit", "image": "a.png", "caption": "a"}, "no caption and no conversations"),
    "no task": ({"words": "red", "image": "a.png"}, "words goes with a task"),
    "empty words": ({"task": "edit", "words": " ", "images": ["a.png"], "image": "b.png"}, "words: "),
    "images of a caption": ({"images": ["a.png"], "caption": "a"}, "images are for conversations about several"),
    "missing": (
        {"task": "edit", "images": ["a.png", "none.png"], "image": "no.png"},
        "images.1 'none.png': the image does not exist; image 'no.png': the image does not exist",
    ),
    "unknown task": ({"task": "sing", "text": "la"}, "no task 'sing'; it has generate,"),
    "too many": (
        {"task": "edit", "words": "red", "images": ["a.png", "b.png"], "image": "b.png"},
        "takes 1 pictures, not 2",
    ),
    "too few": ({"task": "subject", "words": "red", "image": "b.png"}, "takes 1 to 4 pictures, not 0"),
    "unknown option": (
        {"task": "view", "option": "up", "images": ["a.png"], "image": "b.png"},
        "no option 'up'; choose from left",
    ),
    "words left over": (
        {"task": "view", "option": "left", "words": "a", "images": ["a.png"], "image": "b.png"},
        "takes no words",
    ),
    "text left over": (
        {"task": "generate", "words": "a", "image": "a.png", "text": "b"},
        "answers with no text; leave text out",
    ),
    "no picture": ({"task": "generate", "words": "a", "text": "b"}, "answers with a picture; give the row its image"),
    "half of both": (
        {"task": "illustrate", "words": "a", "image": "a.png"},
        "answers with a text; give the row its text",
    ),
    "another shape": (
        {"task": "edit", "words": "a", "images": ["a.png"], "image": "wide.png"},
        "differ by more than 1%",
    ),
    "inpaint": ({"task": "inpaint", "words": "a", "image": "a.png"}, "needs a region"),
    "words alone": ({"caption": "words"}, "there is no picture to go with the words"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_reported_with_its_line_and_reason(name: str, folder: Path) -> None:
    row, reason = BAD[name]
    good = {"task": "edit", "words": "a", "images": ["a.png"], "image": "half.png"}
    path = write(folder, good, row)
    with pytest.raises(DataError) as raised:
        JsonlSource(path, check=partial(check, tasks=TASKS))
    (line,) = str(raised.value).splitlines()[1:]
    assert line.strip().startswith("rows.jsonl:2: ")
    assert reason in line
    source = JsonlSource(path, on_bad="report", check=partial(check, tasks=TASKS))
    assert (source.size, [row.where for row in source.bad]) == (1, ["rows.jsonl:2"])


def test_chat_needs_a_table_that_has_it(folder: Path) -> None:
    path = str(write(folder, {"conversations": [TURN]}))
    config = JsonlSourceConfig(path=path, size=(16, 16))
    assert (
        build_source(config, seed=0, examples=1, check=partial(check, tasks=STANDARD)).example(0).tasks[0].task
        == "chat"
    )
    assert build_source(config, seed=0, examples=1).example(0).tasks[0].task == "chat"
    silent = {name: entry for name, entry in STANDARD.items() if name != "chat"}
    with pytest.raises(DataError, match=r"rows\.jsonl:1: this model has no task 'chat'"):
        build_source(config, seed=0, examples=1, check=partial(check, tasks=silent))


def test_both_pictures_of_a_pair_get_one_crop(folder: Path) -> None:
    """Where a pixel of the source went, the pixel of the edited picture went too."""
    row = {"task": "edit", "words": "a", "images": ["a.png"], "image": "a.png"}
    doubled = pixels(folder / "a.png").repeat(2, 0).repeat(2, 1)
    Image.fromarray(doubled).save(folder / "double.png")
    rows = [row, {**row, "image": "double.png"}]
    source = Fitted(source=JsonlSource(write(folder, *rows)), sizes=sizes_of(64))
    for index in range(2):
        (one,) = source.example(index).tasks
        (before,), after = one.images, one.image
        assert isinstance(before, np.ndarray)
        assert isinstance(after, np.ndarray)
        assert before.shape == after.shape == (32, 64, 3)
        # The double one is filtered in another resolution, so only the mean of its differences is small.
        assert np.abs(before.astype(float) - after).mean() < (1e-9 if index == 0 else 20)
    other = Fitted(source=JsonlSource(write(folder, {**row, "image": "b.png"})), sizes=sizes_of(64)).example(0).tasks[0]
    assert np.abs(np.asarray(other.images[0], float) - np.asarray(other.image, float)).mean() > 30  # the bound can fail


class One:
    """A source of one example."""

    def __init__(self, example: Example) -> None:
        self.size, self._example = 1, example

    def example(self, index: int) -> Example:
        return self._example

    def file_sizes(self, index: int) -> list[int]:
        return []


@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([64, 96, 128]))
def test_pictures_take_the_bucket_that_they_fill_best(height: int, width: int, target: int) -> None:
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    answer = np.zeros((64, 64, 3), np.uint8)
    task = TaskExample(task="subject", words="a", images=(image,), image=answer)
    fitted = Fitted(source=One(Example(image=image, tasks=(task,))), sizes=sizes_of(target)).example(0)
    bucket = bucket_for((height, width), buckets(target))
    wanted = np.asarray(cover_crop(Image.fromarray(image), bucket))
    assert (fitted.image == wanted).all()
    assert fitted.tasks[0].images[0] is fitted.image
    assert isinstance(fitted.tasks[0].image, np.ndarray)
    pair = abs(height - width) <= 0.01 * max(height, width)
    assert fitted.tasks[0].image.shape[:2] == (bucket if pair else bucket_for((64, 64), buckets(target)))


def test_pictures_of_one_shape_may_differ_by_the_rounding_of_their_sides() -> None:
    def blank(height: int, width: int) -> np.ndarray[Any, Any]:
        return np.zeros((height, width, 3), np.uint8)

    assert same_shape(blank(768, 1023), blank(384, 512))
    assert same_shape(blank(100, 101), blank(100, 100))
    assert not same_shape(blank(100, 103), blank(100, 100))
    codes = Codes(codes=np.zeros((4, 8), np.int32), fingerprint="x")
    assert same_shape(codes, blank(4, 8))
    assert not same_shape(codes, blank(8, 4))


@pytest.mark.parametrize("size", [50, 0, [64], "64", 64.0])
def test_a_size_is_height_and_width_or_a_multiple_of_the_buckets_unit(size: object) -> None:
    with pytest.raises(ConfigError, match="size"):
        parse(JsonlSourceConfig, {"path": "a", "size": size})
    for good in (64, [64, 48]):
        assert parse(JsonlSourceConfig, {"path": "a", "size": good}).model_dump(mode="json")["size"] == good
