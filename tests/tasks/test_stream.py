"""Streams as users handle them: previews, cancelling, records and replays; and guidance that cannot be, refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile

import numpy as np
import pytest
import torch
from llada_like import llada_like
from PIL import Image
from task_cases import all_equal, box, equal, mixture, picture
from tiny_checkpoint import tiny_model

import dimoo
from dimoo.core.errors import RequestError
from dimoo.diffusion.guidance import ClassifierFree, MultiCondition
from dimoo.diffusion.guidance_steps import Interval
from dimoo.diffusion.trajectory import load, save
from dimoo.presets.config import ImageSettings, TextSettings
from dimoo.tasks.model import Dimoo
from dimoo.tasks.plans import image_plan, text_plan

GREY = 128
"""What is not made yet: half of 255, rounded up."""


class Counting:
    """A network that counts its passes."""

    def __init__(self, network):
        self._network, self.passes = network, 0
        self.device, self.vocab_size, self.head = network.device, network.vocab_size, network.head

    def __call__(self, tokens, layout):
        self.passes += 1
        return self._network(tokens, layout)


def counting(model):
    """The same model, and the count of its passes."""
    network = Counting(model.backbone)
    parts = {"text_tokenizer": model.prompts.text, "image_tokenizer": model.kit.image_tokenizer}
    return Dimoo(model.config, backbone=network, **parts), network


def assert_same_states(one, two):
    for left, right in zip(one, two, strict=True):
        assert torch.equal(left.canvas.ids, right.canvas.ids)
        assert torch.equal(left.canvas.masked, right.canvas.masked)
        assert left.committed.tolist() == right.committed.tolist()
        assert (left.step, left.steps, left.share_done) == (right.step, right.steps, right.share_done)


# Previews


def test_a_preview_shows_the_codes_that_stand_and_grey_elsewhere():
    model = tiny_model()  # decodes every patch by itself, so a code that stands has its final pixels
    stream = model.stream([dimoo.GenerateRequest(prompt="draw", height=32, width=24)], image=ImageSettings(steps=6))
    assert np.all(np.asarray(stream.preview(0)) == GREY)
    looks = []
    for state in stream:
        made = ~state.canvas.masked[2:-2].view(4, 4)[:, :3].numpy()  # without the ends of lines
        looks.append((made.repeat(8, 0).repeat(8, 1), np.asarray(stream.preview(0))))
    (final,) = stream.results()
    assert equal(stream.preview(0), final)
    assert [int(made.sum()) // 64 for made, _ in looks] != [12] * 6
    for made, look in looks:
        assert np.array_equal(look[made], np.asarray(final)[made])
        assert np.all(look[~made] == GREY)


def test_previews_of_a_mixture_are_those_of_each_alone(model):
    together, alone = model.stream(mixture()), [model.stream([request]) for request in mixture()]
    for _ in range(3):
        next(together)
        for stream in alone:
            next(stream, None)
        looks = together.preview()
        assert all_equal(looks, [stream.preview(0) for stream in alone])
        assert all_equal(looks, [together.preview(index) for index in range(len(looks))])


def test_words_in_a_preview_are_the_tokens_that_stand(model):
    text, end = model.prompts.text, model.config.vocabulary.answer_end
    request = dimoo.AskRequest(images=(picture(16, 24),), question="what is left of the apple ?", tokens=6)
    stream = model.stream([request], text=TextSettings(steps_per_token=1.0))
    assert stream.preview(0) == ""
    looks = []
    for state in stream:
        answer = state.canvas.ids[1:-1].tolist()
        made = [token for token in takewhile(lambda token: token != end, answer) if token != state.canvas.mask_id]
        looks.append(stream.preview(0))
        assert looks[-1] == text.decode(made)
    assert len(set(looks)) > 3
    assert looks[-1] == stream.results()[0]


def test_a_conversation_has_previews():
    model = llada_like()
    stream = model.stream([dimoo.ChatRequest(messages=(dimoo.Message(role="user", content="hello"),), tokens=6)])
    looks = [stream.preview(0), *(stream.preview(0) for _ in stream)]
    assert looks[0] == ""
    assert len(set(looks)) > 3
    assert looks[-1] == stream.results()[0]


def test_unmade_parts_of_an_inpainted_picture_are_grey_inside_the_mask_alone(model):
    original, mask = picture(24, 16), box(24, 16, (0, 0, 9, 16))
    stream = model.stream([dimoo.InpaintRequest(image=original, mask=mask, prompt="a cat")])
    inside = np.asarray(mask) >= 128
    look = np.asarray(stream.preview(0))
    assert np.all(look[inside] == GREY)
    assert np.array_equal(look[~inside], np.asarray(original)[~inside])


def test_a_job_without_a_preview_has_none(model):
    (job,) = model._jobs([dimoo.GenerateRequest(prompt="a cat")], model.config.image, model.config.text)
    silent = replace(job, read=lambda ids: ids.tolist(), preview=None)
    stream = model.stream([silent, job])
    assert stream.preview(0) is None
    look, other = stream.preview()
    assert look is None
    assert isinstance(other, Image.Image)
    with pytest.raises(RequestError, match=r"there is no job 2: this stream has 2, numbered from 0, not by steps"):
        stream.preview(2)


# Stopping and going on


def test_nothing_runs_on_behind_a_stop_and_iterating_or_results_go_on(model):
    model, network = counting(model)
    wanted = model.run(mixture())
    network.passes = 0
    stream = model.stream(mixture())
    assert network.passes == 0
    for state in stream:
        if state.step == 2:
            break
    assert network.passes == 2
    assert len(stream.preview()) == len(wanted)
    stream.record()
    assert network.passes == 2
    assert next(stream).step == 3
    assert all_equal(stream.results(), wanted)
    passes = network.passes
    assert all_equal(stream.results(), wanted)
    assert network.passes == passes


# Records and replays


def test_a_replay_is_the_run_without_the_network(model, tmp_path):
    stream = model.stream(mixture())
    states = list(stream)
    wanted = stream.results()
    save(stream.record(), tmp_path / "run.safetensors")
    counted, network = counting(model)
    replayed = counted.replay(mixture(), load(tmp_path / "run.safetensors"))
    assert_same_states(replayed, states)
    assert all_equal(replayed.results(), wanted)
    assert all_equal(replayed.preview(), wanted)
    assert network.passes == 0
    assert (tmp_path / "run.safetensors").stat().st_size < 40 * sum(len(state.committed) for state in states) + 2000


def test_a_replay_of_a_replay_is_the_same(model):
    stream = model.stream(mixture())
    wanted = stream.results()
    again = model.replay(mixture(), stream.record())
    assert all_equal(again.results(), wanted)
    assert all_equal(model.replay(mixture(), again.record()).results(), wanted)


def test_a_record_of_a_part(model):
    stream = model.stream(mixture())
    assert model.replay(mixture(), stream.record()).record().moves == ()
    states = [next(stream), next(stream)]
    part, looks = stream.record(), stream.preview()
    stream.results()
    assert len(part.moves) == 2  # what came later is not in it
    replayed = model.replay(mixture(), part)
    assert_same_states(replayed, states)
    assert all_equal(replayed.preview(), looks)
    with pytest.raises(dimoo.DataError, match=r"the record ends with \d+ positions still masked; record a run"):
        replayed.results()


def test_settings_of_a_request_that_needs_them(model):
    """A negative prompt is refused where nothing guides; so it is in a replay."""
    request = dimoo.GenerateRequest(prompt="a cat", negative="a dog")
    stream = model.stream([request], image=ImageSettings(steps=3, guidance=1.0))
    wanted = stream.results()
    assert all_equal(model.replay([request], stream.record(), image=ImageSettings(guidance=1.0)).results(), wanted)
    with pytest.raises(dimoo.RequestError, match="negative prompt does nothing without guidance"):
        model.replay([request], stream.record(), image=ImageSettings(guidance=0.0))


def inpainting(seed):
    return dimoo.InpaintRequest(image=picture(16, 24, seed), mask=box(16, 24, (0, 0, 9, 9)), prompt="a cat")


def generation(height, width):
    return dimoo.GenerateRequest(prompt="a cat", height=height, width=width)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([inpainting(0)], r"rows of \(\d+, \d+\) tokens, the requests of \(\d+,\); give the requests that were"),
        ([generation(16, 32), inpainting(0)], "the trajectory has rows of"),
        ([generation(16, 16), inpainting(1)], r"begins with other tokens than the requests at \d+ of \d+ positions"),
        ([generation(16, 16), generation(16, 24)], "begins with other tokens"),
        ([inpainting(0), generation(16, 16)], "the trajectory has rows of"),
    ],
)
def test_a_trajectory_of_other_requests(model, others, message):
    requests = [generation(16, 16), inpainting(0)]
    trajectory = model.stream(requests).record()
    assert len(list(model.replay(requests, trajectory))) == 0
    with pytest.raises(dimoo.DataError, match=message):
        model.replay(others, trajectory)
    with pytest.raises(dimoo.DataError, match=r"its mask is the id 7, the model's"):
        model.replay(requests, replace(trajectory, mask_id=7))


# Guidance


@pytest.mark.parametrize(
    ("modality", "guidance"),
    [
        ("text", ClassifierFree(scale=1.0)),
        ("text", Interval(guidance=ClassifierFree(scale=1.0), start=0.9, stop=1.0)),
        ("image", MultiCondition(scales=(("no_image", 4.0),))),
    ],
)
def test_guidance_for_a_branch_that_is_not_there_is_refused_before_any_compute(model, modality, guidance):
    """Also where it would come into force in the last step alone."""
    model, network = counting(model)
    plans = {
        "text": text_plan(model.config.text, tokens=4, stops=[]),
        "image": image_plan(model.config.image),
    }
    plan = replace(plans[modality], guidance=guidance)
    asked = dimoo.AskRequest(images=(picture(8, 8),), question="which ?")
    drawn = dimoo.GenerateRequest(prompt="a cat")
    own = [
        replace(job, plans={**job.plans, modality: plan})
        for job in model._jobs([drawn, asked], model.config.image, model.config.text)
    ]
    missing, has = ("unconditional", "'condition' only") if modality == "text" else ("no_image", "'unconditional' only")
    row = 1 if modality == "text" else 0
    with pytest.raises(
        dimoo.RequestError, match=f"the guidance of the '{modality}' targets takes the branch '{missing}', but request"
    ) as caught:
        model.stream(own)
    assert f"but request {row} has " in str(caught.value)
    assert has in str(caught.value)
    assert network.passes == 0
