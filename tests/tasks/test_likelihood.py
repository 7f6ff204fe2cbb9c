"""The likelihood bound against its definition: the mean over all orders of uncovering a target token by token."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from task_cases import picture
from torch import nn

import dimoo
from dimoo.backbone.layout import PackedLayout
from dimoo.core.requests import Message
from dimoo.core.rng import generator
from dimoo.data.world import WorldConfig, plain_caption, render, sample_scene
from dimoo.diffusion.guidance import CONDITION
from dimoo.tasks.likelihood import Likelihood, draw_masks, known_problem, likelihood, stratified_mean
from dimoo.tasks.problem import Problem
from dimoo.tasks.problems import CAPTION_REQUEST
from dimoo.tokenizers.document import Document, Target, join
from dimoo.tokenizers.template import PLAIN, ChatTemplate

WIDTH, SIZE, MASK = 8, 12, 0


class Table:
    """A network in one table: each token's vector, turned by its position, beside the mean of its sequence."""

    device = torch.device("cpu")

    def __init__(self, size, scale=1.0):
        self.vocab_size = size
        self.table = (scale * torch.randn(size, WIDTH, generator=generator(0, "table"))).requires_grad_()
        self.streams = []

    def __call__(self, tokens, layout):
        assert not torch.is_grad_enabled()
        self.streams.append(len(layout.query_lengths))
        parts = (self.table[tokens] * (1 + layout.positions[:, None]).sin()).split(list(layout.query_lengths))
        return torch.cat([part + 2 * part.mean(0, keepdim=True) for part in parts])

    def head(self, rows, columns=None):
        return rows @ self.table[columns or slice(None)].T


class TwoBooks:
    """The red and the green of each 8x8 block in 32 levels each: two codebooks that share the 64 ids."""

    modality, codebook_size, codebooks, downsampling, fingerprint = "image", 32, 2, (8, 8), "two"

    def grid_for(self, size):
        return size[0] // 8, size[1] // 8

    def encode(self, media):
        return (nn.functional.avg_pool2d(media, 8)[:, :2] * 31).round().long().permute(0, 2, 3, 1)


def with_parts(model, *, backbone=None, image=None, **changes):
    return dimoo.Dimoo(
        model.config.model_copy(update=changes),
        backbone=backbone or model.backbone,
        text_tokenizer=model.prompts.text,
        image_tokenizer=image or model.kit.image_tokenizer,
    )


def toy(ids, context=(3, 7, 5)):
    """A problem of one group of targets, of a vocabulary of 12 ids whose first one is the mask."""
    target = Document.target(ids, Target(modality="text", kind="text", columns=(2, SIZE)))
    return Problem(branches={CONDITION: Document.given(context)}, answer=join([Document.given([1]), target]))


@torch.no_grad()
def over_all_orders(network, problem, mask):
    """The mean over orders s of sum_t -log p(x_s(t) | x_s(1) .. x_s(t-1), context), one token at a time."""
    document = problem.document()
    places = (document.group >= 0).nonzero().squeeze(1).tolist()
    known = {}

    def cost(shown, place):
        if (shown, place) not in known:
            ids = document.ids.clone()
            ids[[p for p in places if p not in shown]] = mask
            hidden = network(ids, PackedLayout.of([len(ids)]))
            start, stop = document.targets[int(document.group[place])].columns
            logits = network.head(hidden[place : place + 1], slice(None))[0, start:stop].double()
            known[shown, place] = float(logits.logsumexp(0) - logits[int(document.ids[place]) - start])
        return known[shown, place]

    costs = [
        sum(cost(frozenset(order[:step]), place) for step, place in enumerate(order)) for order in permutations(places)
    ]
    return sum(costs) / len(costs)


@pytest.mark.parametrize("ids", [[4], [4, 9], [11, 2, 6], [8, 8, 3, 5]])
def test_a_short_target_is_exact(ids):
    network, problem = Table(SIZE), toy(ids)
    result = likelihood(network, problem, mask=MASK, samples=15, seed=0, batch=4)
    assert result.nats == pytest.approx(over_all_orders(network, problem, MASK), rel=1e-6)
    assert (result.error, result.tokens) == (0.0, len(ids))
    assert sum(network.streams) >= 2 ** len(ids) - 1


