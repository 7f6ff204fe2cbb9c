"""Chat on a network that says what the test wants, and on one of random weights."""

from __future__ import annotations

import json

import pytest
import torch
from llada_like import END, TEMPLATE, TURN_END, llada_like, llada_text
from task_cases import box, picture, served_by

import dimoo
from dimoo.core.requests import Message
from dimoo.diffusion.config import CategoricalConfig
from dimoo.presets.config import TextSettings

TEXT = llada_text()
PROMPT = (
    "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nwhat is your name<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)


class Scripted:
    """Predicts the ids of a script behind the prompt; the earlier the surer, or with -1 the later the surer."""

    device = torch.device("cpu")

    def __init__(self, script, *, surer=1, prompt=PROMPT):
        self.script, self.surer, self.start = script, surer, len(TEXT.encode(prompt))
        self.vocab_size = 1000
        self.seen = []

    def __call__(self, tokens, layout):
        self.seen.append(tokens.tolist())
        return (layout.positions.flatten() - self.start)[:, None].float()

    def head(self, rows, columns=None):
        logits = torch.zeros(len(rows), self.vocab_size)
        for row, place in enumerate(rows[:, 0].long().tolist()):
            logits[row, self.script[place]] = 8 - 0.1 * place * self.surer
        return logits[:, columns or slice(None)]


def scripted(answer, **changes):
    network = Scripted(TEXT.encode(answer), **changes)
    return llada_like(network=network), network


def test_the_network_sees_the_prompt_and_masks_and_nothing_else():
    model, network = scripted(f"hello{TURN_END}world")
    model.chat("what is your name", tokens=4)
    assert network.seen[0] == [*TEXT.encode(PROMPT), *[model.config.vocabulary.mask] * 4]


@pytest.mark.parametrize("stop", [TURN_END, END])
def test_an_answer_ends_at_its_stop_token(stop):
    answer = f"hello world{stop}what is your name"
    length = len(TEXT.encode(answer))
    model, network = scripted(answer)
    assert model.chat("what is your name", tokens=length) == "hello world"
    assert len(network.seen) == len(TEXT.encode("hello world")) + 1  # one token a step, and no step after the stop


def test_a_stop_token_with_masks_before_it_does_not_end_the_answer():
    answer = f"hello world{TURN_END}what is your name"
    length = len(TEXT.encode(answer))
    model, network = scripted(answer, surer=-1)
    assert model.chat("what is your name", tokens=length) == "hello world"
    assert len(network.seen) == length


def test_an_answer_without_a_stop_token_is_read_whole():
    length = len(TEXT.encode("hello world"))
    model, network = scripted("hello world")
    assert model.chat("what is your name", tokens=length) == "hello world"
    assert len(network.seen) == length


def test_block_after_block():
    """The order is by block where the network would begin at the end."""
    answer = f"hello world what is{TURN_END}"
    length = len(TEXT.encode(answer))
    model, network = scripted(answer, surer=-1)
    assert model.chat("what is your name", tokens=length, settings=TextSettings(block=2)) == "hello world what is"
    mask, start = model.config.vocabulary.mask, network.start
    masked = [[place for place, token in enumerate(seen[start:]) if token == mask] for seen in network.seen]
    assert masked[1] == [0, *range(2, length)]
    assert masked[2] == list(range(2, length))


def test_the_models_own_number_of_tokens():
    model, network = scripted("hello world what is your name")
    model.chat("what is your name")
    assert len(network.seen[0]) == len(TEXT.encode(PROMPT)) + model.config.answer_tokens


@pytest.fixture(scope="module")
def talker():
    return llada_like()


HISTORY = [
    {"role": "system", "content": "hello"},
    {"role": "user", "content": "what is"},
    {"role": "assistant", "content": "world"},
    {"role": "user", "content": "your name"},
]


def test_a_conversation_in_any_spelling():
    rendered = (
        "<|startoftext|><|start_header_id|>system<|end_header_id|>\n\nhello<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nwhat is<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nworld<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nyour name<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    model, network = scripted(f"hello{TURN_END}", prompt=rendered)
    typed = tuple(Message(**entry) for entry in HISTORY)
    for call in (
        lambda: model.chat(HISTORY, tokens=2),
        lambda: model.chat(typed, tokens=2),
        lambda: model.run([dimoo.ChatRequest(messages=typed, tokens=2)])[0],
    ):
        network.seen.clear()
        assert call() == "hello"
        assert network.seen[0][:-2] == TEXT.encode(rendered)


def test_a_batch_of_chats_is_each_of_them(talker):
    requests = [
        dimoo.ChatRequest(messages=(Message(role="user", content="hello " * count),), tokens=3 + count, seed=count)
        for count in range(1, 5)
    ]
    drawn = TextSettings(draw=CategoricalConfig(temperature=2.0))
    together = talker.run(requests, text=drawn)
    assert together == [talker.run([request], text=drawn)[0] for request in requests]
    assert len(set(together)) == len(together)


def test_the_seed_names_the_draws(talker):
    drawn = TextSettings(draw=CategoricalConfig(temperature=2.0))
    one, two, again = (talker.chat("hello", tokens=12, seed=seed, settings=drawn) for seed in (0, 1, 0))
    assert one == again != two


def test_conversation_and_answer_have_a_limit():
    prompt = len(TEXT.encode(PROMPT))
    short = TEMPLATE.model_copy(update={"max_tokens": prompt + 5})
    network = Scripted(TEXT.encode("hello world what is your name"))
    model = llada_like(network=network, chat=short)
    model.chat("what is your name", tokens=5)
    seen = len(network.seen)
    message = rf"takes {prompt} tokens and its answer 6, together more than the {prompt + 5} .* leave out old messages"
    with pytest.raises(dimoo.RequestError, match=message):
        model.chat("what is your name", tokens=6)
    assert len(network.seen) == seen


def test_a_released_folder_brings_its_template(talker, tmp_path):
    """Without what dimoo writes into it, a folder of LLaDA's form is read by its own files alone."""
    folder = talker.save(tmp_path / "llada", layout="lumina")
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del settings["dimoo"]
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    loaded = dimoo.load(folder)
    assert loaded.kit.image_tokenizer is None
    assert loaded.config.chat == TEMPLATE
    assert loaded.config.vocabulary == talker.config.vocabulary
    greedy = TextSettings()
    assert loaded.chat("hello", tokens=5, settings=greedy) == talker.chat("hello", tokens=5, settings=greedy)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.chat("hello", tokens=0), "an answer of 0 tokens cannot hold anything"),
        (lambda m: m.chat("hello", tokens=1.5), "tokens 1.5 must be a whole number"),
        (lambda m: m.chat("hello", seed="a"), "seed 'a' must be a whole number"),
        (lambda m: m.chat(""), "the last message is empty"),
        (lambda m: m.chat([]), "the conversation is empty"),
        (lambda m: m.chat(7), "messages must be a string or a list of messages, not int"),
        (lambda m: m.chat(["hello"]), "the message 'hello' must be a Message or"),
        (lambda m: m.chat([{"role": "user", "text": "a"}]), "the message {'role': 'user', 'text': 'a'} must be"),
        (lambda m: m.chat("hello", settings=dimoo.ImageSettings()), "must be TextSettings or a Plan"),
        (lambda m: m.generate("a cat"), 'this model knows text only; for pictures load .* "mini", or .* dimoo.grow'),
        (lambda m: m.inpaint(picture(8, 8), box(8, 8, (0, 0, 8, 8)), "a cat"), "this model knows text only"),
        (lambda m: m.ask(picture(8, 8), "what is it"), "this model knows text only"),
        (lambda m: m.caption(picture(8, 8)), "this model knows text only"),
    ],
)
def test_what_a_text_only_model_cannot_do_is_named_before_it_computes(call, message):
    network = Scripted([])
    with pytest.raises(dimoo.RequestError, match=message):
        call(llada_like(network=network))
    assert network.seen == []


