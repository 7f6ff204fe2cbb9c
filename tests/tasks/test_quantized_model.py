"""A quantised model is a model like any other: deterministic, batched, recorded, counted; it is not saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_checkpoint import save_tiny

import dimoo
from dimoo.backbone.config import QuantizeKind
from dimoo.backbone.model import Backbone
from dimoo.backbone.quantized import quantization
from dimoo.core.errors import BackendError, CheckpointError
from dimoo.core.peak import held
from dimoo.tasks.memory import estimate
from dimoo.tasks.model import Dimoo
from dimoo.tokenizers.image.tokenizer import ImageTokenizer

pytest.importorskip("torchao")
KINDS: tuple[QuantizeKind, ...] = ("int8", "fp8")
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
PROMPTS = ("a cat", "two dogs left of a tree", "")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("quantized") / "tiny")


def network(model: Dimoo) -> Backbone:
    assert isinstance(model.backbone, Backbone)
    return model.backbone


def drawn(model: Dimoo, *prompts: str) -> list[bytes]:
    requests = [dimoo.GenerateRequest(prompt=prompt, height=16, width=24, seed=3) for prompt in prompts]
    return [picture.tobytes() for picture in model.run(requests)]


def test_the_fingerprint_tells_how_and_is_that_of_every_load(tiny: Path) -> None:
    prints = [dimoo.load(tiny, quantize=kind).fingerprint for kind in (None, *KINDS)]
    assert len(set(prints)) == 3
    assert [dimoo.load(tiny, quantize=kind).fingerprint for kind in (None, *KINDS)] == prints


@EVERY_KIND
def test_each_quantised_weight_is_in_the_fingerprint(tiny: Path, kind: QuantizeKind) -> None:
    model = dimoo.load(tiny, quantize=kind)
    weight = network(model).get_parameter("blocks.0.mlp.up.weight")
    seen = {model.fingerprint}
    weight.qdata.view(torch.int8)[3, 2] += 1  # type: ignore[attr-defined]
    seen.add(model.fingerprint)
    weight.scale[5] *= 2  # type: ignore[attr-defined]
    seen.add(model.fingerprint)
    assert len(seen) == 3


@EVERY_KIND
def test_the_same_comes_out_alone_and_in_a_batch(kind: QuantizeKind) -> None:
    model = dimoo.load("mini", quantize=kind).with_settings(image=dimoo.ImageSettings(steps=4))
    together = drawn(model, *PROMPTS[:2])
    assert drawn(model, *PROMPTS[:2]) == together
    assert [drawn(model, prompt)[0] for prompt in PROMPTS[:2]] == together
    assert quantization(network(model)) == kind  # the settings changed, the weights did not


@EVERY_KIND
def test_a_picture_says_that_the_model_was_quantised(tiny: Path, kind: QuantizeKind) -> None:
    model = dimoo.load(tiny, quantize=kind)
    record = dimoo.record_of(model, dimoo.GenerateRequest(prompt="a cat"))
    assert record is not None
    assert (record.model.quantize, record.model.dtype) == (kind, "float32")
    assert record.model.fingerprint == model.fingerprint
    plain = dimoo.record_of(dimoo.load(tiny), dimoo.GenerateRequest(prompt="a cat"))
    assert plain is not None
    assert plain.model.quantize is None


@EVERY_KIND
def test_saving_is_refused(tiny: Path, tmp_path: Path, kind: QuantizeKind) -> None:
    model = dimoo.load(tiny, quantize=kind)
    for layout in ("dimoo", "lumina"):
        with pytest.raises(CheckpointError, match=f"quantised to {kind}.*save the model as loaded without quantize"):
            model.save(tmp_path / "out", layout=layout)
    with pytest.raises(CheckpointError, match=f"quantised to {kind}"):
        model.card("here")
    assert not (tmp_path / "out").exists()


@EVERY_KIND
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_estimate_is_what_the_weights_take(tiny: Path, kind: QuantizeKind, dtype: torch.dtype) -> None:
    model = dimoo.load(tiny, dtype=dtype, quantize=kind)
    image = model.kit.image_tokenizer
    assert isinstance(image, ImageTokenizer)
    plain = estimate(model.config, dtype=dtype, image=image)
    small = estimate(model.config, dtype=dtype, image=image, quantize=kind)
    assert {need.weights for need in small} == {held(network(model)) + held(image)}
    for before, after in zip(plain, small, strict=True):
        assert after.weights < before.weights
        assert after.activations >= before.activations  # a matrix is written out to multiply by it
        assert (after.task, after.size, after.tokens, after.codec) == (
            before.task,
            before.size,
            before.tokens,
            before.codec,
        )


def test_the_backbone_alone(tiny: Path) -> None:
    assert quantization(dimoo.load_backbone(tiny, quantize="fp8")) == "fp8"
    assert quantization(dimoo.load_backbone(tiny)) is None


def test_what_cannot_be_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    for change in ({"quantize": "int4"}, {"quantize": "int8", "dtype": "float16"}):
        with pytest.raises(BackendError, match="quantize"):
            dimoo.load(tmp_path / "no checkpoint is here", **change)  # type: ignore[arg-type]
