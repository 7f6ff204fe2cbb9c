from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_recipes import Beginnings, Tiny, cut

from dimoo.core.rng import generator
from dimoo.tokenizers.image.build import build_image_tokenizer
from dimoo.tokenizers.image.config import ImageTokenizerConfig, PatchNetworkConfig, VectorQuantizerConfig
from dimoo.tokenizers.image.extend import extended
from dimoo.tokenizers.image.files import load_image_tokenizer, save_image_tokenizer
from recipes import registry
from recipes.config import DiffusionRecipe
from recipes.learning import start
from recipes.learning.assemble import diffusion_module, model_of


@pytest.fixture(scope="session")
def image_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained image tokenizer of 32 codes."""
    folder = tmp_path_factory.mktemp("image_tokenizer")
    config = ImageTokenizerConfig(
        network=PatchNetworkConfig(patch=8, width=8, encoder_blocks=1, decoder_blocks=1),
        quantizer=VectorQuantizerConfig(size=32, dim=4),
    )
    save_image_tokenizer(build_image_tokenizer(config, torch.Generator().manual_seed(0)), folder)
    return folder


@pytest.fixture(scope="session")
def beginnings(tmp_path_factory: pytest.TempPathFactory, image_tokenizer: Path) -> Beginnings:
    """What recipes that go on from others start from: that tokenizer, one of 16 more codes, and an untrained model."""
    folder = tmp_path_factory.mktemp("beginnings")
    more = extended(load_image_tokenizer(image_tokenizer), 48)
    with torch.no_grad():
        more.quantizer.initialise(torch.randn(1, 4, 10, 10, generator=generator(0)), generator(1))
    save_image_tokenizer(more, folder / "more")
    module = diffusion_module(DiffusionRecipe.model_validate(cut("world_base", folder, image_tokenizer)))
    first = model_of(module).save(folder / "first")
    return {
        "world_all_tokenizer": (
            f"extends={image_tokenizer}",
            "tokenizer.network.decoder_blocks=1",
            'tokenizer.quantizer={"kind":"vq","size":48,"dim":4}',
        ),
        "tokenizer_fsq": ('tokenizer.quantizer={"kind":"fsq","levels":[4,4,2]}',),
        **{name: (f"warm_start={first}",) for name in ("midtrain", "sft", "sft_finish", "sft_questions", "lora")},
        **dict.fromkeys(
            ("pretrain_8b", "midtrain_8b", "sft_8b", "lora_8b"),
            (
                f"warm_start={first}",
                "backbone.rope_theta=10000",
                "source=" + registry.get("world_base").source.model_dump_json(),
                "recompute=all",
                "run.devices=1",
                "run.nodes=1",
                "run.checkpoints=whole",
            ),
        ),
        "world_all": (f"image_tokenizer={folder / 'more'}", f"warm_start={first}", "backbone.vocab_size=1072"),
    }


@pytest.fixture
def tiny(tmp_path: Path, image_tokenizer: Path, beginnings: Beginnings, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """tiny(name, *changes): a recipe at toy size that writes into the test's folder."""
    monkeypatch.setattr(start, "PAIRED", 24)  # thousands of examples are looked at for codes that are added
    return lambda name, *changes: cut(name, tmp_path / "runs", image_tokenizer, *beginnings.get(name, ()), *changes)


@pytest.fixture(autouse=True)
def listening() -> Iterator[None]:
    """Ctrl-C as on a terminal, also where the tests themselves were started with it ignored, as in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
