"""The released models as data, against the facts of the paper and of the checkpoints, written here a second time."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
import torch

from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.core.config import parse
from dimoo.core.errors import RequestError
from dimoo.diffusion.config import NoiseDtype
from dimoo.diffusion.draw import Categorical
from dimoo.diffusion.schedules import Cosine
from dimoo.presets import families, llada_8b, lumina_dimoo_8b
from dimoo.presets.config import ModelConfig
from dimoo.tasks.plans import image_plan, text_plan
from dimoo.tasks.speech import say
from dimoo.tokenizers.image.resize import bucket_for, buckets
from dimoo.tokenizers.text import SPECIAL_TOKENS

RELEASED_IDS = {
    "end_of_text": 126081,
    "end_of_line": 126084,
    "mask": 126336,
    "pad": 126339,
    "image_start": 126349,
    "image_end": 126350,
    "unconditional": 126351,
    "answer_start": 126354,
    "answer_end": 126355,
}


def parameters(rows: int, *, width: int = 4096, layers: int = 32, hidden: int = 12288) -> int:
    """Embedding and head, four square projections, three of the MLP, two norms a block and one at the end."""
    return 2 * rows * width + layers * (4 * width * width + 3 * width * hidden + 2 * width) + width


@pytest.mark.parametrize(
    ("backbone", "rows", "billions"),
    [(lumina_dimoo_8b.BACKBONE, 134_548, 8.08), (llada_8b.BACKBONE, 126_464, 8.02)],
    ids=["lumina", "llada"],
)
def test_the_backbones_have_the_released_shape_and_size(backbone: BackboneConfig, rows: int, billions: float) -> None:
    shape = (backbone.d_model, backbone.layers, backbone.heads, backbone.kv_heads, backbone.mlp_hidden)
    assert shape == (4096, 32, 32, 32, 12288)
    assert (backbone.vocab_size, backbone.rope_theta, backbone.norm_eps) == (rows, 500000.0, 1e-5)
    assert backbone.rope_axes == (1,)
    with torch.device("meta"):
        built = sum(parameter.numel() for parameter in build_backbone(backbone).parameters())
    assert built == parameters(rows)
    assert round(built / 1e9, 2) == billions


def test_the_vocabulary_has_the_released_ids_and_size() -> None:
    vocabulary = lumina_dimoo_8b.VOCABULARY
    assert vocabulary.specials == RELEASED_IDS
    assert vocabulary.columns("image") == (126_356, 126_356 + 8192)
    assert vocabulary.columns("text") == (0, 126_356)
    assert vocabulary.size == 134_548 == lumina_dimoo_8b.BACKBONE.vocab_size


def test_the_tokens_are_those_of_the_vocabulary_in_spellings_that_do_not_clash() -> None:
    tokens = lumina_dimoo_8b.TOKENS
    assert {name: index for name, (_, index) in tokens.items()} == RELEASED_IDS
    spellings = [spelling for accepted, _ in tokens.values() for spelling in accepted]
    assert len(set(spellings)) == len(spellings)
    # The released spelling first; a tokenizer with dimoo's own is accepted as well.
    assert {name: accepted[0] for name, (accepted, _) in tokens.items() if name not in lumina_dimoo_8b.UNSPELLED} == {
        "mask": "<|mdm_mask|>",
        "end_of_text": "<|endoftext|>",
        "unconditional": "<uncondition>",
        "answer_start": "<answer>",
        "answer_end": "</answer>",
        "image_start": "<IMAGE>",
        "image_end": "</IMAGE>",
    }
    assert all(spelling in tokens[name][0] for name, spelling in SPECIAL_TOKENS.items())
    assert set(lumina_dimoo_8b.UNSPELLED) == {"pad", "end_of_line"}


def test_llada_ends_where_lumina_begins() -> None:
    assert llada_8b.TOKENS == {
        "mask": ("<|mdm_mask|>", 126336),
        "end_of_text": ("<|endoftext|>", 126081),
        "end_of_turn": ("<|eot_id|>", 126348),
    }
    assert max(index for _, index in llada_8b.TOKENS.values()) == llada_8b.USED_TOKENS - 1
    assert lumina_dimoo_8b.VOCABULARY.modality("image").opening == llada_8b.USED_TOKENS == 126_349
    # The first codes take over rows that LLaDA has, but never trained.
    assert llada_8b.USED_TOKENS < lumina_dimoo_8b.VOCABULARY.text_size < llada_8b.BACKBONE.vocab_size
    assert set(llada_8b.STOPS) == {llada_8b.TOKENS[name][0] for name in ("end_of_text", "end_of_turn")}


def test_every_family_has_its_released_system_prompt() -> None:
    systems = lumina_dimoo_8b.TEMPLATE.systems
    assert systems == lumina_dimoo_8b.SYSTEMS
    assert set(systems) == set(families.FAMILIES)
    assert len(set(families.FAMILIES)) == len(set(systems.values())) == 9
    assert systems["text_to_image"] == "Generate an image according to the text prompt."
    assert systems["understanding"] == (
        "You are a multimodal model that can process both text and images. Answer the following question based on the "
        "provided images. Analyze each image and combine relevant details to answer."
    )
    assert systems["editing"] == (
        "Generate an image applying the following editing instruction based on the original image."
    )
    assert systems["dense"] == "Perform dense prediction on the given images."
    assert systems["control"] == "Generate an image according to the text prompt and the given control image."
    assert systems["subject"] == "Generate an image according to the text prompt and the given object image."
    assert systems["multi_view"] == "Generate a view-image based on the given image."
    assert systems["style"] == "Transform the current image into the style of the provided image."
    assert systems["other"] == "Generate an image according to the prompt and image."
    assert lumina_dimoo_8b.TEMPLATE.max_prompt_tokens == 1024


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("canny", "Generate a canny edge map according to the image."),
        ("hed", "Generate a hed edge map according to the image."),
        ("normal", "Generate a normal map according to the image."),
        ("mask", "Generate a sam2 mask according to the image."),
        ("depth", "Generate a depth map according to the image."),
        ("pose", "Generate a pose estimation map according to the image."),
    ],
)
def test_the_words_of_dense_prediction(kind: str, words: str) -> None:
    assert say(lumina_dimoo_8b.TASKS, "predict", option=kind, images=["picture"]) == [words, "picture"]


def test_an_unknown_map_is_named_with_those_there_are() -> None:
    with pytest.raises(RequestError, match=r"'flow'.*canny, hed, normal, mask, depth, pose"):
        say(lumina_dimoo_8b.TASKS, "predict", option="flow", images=["picture"])


def test_the_words_of_multi_view_and_style() -> None:
    view = say(lumina_dimoo_8b.TASKS, "view", option="left", images=["front"])
    assert view == ["Generate the left view based on the provided front view.", "front"]
    style = say(lumina_dimoo_8b.TASKS, "style", images=["content", "reference"])
    assert style == ["Transform the current image into the style of the provided image.", "content", "reference"]


def test_a_control_map_comes_without_a_word_about_its_kind() -> None:
    assert say(lumina_dimoo_8b.TASKS, "control", words="a cat", option="hed", images=["map"]) == ["a cat", "map"]
    with pytest.raises(RequestError, match="'flow'"):
        say(lumina_dimoo_8b.TASKS, "control", words="a cat", option="flow", images=["map"])


def test_every_task_has_a_system_prompt() -> None:
    assert {entry.family for entry in lumina_dimoo_8b.TASKS.values()} <= set(lumina_dimoo_8b.SYSTEMS)


def test_the_size_buckets_at_the_targets() -> None:
    counts = {
        target: len(buckets(target)) for target in (lumina_dimoo_8b.INPUT_TARGET, lumina_dimoo_8b.GENERATION_TARGET)
    }
    assert counts == {512: 49, 1024: 97}
    assert lumina_dimoo_8b.SINGLE_INPUT_TARGET == 1024
    sizes = buckets(lumina_dimoo_8b.GENERATION_TARGET)
    assert bucket_for((1000, 1000), sizes) == lumina_dimoo_8b.IMAGE_SIZE == (1024, 1024)


def test_the_noise_dtype_changes_the_noise_and_what_was_retuned_for_it_alone() -> None:
    released, correct = (lumina_dimoo_8b.image_settings(dtype).model_dump() for dtype in ("bfloat16", "float32"))
    assert released["draw"] == {
        "kind": "categorical",
        "temperature": 1.0,
        "top_k": None,
        "top_p": None,
        "noise": "bfloat16",
    }
    assert released["confidence"] == {"kind": "gumbel", "temperature": 1.0, "noise": "bfloat16"}
    assert (released["steps"], released["guidance"]) == (64, 4.0)
    assert released["conditions"] == {"no_text": 2.5, "no_image": 4.0}
    assert differing(released, correct) == {"draw.noise", "draw.temperature", "draw.top_k", "confidence.noise"}


def differing(first: dict[str, Any], second: dict[str, Any]) -> set[str]:
    """The paths of the leaves in which two nested dicts differ."""
    assert first.keys() == second.keys()
    found: set[str] = set()
    for key, value in first.items():
        if isinstance(value, dict):
            found |= {f"{key}.{path}" for path in differing(value, second[key])}
        elif value != second[key]:
            found.add(key)
    return found


def test_correct_noise_of_either_precision_is_sampled_alike() -> None:
    single, double = (lumina_dimoo_8b.image_settings(dtype).model_dump() for dtype in ("float32", "float64"))
    assert differing(single, double) == {"draw.noise", "confidence.noise"}


def test_the_image_plan_is_the_released_sampler() -> None:
    plan = image_plan(lumina_dimoo_8b.image_settings("bfloat16"))
    assert plan.steps == 64
    assert plan.draw == Categorical(temperature=1.0, noise=torch.bfloat16)
    assert plan.order.schedule == Cosine()  # type: ignore[attr-defined]
    assert plan.guidance.scale == 4.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("preset", "tokens", "block", "steps"),
    [(lumina_dimoo_8b, 1024, 256, 128), (llada_8b, 128, 32, 128)],
    ids=["lumina", "llada"],
)
def test_the_text_plans_have_the_published_steps(preset: Any, tokens: int, block: int, steps: int) -> None:
    assert tokens == preset.ANSWER_TOKENS
    plan = text_plan(preset.text_settings(), tokens=tokens, stops=(7,))
    assert plan.steps == steps
    assert plan.order.block == block  # type: ignore[attr-defined]
    plan.order.validate(tokens, steps)
    # Probabilities that are 1 in float32 are told apart, as the released code tells them apart.
    logits = torch.tensor([[40.0, 0.0, 0.0], [30.0, 0.0, 0.0]])
    sure, less = plan.confidence(logits, torch.tensor([0, 0]), torch.Generator())
    assert sure > less


@pytest.mark.parametrize("noise", get_args(NoiseDtype))
def test_the_model_config_survives_json_and_carries_every_part(noise: NoiseDtype) -> None:
    config = lumina_dimoo_8b.lumina_dimoo_8b(noise)
    assert parse(ModelConfig, json.loads(config.model_dump_json())) == config
    assert config.image == lumina_dimoo_8b.image_settings(noise)
    assert config.text == lumina_dimoo_8b.text_settings()
    assert (config.backbone, config.vocabulary) == (lumina_dimoo_8b.BACKBONE, lumina_dimoo_8b.VOCABULARY)
    assert config.template == lumina_dimoo_8b.TEMPLATE
    assert (config.image_size, config.answer_tokens, config.caption_tokens) == ((1024, 1024), 1024, 1024)


def test_correct_noise_is_the_default() -> None:
    assert lumina_dimoo_8b.lumina_dimoo_8b() == lumina_dimoo_8b.lumina_dimoo_8b("float32")
