"""What cannot be served is refused before the network is asked anything, also next to what can be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from llada_like import llada_like
from task_cases import Idle, box, picture, served_by

import dimoo
from dimoo.core.errors import RequestError
from dimoo.presets.config import ImageSettings, TextSettings

ONE, TWO, ODD = picture(16, 8, 1), picture(8, 24, 2), picture(12, 8, 3)
TASK, EDIT = dimoo.TaskRequest, dimoo.TaskRequest(task="edit", words="a cat", images=(ONE,))
USER = dimoo.Message(role="user", content="hello")
PICTURE, WORDS = dimoo.PictureAnswer(), dimoo.TextAnswer()
GOOD = dimoo.GenerateRequest(prompt="a cat")

BAD = [
    (dimoo.GenerateRequest(prompt="a", height=12), {}, "not a multiple of 8"),
    (dimoo.GenerateRequest(prompt="a", width=0), {}, "not a multiple of 8"),
    (dimoo.GenerateRequest(prompt="cat " * 99), {}, "more than the 64"),
    (dimoo.GenerateRequest(prompt=7), {}, "must be a string"),
    (dimoo.GenerateRequest(prompt="a", seed=0.5), {}, "must be a whole number"),
    (dimoo.GenerateRequest(prompt="a", negative=7), {}, "the negative prompt 7 must be a string"),
    (dimoo.GenerateRequest(prompt="a", negative="cat " * 99), {}, "more than the 64"),
    (dimoo.GenerateRequest(prompt="a", negative="b"), {"image": ImageSettings(guidance=0.0)}, "without guidance"),
    (replace(EDIT, negative="b"), {"image": ImageSettings(conditions={})}, "without guidance"),
    (replace(EDIT, negative="b"), {"image": ImageSettings(conditions={"no_text": 0.0})}, "without guidance"),
    (EDIT, {"image": ImageSettings(conditions={"no_style": 1.0})}, "takes the branch 'no_style', but the request's"),
    (EDIT, {"image": ImageSettings(conditions={"no_image_2": 1.0})}, "takes the branch 'no_image_2'"),
    (replace(EDIT, images=(ONE, TWO)), {}, "takes 1 pictures, not 2"),
    (replace(EDIT, images=()), {}, "takes 1 pictures, not 0"),
    (replace(EDIT, images=(ODD,)), {}, "not a multiple of 8"),
    (replace(EDIT, images=("cat.png",)), {}, "must be a Pillow image"),
    (replace(EDIT, height=20), {}, "not a multiple of 8"),
    (replace(EDIT, tokens=3), {}, "makes no words"),
    (replace(EDIT, option="canny"), {}, "takes no option"),
    (replace(EDIT, task="sing"), {}, "no task 'sing'"),
    (TASK(task="predict", option="normals", images=(ONE,)), {}, "no option 'normals'"),
    (TASK(task="predict", words="a", option="canny", images=(ONE,)), {}, "takes no words"),
    (TASK(task="view", images=(ONE,)), {}, "needs an option"),
    (TASK(task="subject", words="a", images=(ONE,) * 4), {}, "takes 1 to 3 pictures, not 4"),
    (TASK(task="ask", words="a", images=(ONE,), width=8), {}, "makes no picture"),
    (TASK(task="ask", words="a", images=(ONE,), negative="b"), {}, "the answer has none"),
    (dimoo.AskRequest(images=(ONE,) * 9, question="what"), {}, "takes 1 to 8 pictures, not 9"),
    (dimoo.AskRequest(images=(), question="what"), {}, "at least one image"),
    (dimoo.AskRequest(images=(ONE,), question=" "), {}, "the question is empty"),
    (dimoo.AskRequest(images=(ONE,), question="what", tokens=-1), {}, "an answer of -1 tokens"),
    (dimoo.AskRequest(images=(ONE,), question="what"), {"text": ImageSettings()}, "must be TextSettings or a Plan"),
    (dimoo.ChatRequest(messages=(USER, USER)), {}, "one message of the user, not 2"),
    (dimoo.ChatRequest(messages=(USER,), tokens=0), {}, "an answer of 0 tokens"),
    (dimoo.InpaintRequest(image=ONE, mask=box(8, 8, (0, 0, 8, 8)), prompt="a"), {}, "the mask is 8x8 but the image"),
    (dimoo.InpaintRequest(image=ONE, mask=box(16, 8, (0, 0, 0, 0)), prompt="a"), {}, "selects no pixel"),
    (dimoo.InpaintRequest(image=ODD, mask=box(12, 8, (0, 0, 8, 8)), prompt="a"), {}, "not a multiple of 8"),
    (
        dimoo.InpaintRequest(image=ONE, mask=box(16, 8, (0, 0, 8, 8)), prompt="a", negative="b"),
        {"image": ImageSettings(guidance=0.0)},
        "without guidance",
    ),
    (dimoo.OutpaintRequest(image=ONE, prompt="a"), {}, "all margins are 0"),
    (dimoo.OutpaintRequest(image=ONE, prompt="a", left=3), {}, "not a multiple of 8"),
    (dimoo.RetouchRequest(image=ONE, marks=()), {}, "there is no mark"),
    (dimoo.RetouchRequest(image=ONE, marks=(dimoo.Box(0, 0, 9, 8),)), {}, "reaches out of the picture"),
    (dimoo.RetouchRequest(image=ONE, marks=(dimoo.Box(0, 0, 8, 8),), feather=-1), {}, "is negative"),
    (dimoo.InterleavedRequest(parts=("a",) * 17, answer=(WORDS,)), {}, "parts must be 1 to 16 entries"),
    (dimoo.InterleavedRequest(parts=("a",), answer=(WORDS,) * 17), {}, "answer must be 1 to 16 entries"),
    (dimoo.InterleavedRequest(parts=("a",), answer=()), {}, "answer must be 1 to 16 entries"),
    (dimoo.InterleavedRequest(parts=("a",), answer=(PICTURE,), family="song"), {}, "not taught the task family"),
    (dimoo.InterleavedRequest(parts=("a",), answer=(WORDS,), negative="b"), {}, "the answer has none"),
    (
        dimoo.InterleavedRequest(parts=("a", ONE), answer=(PICTURE, WORDS)),
        {"image": ImageSettings(conditions={"no_image_1": 1.0})},
        "takes the branch 'no_image_1'",
    ),
    (dimoo.InterleavedRequest(parts=(ODD,), answer=(WORDS,)), {}, "not a multiple of 8"),
    (GOOD, {"image": TextSettings()}, "must be ImageSettings or a Plan"),
    ("a cat", {}, "a request is one of dimoo's requests"),
]


@pytest.fixture(scope="module")
def idle(every):
    """A model whose network must not be asked."""
    return served_by(every, Idle(every.backbone))


@pytest.mark.parametrize(("request_", "settings", "message"), BAD)
def test_nothing_is_computed_before_a_refusal(idle, request_, settings, message):
    for batch in ([request_], [GOOD, request_]):
        with pytest.raises(RequestError, match=message):
            idle.run(batch, **settings)


def test_the_network_of_these_tests_would_notice(idle):
    with pytest.raises(AssertionError, match="the network was asked"):
        idle.run([GOOD])
    with pytest.raises(AssertionError, match="the network was asked"):
        idle.run([EDIT], image=ImageSettings(conditions={"no_text": 1.0}))


@pytest.mark.parametrize("field", ["mask", "marks", "prompt", "parts"])
def test_a_task_of_the_table_takes_no_mask(field):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{field}'"):
        TASK(task="edit", words="a", images=(ONE,), **{field: ONE})


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.edit(ONE, "a"),
        lambda m: m.outpaint(ONE, "a", left=8),
        lambda m: m.retouch(ONE, dimoo.Box(0, 0, 8, 8)),
        lambda m: m.illustrate("a"),
        lambda m: m.run([dimoo.InterleavedRequest(parts=("a", ONE), answer=(WORDS,))]),
        lambda m: m.run([dimoo.InterleavedRequest(parts=("a",), answer=(PICTURE,))]),
    ],
)
def test_a_model_of_text_alone_says_so(call):
    model = llada_like()
    with pytest.raises(RequestError, match="this model knows text only"):
        call(served_by(model, Idle(model.backbone)))
