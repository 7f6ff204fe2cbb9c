"""`--adapter`: pictures of a model with adapters folded in, and made again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command_line import failed, pixels, run, succeeded, told
from tiny_checkpoint import save_tiny

import dimoo
from dimoo.backbone.config import LoRAConfig
from dimoo.backbone.lora import adapted
from dimoo.core.rng import generator
from dimoo.weights.adapters import write_adapter


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("adapter") / "tiny")


@pytest.fixture(scope="module")
def adapter(tiny: Path) -> Path:
    network = adapted(dimoo.load_backbone(tiny), LoRAConfig(rank=2, modules_to_save=("unembedding",)), generator(0))
    with torch.no_grad():
        for index, weight in enumerate(each for each in network.parameters() if each.requires_grad):
            weight.add_(torch.randn(weight.shape, generator=generator(1, index)))
    return write_adapter(tiny.parent / "adapter", network, base=str(tiny))


def test_the_picture_is_the_adapted_models_and_comes_out_again(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    how = ("a cat", "--model", tiny, "--seed", 2)
    succeeded(run("generate", *how, "--out", tmp_path / "plain.png"))
    succeeded(run("generate", *how, "--adapter", adapter, "--out", tmp_path / "g.png"))
    (wanted,) = dimoo.load(tiny, adapter=adapter).generate("a cat", seed=2)
    assert (pixels(tmp_path / "g.png") == wanted).all()
    assert (pixels(tmp_path / "g.png") != pixels(tmp_path / "plain.png")).any()
    facts = told(run("rerun", tmp_path / "g.png", "--adapter", adapter, "--out", tmp_path / "h.png", "--json"))
    assert facts["equal"] is True
    failed(run("rerun", tmp_path / "g.png", "--out", tmp_path / "h.png"), "another model", "--adapter")


def test_what_is_no_adapter_is_said_before_the_weights_are_read(tiny: Path, tmp_path: Path) -> None:
    broken = save_tiny(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"not safetensors")
    for command in (("generate", "a cat", "--model", broken), ("evaluate", broken)):
        out = ("--out", tmp_path / ("a.png" if command[0] == "generate" else "scores"))
        failed(run(*command, *out, "--adapter", tiny), "adapter_config.json")
