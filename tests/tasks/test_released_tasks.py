"""Every task, end to end, on tiny checkpoints in the released layouts of Lumina-DiMOO and LLaDA."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from released import write_released
from task_cases import all_equal, box, equal, picture

import dimoo
from dimoo import AskRequest, ChatRequest, Dimoo, GenerateRequest, ImageSettings, InpaintRequest, Message, TextSettings
from dimoo.core.errors import RequestError
from dimoo.core.requests import Request

PICTURES = ImageSettings(steps=3, guidance=4.0)
WORDS = TextSettings(steps_per_token=0.5, block=4)
CAPTIONS = TextSettings(steps_per_token=1 / 256)
"""The release plans 1,024 tokens for a caption: four steps."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_released(tmp_path_factory.mktemp("released") / "Lumina-tiny")


@pytest.fixture(scope="module")
def lumina(folder: Path) -> Dimoo:
    """As loaded, but for pictures that are asked about: 1024 pixels a side are much for a test."""
    return looking_at(dimoo.load(folder), (64, 32))


def looking_at(model: Dimoo, targets: tuple[int, int]) -> Dimoo:
    return Dimoo(
        model.config.model_copy(update={"input_targets": targets}),
        backbone=model.backbone,
        text_tokenizer=model.prompts.text,
        image_tokenizer=model.kit.image_tokenizer,
    )


@pytest.fixture(scope="module")
def llada(tmp_path_factory: pytest.TempPathFactory) -> Dimoo:
    return dimoo.load(write_released(tmp_path_factory.mktemp("released") / "LLaDA-tiny", text_only=True))


def mixture() -> list[Request]:
    """Every task about pictures, sizes and lengths mixed."""
    return [
        GenerateRequest(prompt="a red apple", height=32, width=48, seed=1),
        AskRequest(images=(picture(32, 16),), question="what is left of the apple?", tokens=6, seed=2),
        InpaintRequest(image=picture(48, 32, 1), mask=box(48, 32, (0, 0, 20, 20)), prompt="a cat", seed=3),
        AskRequest(images=(picture(16, 16, 2), picture(16, 32, 3)), question="which one?", tokens=4, seed=4),
        GenerateRequest(prompt="two green apples on a table", height=16, width=16, seed=5),
    ]


def talks() -> list[Request]:
    """A question, and a conversation."""
    turns = (("system", "Be brief."), ("user", "2 + 2?"), ("assistant", "4"), ("user", "And 3 + 3?"))
    conversation = tuple(Message(role=role, content=content) for role, content in turns)
    return [
        ChatRequest(messages=(Message(role="user", content="Who are you?"),), tokens=8, seed=1),
        ChatRequest(messages=conversation, tokens=12, seed=2),
    ]


def run(model: Dimoo, requests: list[Request]) -> list[object]:
    return model.run(requests, image=PICTURES, text=WORDS)


def test_generate_two_sizes_at_once(lumina: Dimoo) -> None:
    both = lumina.generate(["a red apple", "a dog"], size=[(32, 48), (16, 32)], seed=[3, 4], settings=PICTURES)
    assert [made.size for made in both] == [(48, 32), (32, 16)]
    alone = [
        *lumina.generate("a red apple", size=(32, 48), seed=3, settings=PICTURES),
        *lumina.generate("a dog", size=(16, 32), seed=4, settings=PICTURES),
    ]
    assert all_equal(both, alone)
    other_words = lumina.generate("a blue house", size=(32, 48), seed=3, settings=PICTURES)
    other_seed = lumina.generate("a red apple", size=(32, 48), seed=7, settings=PICTURES)
    assert not equal(other_words[0], both[0])
    assert not equal(other_seed[0], both[0])


def test_pictures_of_any_size_are_cropped_to_the_released_buckets(folder: Path) -> None:
    """One picture to about 1024^2 pixels, several to about 512^2 each; what is cut off does not count."""
    kit = dimoo.load(folder).kit
    assert [made.size for made in kit.fitted([picture(50, 70)], asked=True)] == [(1184, 832)]
    assert [made.size for made in kit.fitted([picture(50, 70)], asked=False)] == [(576, 416)]
    assert [made.size for made in kit.fitted([picture(50, 70), picture(33, 33)], asked=True)] == [
        (576, 416),
        (512, 512),
    ]


def test_a_picture_off_the_grid_can_be_asked_about(lumina: Dimoo) -> None:
    square, wide = looking_at(lumina, (32, 32)), picture(64, 100)
    (middle,) = square.kit.fitted([wide], asked=True)
    assert middle.size == (32, 32)
    heard = [square.ask(shown, "what is it?", tokens=6, settings=WORDS) for shown in (wide, middle)]
    assert heard[0] == heard[1]
    shown = (wide, middle, picture(64, 64))
    found = [square.nll("a cat", prompt="what is it?", images=each, samples=8) for each in shown]
    assert found[0] == found[1] != found[2]


def test_the_likelihood_of_a_text_by_itself(llada: Dimoo) -> None:
    """Without a message there is no conversation around it: nothing but the text and its end."""
    alone = llada.nll("2 + 2", samples=1024)
    ids = [*llada.prompts.text.encode("2 + 2"), llada.prompts.text.id_of("<|eot_id|>")]
    assert alone.tokens == len(ids)
    assert alone.error == 0.0  # short enough to be computed
    assert alone.nats != llada.nll("2 + 2", prompt="and?", samples=1024).nats


