"""What cannot be served is refused before the network is asked anything, also next to what can be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from llada_like import llada_like
from task_cases import Idle, box, picture, served_by

import dimoo
from dimoo.core.errors import RequestError
from dimoo.presets.config import ImageSettings, TextSettings
from dimoo.tasks.dispatch import job_of, jobs_of
from dimoo.tasks.unencoded import Unencoded

ONE, TWO, ODD = picture(16, 8, 1), picture(8, 24, 2), picture(12, 8, 3)
TASK, EDIT = dimoo.TaskRequest, dimoo.TaskRequest(task="edit", words="a cat", images=(ONE,))
USER = dimoo.Message(role="user", content="hello")
PICTURE, WORDS = dimoo.PictureAnswer(), dimoo.TextAnswer()
GOOD = dimoo.GenerateRequest(prompt="a cat")
ASK = dimoo.AskRequest(images=(ONE,), question="what")

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
    (
        replace(EDIT, negative="b"),
        {"image": ImageSettings(conditions={"no_image": 2.0})},
        "'unconditional' or 'no_text'",
    ),
    (
        TASK(task="subject", words="a", images=(ONE, TWO), negative="b"),
        {"image": ImageSettings(conditions={"no_image_1": 1.0, "no_text": 0.0})},
        "without guidance by the branch 'unconditional' or 'no_text'",
    ),
    (EDIT, {"image": ImageSettings(steps=4, guidance_interval=(0.3, 0.4))}, "does nothing in any of the 4 steps"),
    (GOOD, {"image": ImageSettings(steps=4, guidance_interval=(0.3, 0.4))}, "does nothing in any of the 4 steps"),
    (TASK(task="inpaint", words="a cat"), {}, "needs a picture and its region; write an InpaintRequest"),
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
    (dimoo.ChatRequest(messages="hi"), {}, "must be Message objects in a tuple, not str 'hi'"),
    (dimoo.ChatRequest(messages=USER), {}, "must be Message objects in a tuple, not Message"),
    (dimoo.ChatRequest(messages=("hi",)), {}, "the message 'hi' must be a Message, not str"),
    (dimoo.ChatRequest(messages=(dimoo.Message(role="user", content=7),)), {}, "must be a string"),
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
    (dimoo.RetouchRequest(image=ONE, marks=dimoo.Box(0, 0, 8, 8)), {}, "marks must be in a tuple"),
    (dimoo.RetouchRequest(image=ONE, marks="all"), {}, "marks must be in a tuple"),
    (
        dimoo.InterleavedRequest(parts=("a", dimoo.Masked(ONE, dimoo.Box(0, 0, 8, 8))), answer=(PICTURE,)),
        {},
        "marks must be in a tuple",
    ),
    (dimoo.InterleavedRequest(parts=(ONE, ONE, "cat " * 99), answer=(WORDS,)), {}, "more than the 64"),
    (dimoo.InterleavedRequest(parts=(ONE,), answer=(WORDS,), family="song"), {}, "not taught the task family"),
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
    """A model whose network and image tokenizer must not be asked."""
    return served_by(every, Idle(every.backbone), tokenizer=Unread(every.kit.pictures))


class Unread(Unencoded):
    """An image tokenizer that must not be asked."""

    def encode(self, media):
        raise AssertionError("the image tokenizer was asked")


@pytest.mark.parametrize(("request_", "settings", "message"), BAD)
def test_nothing_is_computed_before_a_refusal(idle, request_, settings, message):
    for batch in ([request_], [GOOD, request_], [ASK, request_]):
        with pytest.raises(RequestError, match=message):
            idle.run(batch, **settings)


def test_the_network_of_these_tests_would_notice(idle):
    with pytest.raises(AssertionError, match="the network was asked"):
        idle.run([GOOD])
    for request in (EDIT, ASK):
        with pytest.raises(AssertionError, match="the image tokenizer was asked"):
            idle.run([request])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.subject(ONE, "a", size=64), r"size 64 must be \(height, width\)"),
        (lambda m: m.subject(ONE, "a", size=(64,)), r"size \(64,\) must be \(height, width\)"),
        (lambda m: m.illustrate("a", size=(64,)), r"size \(64,\) must be \(height, width\)"),
        (lambda m: m.illustrate("a", size="64x64"), "size '64x64' must be"),
        (lambda m: m.retouch(ONE, "all"), "must be a Pillow image"),
        (lambda m: m.chat(("hi",)), "must be a Message or"),
    ],
)
def test_wrong_values_of_calls_are_named(idle, call, message):
    with pytest.raises(RequestError, match=message):
        call(idle)


REQUESTS = [
    GOOD,
    replace(GOOD, negative="a red apple on a white background"),
    EDIT,
    ASK,
    TASK(task="illustrate", words="a cat"),
    dimoo.OutpaintRequest(image=ONE, prompt="a", left=8),
    dimoo.InterleavedRequest(parts=("a", ONE, TWO), answer=(WORDS, PICTURE)),
]


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_model_takes_so_many_tokens_and_no_more(every, idle, request_):
    how = {"image": every.config.image, "text": every.config.text}
    problem = job_of(every.kit, request_, **how).problem
    longest, answer = max(len(problem.document(name)) for name in problem.branches), len(problem.answer)
    for enough in (longest, None):
        made = jobs_of(replace(every.kit, max_tokens=enough), [request_], **how)[0].problem
        assert torch.equal(made.document().ids, problem.document().ids)
    message = (
        f"takes {longest - answer} tokens and its answer {answer}, together {longest}, more than the {longest - 1} "
    )
    with pytest.raises(RequestError, match=message):
        jobs_of(replace(idle.kit, max_tokens=longest - 1), [request_], **how)


def test_the_bound_is_that_of_the_config(idle):
    bounded = served_by(idle, idle.backbone, tokenizer=idle.kit.image_tokenizer, max_tokens=5)
    with pytest.raises(RequestError, match="more than the 5 that this model takes"):
        bounded.run([GOOD])


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