def test_estimates_lie_around_the_exact_value_as_their_errors_say():
    network, problem = Table(SIZE), toy([4, 9, 2, 2, 11, 6])
    exact = over_all_orders(network, problem, MASK)
    for samples in (20, 33):
        runs = [likelihood(network, problem, mask=MASK, samples=samples, seed=seed, batch=40) for seed in range(300)]
        nats = torch.tensor([run.nats for run in runs], dtype=torch.float64)
        errors = torch.tensor([run.error for run in runs], dtype=torch.float64)
        assert abs(float(nats.mean()) - exact) < 4 * float(nats.std()) / 300**0.5
        # The square of the error is unbiased; the spread of 300 runs is known to about 4 %.
        assert float(errors.square().mean().sqrt() / nats.std()) == pytest.approx(1.0, abs=0.15)
        inside = ((nats - exact).abs() < 2 * errors).double().mean()
        assert 0.88 < float(inside) <= 0.99


def test_many_draws_come_close():
    network, problem = Table(SIZE), toy([4, 9, 2, 2, 11, 6, 10, 3])
    rough = likelihood(network, problem, mask=MASK, samples=16, seed=1, batch=16)
    fine = likelihood(network, problem, mask=MASK, samples=254, seed=1, batch=254)
    every = likelihood(network, problem, mask=MASK, samples=255, seed=1, batch=255)
    assert 0 < fine.error < rough.error / 2
    assert abs(fine.nats - every.nats) < 4 * fine.error
    assert every.error == 0


