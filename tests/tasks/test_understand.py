import pytest
import torch
from task_cases import picture

from dimoo.core.errors import RequestError
from dimoo.core.requests import AskRequest
from dimoo.presets.config import TextSettings


def last_ids(model, question="what is it", tokens=4, images=None, text=None):
    request = AskRequest(images=images or (picture(16, 16),), question=question, tokens=tokens)
    *_, last = model.stream([request], text=text)
    return last.canvas.ids.tolist()


def test_an_answer_is_the_text_before_its_end(model):
    ids = last_ids(model)
    assert len(ids) == 4 + 2
    assert model.ask(picture(16, 16), "what is it", tokens=4) == model.prompts.read_text(torch.tensor(ids[1:]))


def test_the_mask_is_never_an_answer_even_if_the_model_wants_it(model, monkeypatch):
    mask, head = model.config.vocabulary.mask, model.backbone.head

    def biased(rows, columns):
        logits = head(rows, columns)
        logits[:, mask - columns.start] += 1000
        return logits

    wanted = last_ids(model, tokens=20)
    monkeypatch.setattr(model.backbone, "head", biased)
    ids = last_ids(model, tokens=20)
    assert mask not in ids
    assert ids == wanted


def test_an_answer_holds_text_alone(model):
    assert all(index < model.config.vocabulary.text_size for index in last_ids(model, tokens=20))


def test_question_and_pictures_matter(model):
    base = last_ids(model, tokens=8)
    assert base == last_ids(model, tokens=8)
    assert base != last_ids(model, "where is the cat", tokens=8)
    assert base != last_ids(model, tokens=8, images=(picture(16, 16, seed=9),))
    two = (picture(16, 16), picture(8, 16, seed=1))
    assert last_ids(model, tokens=8, images=two) != last_ids(model, tokens=8, images=two[::-1])


def test_planned_tokens_are_the_models_own_by_default(model):
    image = picture(16, 16)
    assert model.ask(image, "what is it") == model.ask([image], "what is it", tokens=4)
    asked = "describe the picture"
    assert model.caption(image) == model.ask(image, asked, tokens=6) == model.ask(image, asked)
    assert len(last_ids(model, asked, tokens=None)) == 6 + 2  # the answer's tags stand around it


@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        (TextSettings(), 8),
        (TextSettings(steps_per_token=0.5), 4),
        (TextSettings(block=4), 8),
        (TextSettings(block=3), 9 - 1),  # blocks of 3, 3, 2 with 3 steps each: the last step idles
        (TextSettings(block=4, steps_per_token=0.01), 2),  # at least a step per block
    ],
)
def test_passes(model, settings, passes):
    """Without an early end there are as many forward passes as settings say."""
    seen = []
    hook = model.backbone.embedding.register_forward_hook(lambda *_: seen.append(1))
    ids = last_ids(model, tokens=8, text=settings)
    hook.remove()
    assert model.config.vocabulary.answer_end not in ids[:-1]  # else it may end early
    assert len(seen) == passes


@pytest.mark.parametrize("tokens", [1, 2, 7, 13])
@pytest.mark.parametrize("block", [None, 1, 2, 5, 50])
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_any_length_can_be_planned(model, tokens, block, share):
    ids = last_ids(model, tokens=tokens, text=TextSettings(block=block, steps_per_token=share))
    assert len(ids) == tokens + 2
    assert model.config.vocabulary.mask not in ids


def test_bad_requests(model):
    image = picture(16, 16)
    for question in ("", " \n"):
        with pytest.raises(RequestError, match="the question is empty"):
            model.ask(image, question)
    with pytest.raises(RequestError, match="at least one image"):
        model.ask([], "what")
    with pytest.raises(RequestError, match=r"\(4, 16\) is not a multiple of 8"):
        model.ask(picture(4, 16), "what")
    with pytest.raises(RequestError, match="more than the 64"):
        model.ask(image, "what " * 100)
    for tokens in (0, -3):
        with pytest.raises(RequestError, match=f"an answer of {tokens} tokens"):
            model.ask(image, "what", tokens=tokens)
