"""Parts of a user's own: networks, plans, tasks, and a tokenizer of two codebooks, through the calls users make."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image
from task_cases import all_equal, box, mixture, picture
from torch import nn

import dimoo
from dimoo.backbone.adapter import PaddedEncoder
from dimoo.backbone.layout import PackedLayout
from dimoo.core.rng import generator
from dimoo.data.config import MixtureConfig
from dimoo.data.documents import DocumentBuilder
from dimoo.data.example import Example
from dimoo.denoise.objective import MaskedObjective
from dimoo.diffusion.corruption import ExactCount
from dimoo.diffusion.loss import MeanOverMasked
from dimoo.diffusion.schedules import Linear
from dimoo.diffusion.times import UniformTimes
from dimoo.tasks.compose import Settings
from dimoo.tasks.generate import generate
from dimoo.tasks.model import Dimoo
from dimoo.tasks.plans import image_plan
from dimoo.tokenizers.packing import pack

WIDTH = 16


class Rectangular(nn.Module):
    """A foreign padded encoder."""

    def __init__(self, size):
        super().__init__()
        self.tokens = nn.Embedding(size, WIDTH)
        self.tokens.weight.data = torch.randn(size, WIDTH, generator=generator(0, "own"))

    def forward(self, ids, mask):
        x = self.tokens(ids) * mask[..., None]
        return x + x.sum(1, keepdim=True) / mask.sum(1)[:, None, None] ** 0.5


class Own:
    """No module at all: the mean of each sequence's vectors beside each token's."""

    device = torch.device("cpu")

    def __init__(self, size):
        self.vocab_size = size
        self.table = torch.randn(size, WIDTH, generator=generator(1, "own")).requires_grad_()

    def __call__(self, tokens, layout):
        parts = self.table[tokens].split(list(layout.query_lengths))
        return torch.cat([part + part.mean(0, keepdim=True) for part in parts])

    def head(self, rows, columns=None):
        return rows @ self.table[columns or slice(None)].T


def padded(size):
    table = torch.randn(size, WIDTH, generator=generator(2, "own"))
    return PaddedEncoder(Rectangular(size), unembedding=nn.Parameter(table), pad=1)


def with_network(model, network, image_tokenizer=None):
    return Dimoo(
        model.config,
        backbone=network,
        text_tokenizer=model.prompts.text,
        image_tokenizer=image_tokenizer or model.kit.image_tokenizer,
    )


def objective(vocabulary, **changes):
    return MaskedObjective(
        vocabulary=vocabulary,
        schedule=Linear(),
        times=UniformTimes(),
        corruption=ExactCount(),
        weight=MeanOverMasked(),
        full_up_to=0,
        slice_loss=True,
        chunk=1000,
        **changes,
    )


@pytest.mark.parametrize("kind", [padded, Own])
def test_any_network_serves_and_trains(model, kind):
    network = kind(model.config.vocabulary.size)
    own = with_network(model, network)
    together = own.run(mixture())
    assert all_equal(together, [own.run([request])[0] for request in mixture()])

    batch = pack([model.prompts.text_answer("red apple", 6), model.prompts.text_answer("two cats", 9)])
    noisy = objective(model.config.vocabulary).corrupt(batch, generator(0))
    loss = objective(model.config.vocabulary).loss(network, noisy)
    table = network.unembedding if isinstance(network, nn.Module) else network.table
    (gradient,) = torch.autograd.grad(loss.terms.mean(), [table])
    assert float(loss.terms.total.detach()) > 0
    assert float(gradient.abs().sum()) > 0


def test_a_plan_in_place_of_settings(model):
    @dataclass(frozen=True)
    class ReadingOrder:
        count: int

        def validate(self, length, steps):
            assert steps * self.count >= length

        def candidates(self, progress):
            return progress.masked.nonzero()[: self.count, 0]

        def commit(self, progress, candidates, confidence, generator):
            return candidates

    plan = replace(image_plan(model.config.image), order=ReadingOrder(2), steps=3)
    stream = model.stream([dimoo.GenerateRequest(prompt="a cat")], image=plan)
    assert [state.committed.tolist() for state in stream] == [[2, 3], [4, 6], [7, 8]]
    assert all_equal(stream.results(), model.generate("a cat", settings=plan))


def test_an_order_that_leaves_masks_is_named(model):
    @dataclass(frozen=True)
    class Lazy:
        def validate(self, length, steps):
            pass

        def candidates(self, progress):
            return progress.masked.nonzero()[:, 0]

        def commit(self, progress, candidates, confidence, generator):
            return candidates[:1]

    plan = replace(image_plan(model.config.image), order=Lazy())
    with pytest.raises(dimoo.ConfigError, match=r"Lazy\(\) left 2 of 6 positions masked after its 4 steps"):
        model.generate("a cat", settings=plan)


def test_a_task_of_ones_own_is_a_function_that_returns_a_job(model):
    def codes(prompt):
        settings = Settings(image=model.config.image, text=model.config.text)
        job = generate(model.kit, dimoo.GenerateRequest(prompt=prompt), settings)
        return replace(job, read=lambda ids: ids[2:-2].tolist())

    mine, other = model.run([codes("a cat"), dimoo.GenerateRequest(prompt="a cat")])
    assert len(mine) == 2 * 4
    assert all_equal([other], model.generate("a cat"))


def test_a_stream_gives_the_results_of_the_run(model):
    stream = model.stream(mixture())
    assert next(stream).step == 1
    assert all_equal(stream.results(), model.run(mixture()))
    assert all_equal(stream.results(), model.run(mixture()))
    assert list(stream) == []


class TwoBooks:
    """The red and the green of each 8x8 block in 32 levels each: two codebooks that share the 64 ids."""

    modality, codebook_size, codebooks, downsampling, fingerprint = "image", 32, 2, (8, 8), "two"

    def grid_for(self, size):
        return size[0] // 8, size[1] // 8

    def encode(self, media):
        blocks = nn.functional.avg_pool2d(media, 8)
        return (blocks[:, :2] * 31).round().long().permute(0, 2, 3, 1)

    def decode(self, codes):
        assert codes.shape[-1] == 2
        assert int(codes.max()) < 32
        levels = nn.functional.pad(codes.permute(0, 3, 1, 2) / 31, (0, 0, 0, 0, 0, 1))
        return nn.functional.interpolate(levels, scale_factor=8)


@pytest.fixture
def two(model):
    return with_network(model, model.backbone, TwoBooks())


def test_two_codebooks_generate(two):
    stream = two.stream([dimoo.GenerateRequest(prompt="a cat", height=16, width=24)])
    (made,) = stream.results()
    assert made.size == (24, 16)
    assert np.asarray(made).std() > 1  # not one colour
    start, stop = two.config.vocabulary.columns("image")
    spans = stream._canvas.spans
    assert [span.columns for span in spans] == [(start, start + 32), (start + 32, stop)]
    assert [span.positions.numel() for span in spans] == [6, 6]


def test_two_codebooks_inpaint_and_are_asked_about(two):
    colours = np.repeat(np.repeat(np.arange(6).reshape(2, 3) * 40, 8, 0), 8, 1).astype(np.uint8)
    original = Image.fromarray(np.stack([colours, 255 - colours, 0 * colours], -1))
    stream = two.stream([dimoo.InpaintRequest(image=original, mask=box(16, 24, (0, 0, 9, 4)), prompt="a cat")])
    (result,) = stream.results()
    assert np.array_equal(np.asarray(result)[4:], np.asarray(original)[4:])
    first = two.config.vocabulary.columns("image")[0]
    codes = stream._canvas.ids[2:-2].view(2, 7)[:, :6].reshape(2, 3, 2) - first - torch.tensor([0, 32])
    known = two.kit.encode(original)
    assert torch.equal(codes[1], known[1])
    assert torch.equal(codes[0, 2], known[0, 2])
    assert isinstance(two.ask(original, "what"), str)


def test_two_codebooks_train(two):
    mixture = MixtureConfig(text_to_image=1, caption=0, question=0, dropout=0.0)
    builder = DocumentBuilder(prompts=two.prompts, image_tokenizer=TwoBooks(), mixture=mixture)
    image = np.asarray(picture(16, 24))
    documents = builder.build([Example(caption="a cat", image=image)], [generator(0)])
    batch = pack(documents)
    start, stop = two.config.vocabulary.columns("image")
    assert [target.columns for target in batch.targets] == [(start, start + 32), (start + 32, stop)]
    assert batch.sizes().tolist() == [6, 6]
    own = objective(two.config.vocabulary)
    noisy = own.corrupt(batch, generator(1))
    loss = own.loss(two.backbone, noisy)
    hidden = two.backbone(noisy.ids, PackedLayout.of(batch.lengths))
    for place, row in enumerate(noisy.rows.tolist()):
        low, high = batch.targets[int(batch.group[row])].columns
        scores = two.backbone.head(hidden[row : row + 1])[0, low:high].log_softmax(0)
        torch.testing.assert_close(loss.nll[place], -scores[int(batch.ids[row]) - low].detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.generate("a", size=16), r"size 16 must be \(height, width\)"),
        (lambda m: m.generate("a", size=(16,)), r"size \(16,\) must be"),
        (lambda m: m.generate("a", size=(16.0, 16)), r"size \(16.0, 16\) must be"),
        (lambda m: m.generate("a", size=[]), "1 prompts but 0 sizes"),
        (lambda m: m.generate("a", seed=0.5), "seed 0.5 must be a whole number"),
        (lambda m: m.generate([7]), "the prompt 7 must be a string"),
        (lambda m: m.generate("a", settings={"steps": 3}), "settings must be ImageSettings or a Plan, not dict"),
        (lambda m: m.generate("a", settings=dimoo.TextSettings()), "must be ImageSettings or a Plan, not TextSettings"),
        (lambda m: m.ask(picture(8, 8), "a", settings=dimoo.ImageSettings()), "must be TextSettings or a Plan"),
        (lambda m: m.ask("cat.png", "what"), r"must be a Pillow image, not str 'cat.png'; PIL.Image.open"),
        (lambda m: m.caption(["cat.png"]), "must be a Pillow image, not str"),
        (lambda m: m.inpaint("cat.png", "mask.png", "a"), "the image must be a Pillow image, not str"),
        (lambda m: m.inpaint(picture(8, 8), np.zeros((8, 8)), "a"), "the mask must be a Pillow image, not ndarray"),
        (lambda m: m.run(dimoo.GenerateRequest(prompt="a")), r"must be a list, not GenerateRequest; for one write"),
        (lambda m: m.run("a cat"), "must be a list, not str"),
        (
            lambda m: m.run(["a cat"]),
            "a request is one of dimoo's requests, as dimoo.GenerateRequest, or a Job, not str",
        ),
        (lambda m: m.run([]), "no request to run"),
    ],
)
def test_bad_input_is_named_with_its_fix(model, call, message):
    with pytest.raises(dimoo.RequestError, match=message):
        call(model)


def test_numpy_numbers_and_the_models_own_values(model):
    seed, size = np.int64(3), np.array([16, 24])
    assert all_equal(model.generate("a", seed=seed, size=size), model.generate("a", seed=3, size=(16, 24)))
    asked = [dimoo.GenerateRequest(prompt="a", seed=3), dimoo.AskRequest(images=(picture(8, 8),), question="what")]
    wanted = [*model.generate("a", seed=3), model.ask(picture(8, 8), "what", tokens=4)]
    assert all_equal(model.run(asked), wanted)
