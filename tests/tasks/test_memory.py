from __future__ import annotations

import resource
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.init import initialise
from dimoo.core.errors import ConfigError, RequestError
from dimoo.core.peak import held, peak_bytes
from dimoo.core.rng import generator
from dimoo.diffusion.canvas import Plan
from dimoo.diffusion.guidance import ClassifierFree, MultiCondition, NoGuidance
from dimoo.presets.config import ImageSettings, ModelConfig, TextSettings
from dimoo.presets.lumina_dimoo_8b import lumina_dimoo_8b
from dimoo.tasks.engine import Stream
from dimoo.tasks.job import Job
from dimoo.tasks.memory import PROMPT_TOKENS, Need, Step, estimate, meta_backbone, step_bytes, usual_sizes
from dimoo.tasks.model import Dimoo
from dimoo.tasks.plans import image_plan, text_plan
from dimoo.tasks.problem import Problem
from dimoo.tokenizers.document import Document, join
from dimoo.tokenizers.image.build import build_image_tokenizer, empty_image_tokenizer
from dimoo.tokenizers.image.config import (
    AmusedNetworkConfig,
    FiniteScalarQuantizerConfig,
    ImageTokenizerConfig,
    PatchNetworkConfig,
    VectorQuantizerConfig,
)
from dimoo.tokenizers.image.tokenizer import ImageTokenizer
from dimoo.tokenizers.prompts import Grid

SHAPE = {"d_model": 64, "layers": 4, "heads": 4, "kv_heads": 2, "mlp_hidden": 192}
SIZE = (128, 160)
AMUSED = AmusedNetworkConfig(channels=(8, 8, 16, 16), blocks=1, latent_channels=8, groups=4)
PATCH = PatchNetworkConfig(patch=8, width=16, encoder_blocks=1, decoder_blocks=1)


@pytest.fixture(scope="module")
def config(model: Dimoo) -> ModelConfig:
    """The tiny model with a wider network and larger pictures: 16 x 20 codes."""
    shape = model.config.backbone.model_copy(update=SHAPE)
    return model.config.model_copy(update={"backbone": shape, "image_size": SIZE, "answer_tokens": 24})


@pytest.fixture(scope="module")
def image(model: Dimoo) -> ImageTokenizer:
    assert isinstance(model.kit.image_tokenizer, ImageTokenizer)
    return model.kit.image_tokenizer


def by_task(needs: tuple[Need, ...], size: tuple[int, int] | None) -> dict[str, Need]:
    return {need.task: need for need in needs if need.size == size}


# The same step, with numbers and without


