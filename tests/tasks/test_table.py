"""Tasks of the table through the real request path: contexts, answers, sizes, and every field of an entry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from task_cases import equal, picture, served_by

import dimoo
from dimoo.core.config import parse
from dimoo.core.errors import RequestError
from dimoo.presets.config import ModelConfig
from dimoo.presets.tasks import TaskText
from dimoo.tasks.dispatch import job_of
from dimoo.tokenizers.document import GIVEN

ONE, TWO, THREE = picture(16, 8, 1), picture(8, 24, 2), picture(8, 8, 3)


def job(model, request):
    return job_of(model.kit, request, image=model.config.image, text=model.config.text)


def wanted(model, request):
    """Modality and tokens of what a request has made, by group of targets."""
    answer = job(model, request).problem.answer
    return [(target.modality, int((answer.group == index).sum())) for index, target in enumerate(answer.targets)]


def said(model, request):
    return job(model, request).problem.branches["condition"].ids.tolist()


def context(model, family, *pieces):
    """A context, whose pictures are encoded one by one."""
    grids = [model.kit.grid(piece) if isinstance(piece, Image.Image) else piece for piece in pieces]
    return model.prompts.context(family, grids).ids.tolist()


CALLS = [
    (
        lambda m: m.edit(ONE, "the red apple", seed=3),
        dimoo.TaskRequest(task="edit", words="the red apple", images=(ONE,), seed=3),
        ("editing", "the red apple", ONE),
        (16, 8),
    ),
    (
        lambda m: m.subject([ONE, TWO], "two dogs", size=(24, 8), negative="a cat", seed=4),
        dimoo.TaskRequest(
            task="subject", words="two dogs", images=(ONE, TWO), height=24, width=8, negative="a cat", seed=4
        ),
        ("subject", "two dogs", ONE, TWO),
        (24, 8),
    ),
    (
        lambda m: m.subject(ONE, "two dogs"),
        dimoo.TaskRequest(task="subject", words="two dogs", images=(ONE,)),
        ("subject", "two dogs", ONE),
        (16, 24),
    ),
    (
        lambda m: m.stylize(ONE, TWO, seed=5),
        dimoo.TaskRequest(task="style", images=(ONE, TWO), seed=5),
        ("style", "as the second", ONE, TWO),
        (16, 8),
    ),
    (
        lambda m: m.stylize(TWO, "white"),
        dimoo.TaskRequest(task="restyle", words="white", images=(TWO,)),
        ("style", "white", TWO),
        (8, 24),
    ),
    (
        lambda m: m.control(TWO, "depth", "a cat", negative="two dogs"),
        dimoo.TaskRequest(task="control", words="a cat", option="depth", images=(TWO,), negative="two dogs"),
        ("control", "red apple: a cat", TWO),
        (8, 24),
    ),
    (
        lambda m: m.predict(ONE, "canny", seed=9),
        dimoo.TaskRequest(task="predict", option="canny", images=(ONE,), seed=9),
        ("dense", "white apple", ONE),
        (16, 8),
    ),
    (
        lambda m: m.view(THREE, "left"),
        dimoo.TaskRequest(task="view", option="left", images=(THREE,)),
        ("multi_view", "left", THREE),
        (8, 8),
    ),
]


@pytest.mark.parametrize(("call", "request_", "message", "size"), CALLS)
def test_a_call_is_its_request_said_as_the_table_says(every, call, request_, message, size):
    made = call(every)
    assert equal(made, every.run([request_])[0])
    assert (made.height, made.width) == size
    assert said(every, request_) == context(every, *message)
    assert wanted(every, request_) == [("image", size[0] * size[1] // 64)]
    other = type(request_)(**{**vars(request_), "seed": request_.seed + 1})
    assert not equal(made, every.run([other])[0])


def test_a_picture_and_words_in_one_answer(every):
    request = dimoo.TaskRequest(task="illustrate", words="a cat", height=8, width=16, tokens=5, seed=2)
    made, words = every.illustrate("a cat", size=(8, 16), tokens=5, seed=2)
    assert made.size == (16, 8)
    assert (made.tobytes(), words) == (lambda pair: (pair[0].tobytes(), pair[1]))(every.run([request])[0])
    assert wanted(every, request) == [("image", 2), ("text", 5)]
    assert wanted(every, dimoo.TaskRequest(task="illustrate")) == [("image", 6), ("text", 6)]  # the model's own
    stream = every.stream([request])
    *_, last = stream
    assert [span.row for span in last.canvas.spans] == [0, 0]
    read = every.prompts.read_text(last.canvas.ids[1 + 2 + 3 :])
    assert words == read


def test_words_get_the_models_own_number_of_tokens(every):
    assert wanted(every, dimoo.TaskRequest(task="ask", words="what", images=(ONE,))) == [("text", 4)]
    assert wanted(every, dimoo.TaskRequest(task="chat", words="what")) == [("text", 6)]
    assert wanted(every, dimoo.TaskRequest(task="chat", words="what", tokens=9)) == [("text", 9)]


def test_one_side_of_a_size_can_be_said_alone(every):
    tall = dimoo.TaskRequest(task="edit", words="a", images=(TWO,), height=32)
    assert every.run([tall])[0].size == (24, 32)
    wide = dimoo.TaskRequest(task="generate", words="a", width=8)
    assert every.run([wide])[0].size == (8, 16)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (dimoo.TaskRequest(task="sing"), "no task 'sing'; it has generate, inpaint"),
        (dimoo.TaskRequest(task=7), "the task 7 must be a string"),
        (dimoo.TaskRequest(task="edit", words="a"), "takes 1 pictures, not 0"),
        (dimoo.TaskRequest(task="edit", words="a", images=("cat.png",)), "must be a Pillow image, not str"),
        (dimoo.TaskRequest(task="edit", words=None, images=(ONE,)), "the prompt None must be a string"),
        (dimoo.TaskRequest(task="predict", option=None, images=(ONE,)), "the option None must be a string"),
        (dimoo.TaskRequest(task="predict", option="normals", images=(ONE,)), "no option 'normals'; choose from canny"),
        (dimoo.TaskRequest(task="ask", words="a", images=(ONE,), height=8), "'ask' makes no picture; leave height and"),
        (dimoo.TaskRequest(task="chat", words="a", width=8), "'chat' makes no picture; leave height and width out"),
        (dimoo.TaskRequest(task="edit", words="a", images=(ONE,), tokens=4), "'edit' makes no words; leave tokens out"),
        (dimoo.TaskRequest(task="illustrate", words="a", tokens=0), "an answer of 0 tokens cannot hold anything"),
        (dimoo.TaskRequest(task="illustrate", words="a", height=8.0), r"size \(8\.0, 24\) must be \(height, width\)"),
        (dimoo.TaskRequest(task="generate", words="a", height=12), r"\(12, 24\) is not a multiple of 8"),
        (dimoo.TaskRequest(task="edit", words="a", images=(picture(12, 8),)), r"\(12, 8\) is not a multiple of 8"),
        (dimoo.TaskRequest(task="chat", words="a", negative="b"), "guides pictures, but the answer has none"),
        (dimoo.TaskRequest(task="edit", words="cat " * 99, images=(ONE,)), "more than the 64"),
        (dimoo.TaskRequest(task="generate", words="a", seed="b"), "seed 'b' must be a whole number"),
    ],
)
def test_what_does_not_fit_is_refused(every, request_, message):
    with pytest.raises(RequestError, match=message):
        every.run([request_])


def test_a_family_that_was_not_taught_is_named_with_those_that_were(model):
    with pytest.raises(RequestError, match="not taught the task family 'editing'; it knows text_to_image, underst"):
        model.edit(ONE, "a cat")


# ---- pictures that are fitted: targets of 64 (asked about alone) and 32 pixels squared, in units of 32

PHOTO = picture(40, 70, 5)


@pytest.fixture
def fitting(every):
    return served_by(every, every.backbone, input_targets=(64, 32))


def fit(image, height, width):
    return ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)


def test_one_picture_that_is_asked_about_is_looked_at_more_closely(fitting):
    one = dimoo.TaskRequest(task="ask", words="what", images=(PHOTO,))
    assert said(fitting, one) == context(fitting, "understanding", "what", fit(PHOTO, 32, 64))
    two = dimoo.TaskRequest(task="ask", words="what", images=(PHOTO, ONE))
    small = [fit(PHOTO, 32, 32), fit(ONE, 32, 32)]
    assert said(fitting, two) == context(fitting, "understanding", "what", *small)


def test_source_and_answer_are_cropped_alike(fitting):
    request = dimoo.TaskRequest(task="edit", words="a red apple", images=(PHOTO,))
    assert said(fitting, request) == context(fitting, "editing", "a red apple", fit(PHOTO, 32, 32))
    assert wanted(fitting, request) == [("image", 16)]
    assert fitting.edit(PHOTO, "a red apple").size == (32, 32)
    assert fitting.subject(PHOTO, "a red apple").size == (24, 16)  # the model's own


def test_without_targets_pictures_are_taken_as_they_are(every):
    assert every.config.input_targets is None
    request = dimoo.TaskRequest(task="edit", words="a", images=(TWO,))
    assert said(every, request) == context(every, "editing", "a", TWO)
    with pytest.raises(RequestError, match=r"\(40, 70\) is not a multiple of 8; the nearest that is: \(40, 72\)"):
        every.edit(PHOTO, "a")


def test_interleaved_pictures_are_fitted_too(fitting):
    request = dimoo.InterleavedRequest(parts=("a", PHOTO, "red"), answer=(dimoo.TextAnswer(),))
    assert said(fitting, request) == context(fitting, "other", "a", fit(PHOTO, 32, 64), "red")
    drawn = dimoo.InterleavedRequest(parts=("a", PHOTO, "red"), answer=(dimoo.PictureAnswer(),))
    assert said(fitting, drawn) == context(fitting, "other", "a", fit(PHOTO, 32, 32), "red")


# ---- the table is data

BASE = {"family": "editing", "text": "{option} {words}", "options": {"x": "red"}, "images": (1, 1), "answer": "image"}
CHANGES = {
    "family": "style",
    "text": "{words} {option}",
    "options": {"x": "green"},
    "images": (1, 2),
    "answer": "both",
    "size": "picture",
}


def probe(model, **entry):
    """All that an entry decides: what is said, what is made, and how many pictures it takes."""
    own = served_by(model, model.backbone, tasks={"task": TaskText(**entry)})
    several = []
    for count in range(4):
        request = dimoo.TaskRequest(task="task", words="a cat", option="x", images=(ONE,) * count)
        try:
            several.append((said(own, request), wanted(own, request)))
        except RequestError as error:
            several.append(str(error))
    return several


def test_every_field_of_an_entry_changes_something(every):
    assert CHANGES.keys() == TaskText.model_fields.keys()
    before = probe(every, **BASE)
    assert before == probe(every, **BASE)
    for field, value in CHANGES.items():
        assert probe(every, **{**BASE, field: value}) != before, field


def test_a_table_survives_the_file_and_works_as_before(every, tmp_path):
    config = every.config
    assert parse(ModelConfig, config.model_dump(mode="json")) == config
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config
    loaded = dimoo.load(every.save(tmp_path / "model"))
    assert loaded.config.tasks == config.tasks
    request = dimoo.TaskRequest(task="control", words="a cat", option="depth", images=(ONE,), seed=1)
    assert equal(loaded.run([request])[0], every.run([request])[0])


def test_a_task_of_ones_own_is_an_entry(every):
    """A new task needs no code."""
    entry = TaskText(family="editing", text="two {words} left of it", images=(1, 1), size="picture")
    own = served_by(every, every.backbone, tasks={**every.config.tasks, "double": entry})
    made = own.run([dimoo.TaskRequest(task="double", words="dogs", images=(ONE,), seed=1)])[0]
    assert equal(made, every.edit(ONE, "two dogs left of it", seed=1))


def test_requests_leave_pictures_as_they_are(every):
    image = picture(16, 8, 7)
    before = np.asarray(image).copy()
    every.edit(image, "a cat")
    assert np.array_equal(np.asarray(image), before)


def test_only_the_answer_is_made(every):
    for request in (CALLS[0][1], CALLS[3][1]):
        made = job(every, request).problem
        assert all(bool((branch.group == GIVEN).all()) for branch in made.branches.values())
        assert torch.equal(made.answer.group != GIVEN, made.answer.ids == every.config.vocabulary.mask)
