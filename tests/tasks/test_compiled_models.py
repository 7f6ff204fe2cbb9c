"""A model with compiled blocks says what the same model says without, whatever cache it samples with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_checkpoint import save_tiny
from typer.testing import CliRunner

import dimoo
from dimoo.backbone.block import Block, Eager
from dimoo.backbone.compiled import Halved, compiled
from dimoo.backbone.model import Backbone
from dimoo.cache.config import (
    BlockCacheConfig,
    CacheConfig,
    FrozenContextConfig,
    MaxLogitConfig,
    NoCacheConfig,
    SimilarityConfig,
)
from dimoo.cli import app
from dimoo.cli.options import Device, DType, open_model
from dimoo.core.errors import BackendError
from dimoo.tasks.model import Dimoo


def with_backbone(model: Dimoo, backbone: Backbone) -> Dimoo:
    return Dimoo(
        model.config, backbone=backbone, text_tokenizer=model.prompts.text, image_tokenizer=model.kit.image_tokenizer
    )


@pytest.fixture(scope="module")
def models() -> tuple[Dimoo, Dimoo]:
    """Plain and compiled; dynamo's part only, after which the arithmetic is the same to the bit."""
    plain = dimoo.load("mini")
    assert isinstance(plain.backbone, Backbone)
    return plain, with_backbone(plain, compiled(plain.backbone, backend="eager"))


def answers(model: Dimoo, cache: CacheConfig) -> list[Any]:
    image = model.config.image.model_copy(update={"cache": cache, "steps": 5})
    text = model.config.text.model_copy(update={"cache": cache})
    asked = model.with_settings(image=image, text=text)
    drawn = asked.run([dimoo.GenerateRequest(prompt="a cat", height=size, width=64, seed=1) for size in (64, 32)])
    return [
        *(picture.tobytes() for picture in drawn),
        asked.ask(Image.new("RGB", (64, 64), "red"), "what colour is it"),
    ]


@pytest.mark.parametrize(
    "cache",
    [
        NoCacheConfig(),
        MaxLogitConfig(refresh=2),
        BlockCacheConfig(scope="masked"),
        FrozenContextConfig(),
        SimilarityConfig(answer_refresh=3),
    ],
    ids=lambda cache: cache.kind,
)
def test_every_cache_gives_the_same_tokens(models: tuple[Dimoo, Dimoo], cache: CacheConfig) -> None:
    plain, fast = (answers(model, cache) for model in models)
    assert fast == plain


def test_it_is_the_same_model(models: tuple[Dimoo, Dimoo], tmp_path: Path) -> None:
    plain, fast = models
    assert fast.fingerprint == plain.fingerprint
    fast.save(tmp_path / "saved")
    assert dimoo.load(tmp_path / "saved").fingerprint == plain.fingerprint


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What is called of all that was compiled, which is left as it is."""
    called: set[str] = set()

    def compile(function: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
        def run(*inputs: Any) -> Any:
            called.add(function.__name__)
            return function(*inputs)

        return run

    monkeypatch.setattr(torch, "compile", compile)
    return called


def test_load_compiles_when_told_to(tmp_path: Path, halves: set[str]) -> None:
    folder = save_tiny(tmp_path / "tiny")
    plain = dimoo.load(folder)
    assert halves == set()
    fast = dimoo.load(folder, compile=True)
    assert halves == {"neg"}, "whether it works is tried out"
    assert fast.generate("draw", seed=3)[0].tobytes() == plain.generate("draw", seed=3)[0].tobytes()
    assert halves == {"neg", "before", "after"}


def test_records_tell_of_it_and_a_rerun_compiles_again(tmp_path: Path, halves: set[str]) -> None:
    folder = save_tiny(tmp_path / "tiny")
    for asked in (False, True):
        path = tmp_path / f"{asked}.png"
        dimoo.save_picture(dimoo.load(folder, compile=asked).generate("draw", seed=3)[0], path)
        record = dimoo.read_record(path)
        assert record.model.compile is asked
        halves.clear()
        result = CliRunner().invoke(app, ["rerun", str(path), "--out", str(tmp_path / "again.png")])
        assert result.exit_code == 0, result.output
        assert halves == ({"neg", "before", "after"} if asked else set())


def executions(model: Dimoo | Backbone) -> set[type]:
    backbone = model if isinstance(model, Backbone) else model.backbone
    assert isinstance(backbone, Backbone)
    return {type(block.execution) for block in backbone.blocks if isinstance(block, Block)}


@pytest.mark.usefixtures("halves")
def test_the_backbone_alone_and_the_command_line_take_it_too(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny")
    assert executions(dimoo.load_backbone(folder)) == {Eager}
    assert executions(dimoo.load_backbone(folder, compile=True)) == {Halved}
    for asked, wanted in ((False, Eager), (True, Halved)):
        model = open_model(str(folder), Device.CPU, DType.FLOAT32, compile=asked)
        assert executions(model) == {wanted}


@pytest.mark.parametrize(
    ("wish", "said"),
    [("graphs", "CUDA graphs, and the device is 'cpu'"), ("fast", "unknown compile 'fast'; choose from True, False")],
)
def test_what_cannot_be_is_refused_before_weights_are_read(tmp_path: Path, wish: Any, said: str) -> None:
    folder = save_tiny(tmp_path / "tiny")
    (folder / "model.safetensors").write_bytes(b"never read")
    with pytest.raises(BackendError, match=said):
        dimoo.load(folder, compile=wish)
