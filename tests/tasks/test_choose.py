"""One-token choices: against a forward pass and a softmax by hand, alone and in a batch; on the bundled model."""

from __future__ import annotations

import math

import pytest
import torch
from llada_like import llada_like
from PIL import Image
from task_cases import picture

import dimoo
from dimoo.backbone.layout import PackedLayout
from dimoo.core.requests import Message
from dimoo.data.world import qa_suite, render
from dimoo.tasks.model import Dimoo
from recipes.named.world import COLORS, mini_world

QUESTIONS = [
    (picture(16, 24, 1), "is there a cat", ("yes", "no")),
    ((picture(8, 8, 2), picture(16, 8, 3)), "what colour is the background of the second picture", COLORS),
    ((), "is blue a colour", ("no", "yes")),
    (picture(24, 16, 4), "how many", ("one", "two", "three")),
]


def by_hand(network, ids, place, candidates):
    """Softmax over the candidates at one place of a sequence that is run alone."""
    with torch.no_grad():
        logits = network.head(network(torch.tensor(ids), PackedLayout.of([len(ids)], torch.device("cpu"))))[place]
    shares = [math.exp(float(logits[index]) - float(logits[candidates].max())) for index in candidates]
    return [share / sum(shares) for share in shares]


def oracle(model, images, question, choices):
    """The answer laid out as training lays it out: a word, its end, padding up to the planned length."""
    images = (images,) if isinstance(images, Image.Image) else images
    prompts, vocabulary = model.prompts, model.config.vocabulary
    context = prompts.context("understanding", [question, *map(model.kit.grid, images)]).ids.tolist()
    planned = model.config.answer_tokens if images else model.config.caption_tokens
    trained = prompts.text_answer(choices[0], planned).ids.tolist()
    assert trained[1:2] == prompts.text.encode(choices[0])
    ids = [*context, trained[0], vocabulary.mask, *trained[2:]]
    return by_hand(model.backbone, ids, len(context) + 1, [prompts.text.encode(choice)[0] for choice in choices])


@pytest.mark.parametrize("number", range(len(QUESTIONS)))
def test_alone_in_a_batch_and_by_hand(model, number):
    images, question, choices = QUESTIONS[number]
    wanted = oracle(model, images, question, choices)
    alone, together = model.choose(images, question, choices), model.choose_all(QUESTIONS)[number]
    for found in (alone, together):
        assert list(found.probabilities) == list(choices)
        assert list(found.probabilities.values()) == pytest.approx(wanted, abs=1e-5)
        assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-12)
        assert found.answer == choices[wanted.index(max(wanted))]
    assert max(wanted) - min(wanted) > 0.05  # far above the tolerance


def test_the_order_of_the_choices_does_not_matter(model):
    images, question, choices = QUESTIONS[1]
    there, back = (model.choose(images, question, order) for order in (choices, choices[::-1]))
    assert there.answer == back.answer
    assert list(back.probabilities) == list(choices[::-1])
    assert back.probabilities == pytest.approx(there.probabilities, abs=1e-12)


def test_an_answer_with_room_for_one_token(model):
    short = Dimoo(
        model.config.model_copy(update={"answer_tokens": 1}),
        backbone=model.backbone,
        text_tokenizer=model.prompts.text,
        image_tokenizer=model.kit.image_tokenizer,
    )
    images, question, choices = QUESTIONS[0]
    vocabulary, prompts = model.config.vocabulary, model.prompts
    context = prompts.context("understanding", [question, model.kit.grid(images)]).ids.tolist()
    ids = [*context, vocabulary.answer_start, vocabulary.mask, vocabulary.answer_end]
    wanted = by_hand(model.backbone, ids, len(context) + 1, [prompts.text.encode(choice)[0] for choice in choices])
    assert list(short.choose(images, question, choices).probabilities.values()) == pytest.approx(wanted, abs=1e-5)


def test_a_language_model_answers_in_its_own_template():
    model = llada_like()
    text, chat, choices = model.prompts.text, model.kit.chat, ["a", "b", "c"]
    context = chat.context([Message(role="user", content="which ?")]).ids.tolist()
    padding = [model.config.vocabulary.pad] * (model.config.answer_tokens - 2)
    ids = [*context, model.config.vocabulary.mask, chat.stops[0], *padding]
    wanted = by_hand(model.backbone, ids, len(context), [text.encode(choice)[0] for choice in choices])
    found = model.choose((), "which ?", choices)
    assert list(found.probabilities.values()) == pytest.approx(wanted, abs=1e-5)
    assert max(wanted) - min(wanted) > 0.05


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (["yes", "grapefruit tree"], r"'grapefruit tree' takes \d+ tokens \(.*'Ġtree'\), and one decides; .* by `nll`"),
        (["yes", ""], r"'' takes 0 tokens \(none\)"),
        (["yes", "no", "yes"], "the choices 'yes' and 'yes' are the same token 'Ġyes'"),
        (["yes", " yes"], "the choices 'yes' and ' yes' are the same token"),
        (["yes"], "at least two answers"),
        ("yes", "must be a list of at least two answers"),
        (["yes", 3], "the choice 3 must be a string"),
        (["yes", "<answer>"], "the choice '<answer>' takes"),
    ],
)
def test_choices_that_cannot_be(model, choices, message):
    with pytest.raises(dimoo.RequestError, match=message):
        model.choose(picture(8, 8), "which ?", choices)


def test_questions_that_cannot_be(model):
    with pytest.raises(dimoo.RequestError, match="there is no question; give at least one"):
        model.choose_all([])
    with pytest.raises(dimoo.RequestError, match="the question is empty"):
        model.choose(picture(8, 8), " ", ["yes", "no"])
    with pytest.raises(dimoo.RequestError, match="not a multiple of 8"):
        model.choose(picture(8, 9), "which ?", ["yes", "no"])
    with pytest.raises(dimoo.RequestError, match="more than the 64"):
        model.choose((), "cat " * 100, ["yes", "no"])
    with pytest.raises(dimoo.RequestError, match="knows text only"):
        llada_like().choose(picture(8, 8), "which ?", ["a", "b"])


def test_the_bundled_model_is_right_on_a_majority():
    """Scenes of one object that it never saw: of 40 answers a coin gets 20 right, and a guess of a colour 7."""
    world = mini_world().model_copy(update={"object_counts": (1.0, 0.0, 0.0, 0.0), "two_tone": 0.0})
    suite = [
        (scene, qa, choices)
        for kind, choices in (("exists", ("yes", "no")), ("color", COLORS))
        for scene, qa in qa_suite(world, 40, seed=1, kinds=(kind,), canvas=(48, 48))
    ]
    found = dimoo.load("mini").choose_all(
        [(Image.fromarray(render(scene)), qa.question, choices) for scene, qa, choices in suite]
    )
    right = [choice.answer == qa.answer for choice, (_, qa, _) in zip(found, suite, strict=True)]
    assert sum(right[:40]) > 22
    assert sum(right[40:]) > 30
