"""A batch of every kind of request equals each of them alone, to the token; and seeds name draws, not places."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
from task_cases import all_equal, box, equal, picture

import dimoo
from dimoo.core.requests import Request
from dimoo.diffusion.config import CategoricalConfig
from dimoo.presets.config import ImageSettings, TextSettings

ONE, TWO, THREE = picture(16, 8, 1), picture(8, 24, 2), picture(24, 16, 3)
TASK = dimoo.TaskRequest
BATCH = (
    dimoo.GenerateRequest(prompt="a red apple", negative="two dogs", seed=1),
    TASK(task="edit", words="the apple", images=(ONE,), seed=2),
    TASK(task="subject", words="two dogs", images=(ONE, TWO), height=8, width=40, seed=3),
    TASK(task="style", images=(TWO, ONE), seed=4),
    TASK(task="control", words="a cat", option="canny", images=(THREE,), negative="a dog", seed=5),
    TASK(task="predict", option="depth", images=(TWO,), seed=6),
    TASK(task="illustrate", words="a cat", tokens=7, seed=7),
    dimoo.InpaintRequest(image=THREE, mask=box(24, 16, (0, 0, 9, 9)), prompt="a cat", seed=8),
    dimoo.OutpaintRequest(image=ONE, prompt="a cat", left=8, bottom=8, seed=9),
    dimoo.RetouchRequest(image=THREE, marks=(dimoo.Box(3, 3, 12, 20),), feather=2, seed=10),
    dimoo.AskRequest(images=(ONE, TWO), question="which ?", tokens=5, seed=11),
    dimoo.ChatRequest(messages=(dimoo.Message(role="user", content="what is left ?"),), tokens=6, seed=12),
    dimoo.InterleavedRequest(
        parts=("a", ONE, "cat", dimoo.Masked(THREE, (dimoo.Box(0, 0, 8, 8),))),
        answer=(dimoo.TextAnswer(tokens=4), dimoo.PictureAnswer()),
        seed=13,
    ),
)
SETTINGS = {
    "image": ImageSettings(steps=5, guidance=2.0, conditions={"no_text": 1.0, "no_image": 2.0}),
    "text": TextSettings(draw=CategoricalConfig(temperature=2.0)),
}


def test_every_kind_is_in_the_batch():
    assert {type(request) for request in BATCH} == set(get_args(Request))


def tokens(model, requests):
    *_, last = model.stream(requests, **SETTINGS)
    return [last.canvas.row(index).tolist() for index in range(len(requests))]


def test_a_batch_of_every_kind_is_each_of_them_alone(every):
    alone = [tokens(every, [request])[0] for request in BATCH]
    assert tokens(every, BATCH) == alone
    assert tokens(every, BATCH[::-1]) == alone[::-1]
    shifted = [tokens(every, [replace(request, seed=request.seed + 100)])[0] for request in BATCH]
    assert all(one != other for one, other in zip(alone, shifted, strict=True))


def flat(results):
    return [part for result in results for part in (result if isinstance(result, tuple) else (result,))]


def test_so_are_the_results(every):
    together = every.run(BATCH, **SETTINGS)
    assert all_equal(flat(together), flat(every.run([request], **SETTINGS)[0] for request in BATCH))


def test_nothing_global_is_drawn_from_or_changed(every):
    before, state = every.backbone.embedding.weight.clone(), torch.random.get_rng_state()
    every.run(BATCH, **SETTINGS)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(every.backbone.embedding.weight, before)


@pytest.mark.parametrize("negative", [None, "two dogs"])
def test_several_pictures_of_each_prompt_stand_side_by_side(every, negative):
    made = every.generate(["a cat", "a dog"], num_images=3, seed=10, negative=negative)
    wanted = [
        every.generate(prompt, seed=seed, negative=negative)[0]
        for prompt, seeds in (("a cat", (10, 11, 12)), ("a dog", (13, 14, 15)))
        for seed in seeds
    ]
    assert all_equal(made, wanted)
    listed = every.generate(["a cat", "a dog"], num_images=2, seed=[5, 50], negative=negative)
    assert all_equal(
        listed,
        [
            *(every.generate("a cat", seed=seed, negative=negative)[0] for seed in (5, 6)),
            *(every.generate("a dog", seed=seed, negative=negative)[0] for seed in (50, 51)),
        ],
    )


def test_a_negative_prompt_leads_elsewhere(every):
    assert not equal(every.generate("a cat", seed=1)[0], every.generate("a cat", seed=1, negative="two dogs")[0])


@pytest.mark.parametrize(("count", "message"), [(0, "num_images is 0; ask for at least 1"), (1.5, "num_images 1.5")])
def test_less_than_one_picture(every, count, message):
    with pytest.raises(dimoo.RequestError, match=message):
        every.generate("a cat", num_images=count)