def test_released_sampling_is_the_default(lumina: Dimoo) -> None:
    assert (lumina.config.image.steps, lumina.config.image.guidance) == (64, 4.0)
    (made,) = lumina.generate("a dog", size=(16, 16))
    assert equal(made, lumina.generate("a dog", size=(16, 16), settings=lumina.config.image)[0])


def test_inpaint_keeps_what_is_outside(lumina: Dimoo) -> None:
    before, mask = picture(48, 64), box(48, 64, (10, 20, 40, 40))
    after = lumina.inpaint(before, mask, "a cat", seed=1, settings=PICTURES)
    kept = np.asarray(mask) == 0
    assert np.array_equal(np.asarray(after)[kept], np.asarray(before)[kept])
    assert not np.array_equal(np.asarray(after)[~kept], np.asarray(before)[~kept])


def test_ask_about_one_and_several(lumina: Dimoo) -> None:
    for images in (picture(32, 32), [picture(16, 16), picture(32, 16, 1)]):
        answer = lumina.ask(images, "what is it?", tokens=8, settings=WORDS)
        assert answer
        assert answer == lumina.ask(images, "what is it?", tokens=8, settings=WORDS)
    assert lumina.ask(picture(32, 32), "what is it?", tokens=8, settings=WORDS) != lumina.ask(
        picture(32, 32, 7), "what is it?", tokens=8, settings=WORDS
    )


def test_caption(lumina: Dimoo) -> None:
    assert lumina.config.caption_tokens == 1024
    words = lumina.caption(picture(32, 32), settings=CAPTIONS)
    assert words == lumina.caption(picture(32, 32), settings=CAPTIONS)
    assert words


def test_a_mixture_in_one_batch_is_each_alone(lumina: Dimoo) -> None:
    together = run(lumina, mixture())
    assert all_equal(together, [run(lumina, [request])[0] for request in mixture()])
    assert [getattr(made, "size", None) for made in together] == [(48, 32), None, (32, 48), None, (16, 16)]


def test_stream_takes_the_same_steps(lumina: Dimoo) -> None:
    stream = lumina.stream(mixture(), image=PICTURES, text=WORDS)
    states = list(stream)
    shares = [state.share_done for state in states]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert states[-1].step == len(states) <= states[-1].steps
    assert all_equal(stream.results(), run(lumina, mixture()))


@pytest.mark.parametrize("target", [picture(32, 32), "a red apple on a table"], ids=["picture", "words"])
def test_likelihood(lumina: Dimoo, target: object) -> None:
    found = lumina.nll(target, prompt="an apple", samples=8, seed=1)
    assert found.tokens == (4 if not isinstance(target, str) else len(target) + 1)  # bytes, and the end of the answer
    assert math.isfinite(found.nats)
    assert found.nats > 0
    again = lumina.nll(target, prompt="an apple", samples=8, seed=1, batch=3)
    assert again.nats == pytest.approx(found.nats, rel=1e-5)
    assert lumina.nll(target, prompt="a dog", samples=8, seed=1).nats != found.nats


def test_chat(llada: Dimoo) -> None:
    one, conversation = run(llada, talks())
    assert one
    assert conversation
    assert [one, conversation] == [run(llada, [request])[0] for request in talks()]
    assert one == llada.chat("Who are you?", tokens=8, seed=1, settings=WORDS)
    rendered = llada.kit.chat.render((Message(role="user", content=" Who are you? "),))
    assert rendered == (
        "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nWho are you?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_likelihood_of_words_alone(llada: Dimoo) -> None:
    found = llada.nll("I am a model.", prompt="Who are you?", samples=8, seed=1)
    assert found.tokens == len("I am a model.") + 1
    assert found.nats > 0
    assert llada.nll("I am a model.", prompt="What?", samples=8, seed=1).nats != found.nats


def test_a_text_model_makes_no_pictures(llada: Dimoo) -> None:
    for call in (
        lambda: llada.generate("a dog"),
        lambda: llada.ask(picture(16, 16), "what is it?"),
        lambda: llada.nll(picture(16, 16)),
    ):
        with pytest.raises(RequestError, match="this model knows text only"):
            call()


@pytest.mark.parametrize("layout", ["dimoo", "lumina"])
@pytest.mark.parametrize(("kind", "requests"), [("lumina", mixture), ("llada", talks)])
def test_saved_and_loaded_it_does_the_same(
    layout: str,
    kind: str,
    requests: Callable[[], list[Request]],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    model: Dimoo = request.getfixturevalue(kind)
    again = dimoo.load(model.save(tmp_path / "one", layout=layout))
    other = {"dimoo": "lumina", "lumina": "dimoo"}[layout]
    back = dimoo.load(again.save(tmp_path / "two", layout=other))
    assert again.config == back.config
    wanted = run(model, requests())
    assert all_equal(run(again, requests()), wanted)
    assert all_equal(run(back, requests()), wanted)


def test_bfloat16(folder: Path, lumina: Dimoo) -> None:
    """The weights are stored so: nothing is rounded but what is computed."""
    small = dimoo.load(folder, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in small.backbone.parameters()} == {torch.bfloat16}
    for name, tensor in lumina.backbone.state_dict().items():
        assert torch.equal(small.backbone.state_dict()[name].float(), tensor)
    assert [getattr(made, "size", None) for made in run(small, mixture())] == [(48, 32), None, (32, 48), None, (16, 16)]
    assert all_equal(run(small, mixture()), run(small, mixture()))
    target, settings = picture(32, 32), {"prompt": "an apple", "samples": 8}
    assert small.nll(target, **settings).nats == pytest.approx(lumina.nll(target, **settings).nats, rel=0.05)