def problem(model: Dimoo, task: str, image: ImageTokenizer) -> Problem:
    """What the tasks make of a request, but with prompts of exactly `PROMPT_TOKENS` tokens."""
    words = Document.given([5] * PROMPT_TOKENS)
    if task == "understanding":
        seen = picture(model, SIZE, image)
        return Problem(branches={"condition": join([words, seen])}, answer=model.prompts.text_answer(None, 24))
    answer = model.prompts.grid_answer(Grid(modality="image", shape=image.grid_for(SIZE)))
    if task == "text_to_image":
        return Problem(branches={"condition": words, "unconditional": words}, answer=answer)
    both = join([words, picture(model, (SIZE[0] // 2, SIZE[1] // 2), image)])
    return Problem(branches={"condition": both, "no_text": both, "no_image": words}, answer=answer)


def picture(model: Dimoo, size: tuple[int, int], image: ImageTokenizer) -> Document:
    answer = model.prompts.grid_answer(Grid.of("image", torch.zeros(image.grid_for(size), dtype=torch.int64)))
    return Document.given(answer.ids[1:-1])


@pytest.mark.parametrize("task", ["text_to_image", "image_to_image", "understanding"])
@pytest.mark.parametrize("mlp_hidden", [192, 8])
def test_a_real_step_takes_what_the_estimate_says(
    model: Dimoo, config: ModelConfig, image: ImageTokenizer, task: str, mlp_hidden: int
) -> None:
    """The step that users run, on numbers and with real attention; with a narrow MLP the peak lies elsewhere.

    It takes more by what the estimate leaves out: the sampler's ids and masks, less than 24 bytes per canvas token.
    """
    config = config.model_copy(update={"backbone": config.backbone.model_copy(update={"mlp_hidden": mlp_hidden})})
    backbone = initialise(build_backbone(config.backbone), generator(0, "memory"))
    plan = image_plan(config.image)
    job = Job(
        problem=problem(model, task, image),
        plans={
            "image": guided(plan) if task == "image_to_image" else plan,
            "text": text_plan(config.text, tokens=24, stops=[]),
        },
        seed=0,
        read=lambda ids: ids,
    )
    stream = Stream.sampled(backbone, config.vocabulary, [job])
    need = by_task(estimate(config, dtype=torch.float32, image=image), SIZE)[task]
    assert need.tokens == sum(len(document) + len(job.problem.answer) for document in job.problem.branches.values())
    real = peak_bytes(lambda: next(stream))
    assert need.activations < real < need.activations + 24 * len(job.problem.answer)


def guided(plan: Plan) -> Plan:
    return replace(plan, guidance=MultiCondition(scales=(("no_text", 2.5), ("no_image", 4.0))))


@pytest.mark.parametrize(
    "shape",
    [
        ImageTokenizerConfig(network=AMUSED, quantizer=VectorQuantizerConfig(size=64, dim=4)),
        ImageTokenizerConfig(network=PATCH, quantizer=VectorQuantizerConfig(size=64, dim=4)),
        ImageTokenizerConfig(network=PATCH, quantizer=FiniteScalarQuantizerConfig(levels=(4, 4, 4))),
    ],
    ids=["amused-vq", "patch-vq", "patch-fsq"],
)
def test_the_image_tokenizer_takes_exactly_what_the_estimate_says(
    config: ModelConfig, shape: ImageTokenizerConfig
) -> None:
    tokenizer = build_image_tokenizer(shape, generator(0, "memory", "tokenizer"))
    codes = torch.zeros(1, *tokenizer.grid_for(SIZE), dtype=torch.int64)

    def encode(height: int, width: int) -> int:
        pixels = torch.zeros(1, 3, height, width)
        # The estimate counts the pixels too: they are copied to the device.
        return peak_bytes(lambda: tokenizer.encode(pixels.clone()))

    decode = peak_bytes(lambda: tokenizer.decode(codes))
    needs = by_task(estimate(config, dtype=torch.float32, image=tokenizer, sizes=[SIZE]), SIZE)
    assert needs["text_to_image"].codec == decode
    assert needs["understanding"].codec == encode(*SIZE)
    assert needs["image_to_image"].codec == max(decode, encode(SIZE[0] // 2, SIZE[1] // 2))


# What the figures depend on


def meta_step(contexts: int, canvas: int, *, mlp_hidden: int = 192, layers: int = 4) -> int:
    """A step of so many branches, each with as many tokens in front of the canvas as it has itself."""
    shape = BackboneConfig(vocab_size=100, **{**SHAPE, "layers": layers, "mlp_hidden": mlp_hidden})
    guidance = [NoGuidance(), ClassifierFree(scale=1.0)][contexts - 1]
    plan = replace(image_plan(ImageSettings()), guidance=guidance)
    step = Step(
        contexts=dict.fromkeys(guidance.branches, canvas), canvas=canvas, targets=canvas, columns=(0, 10), plan=plan
    )
    assert step.tokens == contexts * 2 * canvas
    return step_bytes(meta_backbone(shape, torch.float32), step)


def test_memory_is_linear_in_tokens_and_in_branches() -> None:
    assert meta_step(2, 1000) / meta_step(2, 500) == pytest.approx(2, rel=1e-3)
    assert meta_step(2, 500) / meta_step(1, 500) == pytest.approx(2, rel=0.01)


def test_more_layers_hold_nothing_more_but_weights(config: ModelConfig, image: ImageTokenizer) -> None:
    """Why the estimate may run two layers for all of them."""
    assert meta_step(1, 300, layers=1) < meta_step(1, 300, layers=2) == meta_step(1, 300, layers=7)
    needs = {}
    for layers in (2, 5):
        backbone = config.backbone.model_copy(update={"layers": layers})
        needs[layers] = estimate(config.model_copy(update={"backbone": backbone}), dtype=torch.float32, image=image)
    for shallow, deep in zip(needs[2], needs[5], strict=True):
        assert replace(deep, weights=shallow.weights) == shallow
        assert deep.weights - shallow.weights == 3 * 4 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 192 + 2 * 64)


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=2, max_size=2))
@settings(deadline=None, max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_larger_picture_needs_more(config: ModelConfig, image: ImageTokenizer, grids: list[tuple[int, int]]) -> None:
    (h, w), (more_h, more_w) = grids
    small, large = (8 * h, 8 * w), (8 * (h + more_h), 8 * (w + more_w))
    needs = estimate(config, dtype=torch.float32, image=image, sizes=[small, large])
    for task, need in by_task(needs, large).items():
        less = by_task(needs, small)[task]
        assert need.tokens > less.tokens
        assert need.activations > less.activations or task == "understanding"
        assert need.activations >= less.activations
        assert need.codec > less.codec or task == "image_to_image"
        assert need.codec >= less.codec
        assert need.total == need.weights + max(need.activations, need.codec)


def test_half_precision_halves_the_backbone_alone(config: ModelConfig, image: ImageTokenizer) -> None:
    codec = sum(tensor.nbytes for tensor in (*image.parameters(), *image.buffers()))
    full, half = (
        by_task(estimate(config, dtype=dtype, image=image), SIZE)["text_to_image"]
        for dtype in (torch.float32, torch.bfloat16)
    )
    real = sum(parameter.nbytes for parameter in build_backbone(config.backbone).parameters())
    assert full.weights == real + codec
    assert half.weights == real // 2 + codec
    assert half.codec == full.codec
    assert full.activations / 2 <= half.activations < full.activations


def test_text_settings_count(config: ModelConfig) -> None:
    """All positions of a block, and no other, are predicted at once."""
    whole, block = (
        estimate(
            config.model_copy(update={"text": TextSettings(block=size), "answer_tokens": 512}),
            dtype=torch.float32,
            image=None,
        )
        for size in (None, 128)
    )
    assert [need.task for need in whole] == ["chat"]
    assert (whole[0].tokens, whole[0].codec, whole[0].size) == (PROMPT_TOKENS + 512, 0, None)
    # The logits, their copy without the mask, and the probabilities.
    assert whole[0].activations == pytest.approx(3 * 512 * 4 * config.vocabulary.text_size, rel=0.02)
    assert block[0].activations < whole[0].activations / 2


def test_sizes_are_the_models_own_and_two_around_it(config: ModelConfig, image: ImageTokenizer) -> None:
    assert usual_sizes(config, image) == ((64, 80), (128, 160), (96, 240))
    odd = config.model_copy(update={"image_size": (8, 24)})
    assert usual_sizes(odd, image) == ((8, 8), (8, 24), (8, 32))
    assert {need.size for need in estimate(odd, dtype=torch.float32, image=image)} == set(usual_sizes(odd, image))


def test_a_size_off_the_grid_and_codes_without_a_range(config: ModelConfig, image: ImageTokenizer) -> None:
    with pytest.raises(RequestError, match=r"\(60, 64\) is not a multiple of 8"):
        estimate(config, dtype=torch.float32, image=image, sizes=[(60, 64)])
    textual = config.model_copy(update={"vocabulary": config.vocabulary.model_copy(update={"modalities": ()})})
    with pytest.raises(ConfigError, match="no modality 'image'"):
        estimate(textual, dtype=torch.float32, image=image)


def test_nothing_is_changed_by_an_estimate(config: ModelConfig, image: ImageTokenizer) -> None:
    before = {name: tensor.clone() for name, tensor in image.state_dict().items()}
    state = torch.random.get_rng_state()
    estimate(config, dtype=torch.bfloat16, image=image)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert before.keys() == image.state_dict().keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in image.state_dict().items())


# The released model


def test_the_released_model_without_its_memory() -> None:
    config = lumina_dimoo_8b()
    vq = ImageTokenizerConfig(
        network=AmusedNetworkConfig(channels=(128, 256, 256, 512, 768), blocks=2, latent_channels=64, groups=32),
        quantizer=VectorQuantizerConfig(size=8192, dim=64),
    )
    image = empty_image_tokenizer(vq)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    needs = estimate(config, dtype=torch.bfloat16, image=image)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 200e6
    layer = 4 * 4096 * 4096 + 3 * 4096 * 12288 + 2 * 4096
    parameters = 2 * 134_548 * 4096 + 32 * layer + 4096
    assert parameters == 8_081_805_312
    assert {need.weights for need in needs} == {2 * parameters + held(image)}
    assert 2 * parameters == pytest.approx(16.16e9, rel=1e-3)
    sizes = [(512, 512), (1024, 1024), (768, 1536)]
    assert [(need.task, need.size) for need in needs] == [
        (task, size) for size in sizes for task in ("text_to_image", "image_to_image", "understanding")
    ]
    own = by_task(needs, (1024, 1024))
    answer, given = 64 * 65 + 4, 32 * 33 + 2
    assert own["text_to_image"].tokens == 2 * (64 + answer)
    assert own["image_to_image"].tokens == 3 * (64 + answer) + 2 * given
    assert own["understanding"].tokens == 64 + (64 * 65 + 2) + 1024 + 2