@given(tokens=st.integers(1, 9), times=st.integers(1, 5), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_every_count_gets_its_share(tokens, times, seed):
    masks, strata = draw_masks(tokens, 2 * times * tokens, generator(seed))
    assert masks.sum(1).bincount().tolist() == [0] + [2 * times] * tokens
    assert strata.bincount().tolist() == [2] * (times * tokens)


@given(tokens=st.integers(1, 40), samples=st.integers(2, 30), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_counts_lie_in_their_strata(tokens, samples, seed):
    masks, strata = draw_masks(tokens, samples, generator(seed))
    count = samples // 2
    lowest, highest = 1 + strata * tokens // count, 1 + -(-(strata + 1) * tokens // count) - 1
    assert masks.shape == (samples, tokens)
    assert ((masks.sum(1) >= lowest) & (masks.sum(1) <= highest)).all()
    assert int(strata.bincount().min()) >= 2


def test_all_sets_of_a_count_are_equally_frequent():
    masks, _ = draw_masks(4, 40_000, generator(0))
    pairs = masks[masks.sum(1) == 2]
    codes = (pairs.long() * torch.tensor([1, 2, 4, 8])).sum(1).bincount()
    frequent = codes[codes > 0].double() / len(pairs)
    assert len(frequent) == 6
    torch.testing.assert_close(frequent, torch.full((6,), 1 / 6, dtype=torch.float64), atol=0.015, rtol=0)


def test_the_stratified_mean_by_hand():
    values, strata = torch.tensor([1.0, 10.0, 3.0, 14.0, 2.0]).double(), torch.tensor([0, 1, 0, 1, 0])
    mean, error = stratified_mean(values, strata)
    assert mean == pytest.approx((2 + 12) / 2)
    assert error == pytest.approx((1 / 3 + 8 / 2) ** 0.5 / 2)  # variances 1 and 8 of 3 and 2 draws


@pytest.mark.parametrize("samples", [2, 31, 64])
def test_a_uniform_network_costs_the_log_of_its_columns(model, samples):
    blank = Table(model.config.vocabulary.size, scale=0.0)
    text = with_parts(model, backbone=blank).nll("two green apples on a blue background", samples=samples)
    image = with_parts(model, backbone=blank).nll(picture(16, 40), prompt="a cat", samples=samples)
    books = with_parts(model, backbone=blank, image=TwoBooks()).nll(picture(16, 24), samples=samples)
    assert (image.tokens, books.tokens) == (10, 12)
    for result, columns in ((text, model.config.vocabulary.text_size), (image, 64), (books, 32)):
        assert result.nats == pytest.approx(result.tokens * math.log(columns), rel=1e-6)
        assert result.error == 0
        assert result.perplexity == pytest.approx(columns, rel=1e-5)
        assert result.bits_per_token == pytest.approx(math.log2(columns), rel=1e-6)


@pytest.mark.parametrize(
    ("target", "more"),
    [
        ("", {"prompt": "what is it", "images": picture(8, 8)}),
        ("red", {"prompt": "which", "images": [picture(16, 24), picture(8, 8)]}),
        ("red", {"prompt": "which", "images": [picture(8, 8)], "tokens": 5}),
        ("apple", {}),
        (picture(8, 24), {"prompt": "a cat"}),
        (picture(16, 16), {}),
    ],
)
def test_the_models_answers_and_pictures(model, target, more):
    result = model.nll(target, **more)
    problem = known_problem(model.kit, target, more.get("prompt", ""), more.get("images", ()), more.get("tokens"))
    exact = over_all_orders(model.backbone, problem, model.config.vocabulary.mask)
    assert result.nats == pytest.approx(exact, rel=1e-5)
    assert result.error == 0


def test_codes_of_several_books_take_their_own_columns(model):
    two = with_parts(model, image=TwoBooks())
    image = picture(8, 16)
    exact = over_all_orders(two.backbone, known_problem(two.kit, image, "a cat", (), None), two.config.vocabulary.mask)
    result = two.nll(image, prompt="a cat", samples=15)
    assert (result.tokens, result.error) == (4, 0.0)
    assert result.nats == pytest.approx(exact, rel=1e-5)


def test_a_text_answer_is_its_tokens_and_its_end(model):
    vocabulary, ids = model.config.vocabulary, model.prompts.text.encode("a red apple")
    context = model.prompts.context("understanding", "what").ids.tolist()
    start, end, mask = vocabulary.answer_start, vocabulary.answer_end, vocabulary.mask
    for tokens, behind in ((None, []), (len(ids) + 3, [mask, mask])):
        document = known_problem(model.kit, "a red apple", "what", (), tokens).document()
        assert document.ids.tolist() == [*context, start, *ids, end, *behind, end]
        assert document.group.tolist() == [-1] * (len(context) + 1) + [0] * (len(ids) + 1) + [-1] * (len(behind) + 1)


@pytest.mark.parametrize(("stops", "last"), [(("</answer>", "<|pad|>"), ["</answer>"]), ((), [])])
def test_a_chat_model_reads_the_prompt_as_a_message(model, stops, last):
    talking = with_parts(model, chat=ChatTemplate(jinja="says: " + PLAIN, stops=stops, max_tokens=40))
    text = talking.prompts.text
    context = talking.kit.chat.context([Message(role="user", content="what is red")]).ids.tolist()
    ids = [*text.encode("an apple"), *map(text.id_of, last)]
    document = known_problem(talking.kit, "an apple", "what is red", (), None).document()
    assert document.ids.tolist() == context + ids
    assert document.group.tolist() == [-1] * len(context) + [0] * len(ids)
    assert talking.nll("an apple", prompt="what is red", samples=4).tokens == len(ids)
    # About pictures it is asked as any other model.
    asked = {"prompt": "what is it", "images": picture(8, 8)}
    assert talking.nll("red", **asked) == model.nll("red", **asked)
    with pytest.raises(dimoo.RequestError, match="more than the 40"):
        talking.nll("red", prompt="apple " * 50)


@pytest.mark.parametrize("target", ["two green apples on a blue and white background", picture(32, 40)])
def test_the_batch_changes_nothing_and_the_seed_the_draws(model, target):
    one, seven = (model.nll(target, prompt="a cat", samples=11, batch=batch) for batch in (1, 7))
    assert one.nats == pytest.approx(seven.nats, rel=1e-5)
    assert one.error == pytest.approx(seven.error, rel=1e-3)
    assert seven == model.nll(target, prompt="a cat", samples=11, batch=7)
    assert seven.nats != model.nll(target, prompt="a cat", samples=11, batch=7, seed=1).nats
    assert seven.nats != model.nll(target, prompt="two dogs", samples=11, batch=7).nats


def test_draws_are_packed(model):
    network = Table(model.config.vocabulary.size)
    with_parts(model, backbone=network).nll(picture(32, 32), samples=11, batch=4)
    assert network.streams == [4, 4, 3]


def test_what_it_says():
    result = Likelihood(nats=8 * math.log(2), error=0.25, tokens=4)
    assert result.per_token == pytest.approx(2 * math.log(2))
    assert result.bits_per_token == pytest.approx(2.0)
    assert result.perplexity == pytest.approx(4.0)
    assert str(result) == "5.545 +- 0.25 nats for 4 tokens (2 bits per token, perplexity 4)"
    assert Likelihood(nats=1e6, error=0.0, tokens=1).perplexity == math.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.nll(picture(8, 8), images=picture(8, 8)), "the target is a picture and comes with 1 `images`"),
        (lambda m: m.nll(picture(8, 8), tokens=4), "comes with tokens=4; .* leave `images` and `tokens` out"),
        (lambda m: m.nll(picture(8, 9)), r"image size \(8, 9\) is not a multiple of 8"),
        (lambda m: m.nll(7), "the target must be a Pillow image or a string, not int 7"),
        (lambda m: m.nll("a", prompt=None), "the prompt None must be a string"),
        (lambda m: m.nll("a", images="cat.png"), "must be a Pillow image, not str 'cat.png'"),
        (lambda m: m.nll("a", prompt="apple " * 200), "the prompt takes .* tokens, more than the 64"),
        (lambda m: m.nll(picture(8, 8), prompt="apple " * 200), "the prompt takes .* tokens, more than the 64"),
        (lambda m: m.nll("a red apple", tokens=2), "the answer takes 6 tokens, more than the 2 that are planned"),
        (lambda m: m.nll("a", tokens=0), "an answer of 0 tokens"),
        (lambda m: m.nll("a", samples=1), "samples=1 must be at least 2"),
        (lambda m: m.nll("a", samples=2.5), "samples 2.5 must be a whole number"),
        (lambda m: m.nll("a", batch=0), "batch=0 must be at least 1"),
        (lambda m: m.nll("a", seed="x"), "seed 'x' must be a whole number"),
    ],
)
def test_bad_input_is_named_with_its_fix(model, call, message):
    with pytest.raises(dimoo.RequestError, match=message):
        call(model)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "the answer has no target token"),
        ([4, MASK, 6], "1 of 3 target tokens are masked or no id of their kind"),
        ([4, 1, SIZE], "2 of 3 target tokens"),
    ],
)
def test_only_known_targets_have_a_likelihood(ids, message):
    with pytest.raises(dimoo.RequestError, match=message):
        likelihood(Table(SIZE + 1), toy(ids), mask=MASK, samples=4, seed=0, batch=4)


def test_mini_finds_what_is_true_likelier():
    """Three pictures of things that mini knows, with the captions and prompts of each."""
    mini = dimoo.load("mini")
    draw, world = np.random.default_rng(3), WorldConfig(two_tone=0.0)
    scenes = [sample_scene(world, draw, objects=1) for _ in range(5)]
    cases = [(Image.fromarray(render(scenes[index])), plain_caption(scenes[index])) for index in (0, 1, 4)]
    for image, own in cases:
        room = {"prompt": CAPTION_REQUEST, "images": image, "tokens": mini.config.caption_tokens, "samples": 16}
        said, drawn = mini.nll(own, **room), mini.nll(image, prompt=own, samples=6)
        for other in {caption for _, caption in cases} - {own}:
            assert said.nats + 2 * said.error < mini.nll(other, **room).nats
            assert drawn.nats + 2 * drawn.error < mini.nll(image, prompt=other, samples=6).nats
