"""Fingerprints of models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_checkpoint import save_tiny, tiny_model

import dimoo
from dimoo.tasks.fingerprint import sums
from dimoo.tasks.model import Dimoo

TINY = tiny_model()


def test_the_same_checkpoint_has_the_same_fingerprint(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny")
    one = dimoo.load(folder).fingerprint
    assert dimoo.load(folder, attention="sdpa").fingerprint == one == TINY.fingerprint
    assert len(one) == 32
    assert dimoo.load(folder, dtype="bfloat16").fingerprint != one


def test_any_other_weight_setting_or_tokenizer_has_another() -> None:
    model = tiny_model()
    seen = {model.fingerprint}
    assert isinstance(model.backbone, torch.nn.Module)
    for parameter in model.backbone.parameters():
        with torch.no_grad():
            parameter += 1e-3 * torch.linspace(0.5, 1, parameter.numel()).view_as(parameter)
        seen.add(model.fingerprint)
    assert len(seen) == 1 + len(list(model.backbone.parameters()))
    parts = {"backbone": model.backbone, "text_tokenizer": model.prompts.text}
    image = tiny_model().kit.image_tokenizer
    assert isinstance(image, torch.nn.Module)
    with torch.no_grad():
        next(image.parameters()).add_(0.1)
    seen.add(Dimoo(model.config, **parts, image_tokenizer=image).fingerprint)  # type: ignore[arg-type]
    config = model.config.model_copy(update={"caption_tokens": 9})
    seen.add(Dimoo(config, **parts, image_tokenizer=model.kit.image_tokenizer).fingerprint)  # type: ignore[arg-type]
    assert len(seen) == 3 + len(list(model.backbone.parameters()))
    renamed = model.config.model_copy(update={"name": "other"})
    assert Dimoo(renamed, **parts, image_tokenizer=model.kit.image_tokenizer).fingerprint == model.fingerprint  # type: ignore[arg-type]


def test_one_changed_weight_and_two_exchanged_are_seen() -> None:
    model = tiny_model()
    assert isinstance(model.backbone, torch.nn.Module)
    weight = model.backbone.get_parameter("embedding.weight")
    seen = {model.fingerprint}
    with torch.no_grad():
        for place in (0, 77, weight.numel() - 1):
            weight.view(-1)[place] += 1e-6
            seen.add(model.fingerprint)
        weight[[3, 4]] = weight[[4, 3]]
        seen.add(model.fingerprint)
        weight[[3, 4]] = weight[[4, 3]]
    assert len(seen) == 5
    assert model.fingerprint in seen


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (5, 6)])
def test_sums_are_those_of_whole_numbers_bit_by_bit(
    dtype: torch.dtype, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    raw, size = tensor.view(-1).view(torch.uint8).numpy().tobytes(), tensor.element_size()
    values = [int.from_bytes(raw[at : at + size], "little", signed=True) for at in range(0, len(raw), size)]
    wanted = sum(values), sum((2 * index + 1) * value for index, value in enumerate(values))
    for piece in (4, 2**24):
        monkeypatch.setattr("dimoo.tasks.fingerprint.PIECE", piece)
        assert [(found - exact) % 2**64 for found, exact in zip(sums(tensor), wanted, strict=True)] == [0, 0]
    assert sums(tensor.t() if tensor.ndim == 2 else tensor)[0] == sums(tensor)[0]
