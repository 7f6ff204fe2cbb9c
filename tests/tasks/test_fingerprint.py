"""Fingerprints of models."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_checkpoint import save_tiny, tiny_model

import dimoo
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


def test_a_large_tensor_is_sampled_in_every_column() -> None:
    model = tiny_model()
    network = torch.nn.Linear(64, 4096, bias=False)
    seen = set()
    for column in range(64):
        with torch.no_grad():
            network.weight.zero_()
            network.weight[:, column] = 1
        seen.add(dimoo.tasks.fingerprint.fingerprint(model.config, network, ()))  # type: ignore[arg-type]
    assert len(seen) == 64
