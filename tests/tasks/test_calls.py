"""Every call writes the request that its arguments say, and hands on the settings: nothing is dropped on the way."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from request_cases import same
from task_cases import box, picture

import dimoo
from dimoo.presets.config import ImageSettings, TextSettings
from dimoo.tasks.calls import Calls

ONE, TWO, MASK, BOX = picture(16, 8, 1), picture(8, 24, 2), box(16, 8, (0, 0, 8, 8)), dimoo.Box(0, 0, 8, 8)
IMAGE, TEXT = ImageSettings(steps=3), TextSettings(block=2)
TASK = dimoo.TaskRequest
MADE = {"negative": "a dog", "seed": 7, "settings": IMAGE}
SAID = {"negative": "a dog", "seed": 7}


class Recorded(Calls):
    """Calls that keep what reaches `run`, and answer with anything of the right kind."""

    def __init__(self, config):
        self.config, self.seen = config, []

    def run(self, requests, *, image=None, text=None):
        self.seen.append((tuple(requests), image, text))
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        if isinstance(request, dimoo.AskRequest | dimoo.ChatRequest):
            return "words"
        return (ONE, "words") if getattr(request, "task", "") == "illustrate" else ONE


def generate(prompt: str, seed: int, height: int, width: int) -> dimoo.GenerateRequest:
    return dimoo.GenerateRequest(prompt=prompt, height=height, width=width, negative="a dog", seed=seed)


CASES: dict[str, tuple[Callable[[Calls], Any], tuple[object, ...], object, object]] = {
    "generate": (
        lambda m: m.generate(["a", "b"], size=(8, 40), num_images=2, **MADE),
        tuple(generate(prompt, seed, 8, 40) for prompt, seed in (("a", 7), ("a", 8), ("b", 9), ("b", 10))),
        IMAGE,
        None,
    ),
    "edit": (lambda m: m.edit(ONE, "a", **MADE), (TASK(task="edit", words="a", images=(ONE,), **SAID),), IMAGE, None),
    "subject": (
        lambda m: m.subject([ONE, TWO], "a", size=(8, 40), **MADE),
        (TASK(task="subject", words="a", images=(ONE, TWO), height=8, width=40, **SAID),),
        IMAGE,
        None,
    ),
    "stylize": (
        lambda m: m.stylize(ONE, TWO, **MADE),
        (TASK(task="style", images=(ONE, TWO), **SAID),),
        IMAGE,
        None,
    ),
    "stylize in words": (
        lambda m: m.stylize(ONE, "grey", **MADE),
        (TASK(task="restyle", words="grey", images=(ONE,), **SAID),),
        IMAGE,
        None,
    ),
    "control": (
        lambda m: m.control(ONE, "canny", "a", **MADE),
        (TASK(task="control", words="a", option="canny", images=(ONE,), **SAID),),
        IMAGE,
        None,
    ),
    "predict": (
        lambda m: m.predict(ONE, "depth", **MADE),
        (TASK(task="predict", option="depth", images=(ONE,), **SAID),),
        IMAGE,
        None,
    ),
    "view": (
        lambda m: m.view(ONE, "left", **MADE),
        (TASK(task="view", option="left", images=(ONE,), **SAID),),
        IMAGE,
        None,
    ),
    "inpaint": (
        lambda m: m.inpaint(ONE, MASK, "a", **MADE),
        (dimoo.InpaintRequest(image=ONE, mask=MASK, prompt="a", **SAID),),
        IMAGE,
        None,
    ),
    "outpaint": (
        lambda m: m.outpaint(ONE, "a", left=8, right=16, top=24, bottom=32, **MADE),
        (dimoo.OutpaintRequest(image=ONE, prompt="a", left=8, right=16, top=24, bottom=32, **SAID),),
        IMAGE,
        None,
    ),
    "retouch": (
        lambda m: m.retouch(ONE, [BOX, MASK], "a", feather=3, **MADE),
        (dimoo.RetouchRequest(image=ONE, marks=(BOX, MASK), prompt="a", feather=3, **SAID),),
        IMAGE,
        None,
    ),
    "ask": (
        lambda m: m.ask([ONE, TWO], "what", tokens=5, seed=7, settings=TEXT),
        (dimoo.AskRequest(images=(ONE, TWO), question="what", tokens=5, seed=7),),
        None,
        TEXT,
    ),
    "caption": (
        lambda m: m.caption(ONE, seed=7, settings=TEXT),
        (dimoo.AskRequest(images=(ONE,), question="describe the picture", seed=7),),
        None,
        TEXT,
    ),
    "chat": (
        lambda m: m.chat([{"role": "user", "content": "a"}], tokens=5, seed=7, settings=TEXT),
        (dimoo.ChatRequest(messages=(dimoo.Message(role="user", content="a"),), tokens=5, seed=7),),
        None,
        TEXT,
    ),
    "illustrate": (
        lambda m: m.illustrate("a", size=(8, 40), tokens=5, negative="a dog", seed=7, image=IMAGE, text=TEXT),
        (TASK(task="illustrate", words="a", height=8, width=40, tokens=5, **SAID),),
        IMAGE,
        TEXT,
    ),
}
SHORT: dict[str, tuple[Callable[[Calls], Any], object]] = {
    "generate": (lambda m: m.generate("a"), dimoo.GenerateRequest(prompt="a", height=16, width=24)),
    "subject": (lambda m: m.subject(ONE, "a"), TASK(task="subject", words="a", images=(ONE,))),
    "retouch": (lambda m: m.retouch(ONE, BOX), dimoo.RetouchRequest(image=ONE, marks=(BOX,))),
    "ask": (lambda m: m.ask(ONE, "a"), dimoo.AskRequest(images=(ONE,), question="a")),
    "chat": (lambda m: m.chat("a"), dimoo.ChatRequest(messages=(dimoo.Message(role="user", content="a"),))),
    "illustrate": (lambda m: m.illustrate("a"), TASK(task="illustrate", words="a")),
}


def reached(model: dimoo.Dimoo, call: Callable[[Calls], Any]) -> tuple[tuple[object, ...], object, object]:
    calls = Recorded(model.config)
    call(calls)
    ((requests, image, text),) = calls.seen
    return requests, image, text


@pytest.mark.parametrize("name", CASES)
def test_every_argument_reaches_the_request(model, name):
    call, wanted, image, text = CASES[name]
    requests, *settings = reached(model, call)
    assert same(requests, wanted)
    assert settings == [image, text]


@pytest.mark.parametrize("name", SHORT)
def test_what_is_left_out_is_the_requests_default(model, name):
    call, wanted = SHORT[name]
    requests, image, text = reached(model, call)
    assert same(requests, (wanted,))
    assert image is text is None


def test_every_call_is_here_with_every_argument_other_than_its_default():
    """A call or an argument that is added must be added above."""
    public = {name for name, value in vars(Calls).items() if inspect.isfunction(value) and not name.startswith("_")}
    assert {name.split()[0] for name in CASES} == public - {"run"}
    for name, (call, *_) in CASES.items():
        bound: dict[str, Any] = {}
        signature = inspect.signature(getattr(Calls, name.split()[0]))

        class Probe:
            def __getattr__(self, _: str) -> Any:
                return lambda *args, **kwargs: bound.update(signature.bind(None, *args, **kwargs).arguments)  # noqa: B023

        call(Probe())  # type: ignore[arg-type]
        for parameter in signature.parameters.values():
            assert parameter.name in bound
            if parameter.default is not inspect.Parameter.empty:
                assert bound[parameter.name] != parameter.default