def test_a_model_without_a_template_and_without_the_task_says_so(model):
    with pytest.raises(dimoo.RequestError, match="no chat template, so it cannot chat; load one that has, as LLaDA"):
        served_by(model, model.backbone, tasks={"ask": model.config.tasks["ask"]}).chat("hello")


def test_a_model_without_a_template_chats_as_its_table_says(model):
    asked = dimoo.TaskRequest(task="chat", words="what is left of the apple ?", tokens=5, seed=3)
    drawn = TextSettings(draw=CategoricalConfig(temperature=2.0))
    answer = model.chat("what is left of the apple ?", tokens=5, seed=3, settings=drawn)
    assert answer == model.run([asked], text=drawn)[0]
    assert answer != model.chat("what is left of the apple ?", tokens=5, seed=4, settings=drawn)
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello"}]
    with pytest.raises(dimoo.RequestError, match="takes one message of the user, not 3 of user, assistant, user"):
        model.chat([*turns, turns[0]])
    with pytest.raises(dimoo.RequestError, match="one message of the user, not 1 of system"):
        model.chat([{"role": "system", "content": "hello"}])
    with pytest.raises(dimoo.RequestError, match="one message of the user, not 0"):
        model.chat([])


def test_our_own_prompts_need_the_tokens_of_a_multimodal_model(talker):
    with pytest.raises(dimoo.ConfigError, match=r"no special token 'answer_start'; .* text-only: dimoo.grow adds"):
        talker.prompts.text_answer("hello", 4)
    with pytest.raises(dimoo.ConfigError, match="no special token 'answer_end'"):
        talker.prompts.read_text(torch.tensor([1, 2]))
