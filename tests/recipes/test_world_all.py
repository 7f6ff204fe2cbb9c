"""The recipes that go on from others: more codes for a tokenizer, and a model that learns what they mean."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tiny_recipes import Beginnings, Tiny

import dimoo
from dimoo.backbone.layout import PackedLayout
from dimoo.core.errors import CheckpointError, ConfigError, DataError
from dimoo.data.example import Example, TaskExample
from dimoo.presets.families import FAMILIES
from dimoo.tasks.assemble import load_backbone
from dimoo.tokenizers.image.files import load_image_tokenizer
from dimoo.tokenizers.image.tokenizer import ImageTokenizer
from recipes.config import DiffusionRecipe, Recipe, TokenizerRecipe
from recipes.learning.assemble import build_module, diffusion_module, model_of, tokenizer_module
from recipes.learning.diffusion import DiffusionModule
from recipes.learning.growth import StandIns, place_stand_ins, stand_ins
from recipes.learning.tokenizer import TokenizerModule
from recipes.named.world import TASKS
from recipes.run import run

OLD, ALL, TEXT = 32, 48, 1024
"""Codes before and after, and text ids, at toy size."""


def tokenizer_of(recipe: Recipe) -> TokenizerModule:
    assert isinstance(recipe, TokenizerRecipe)
    return tokenizer_module(recipe)


def diffusion_of(recipe: Recipe) -> DiffusionModule:
    assert isinstance(recipe, DiffusionRecipe)
    return diffusion_module(recipe)


def where(beginnings: Beginnings, name: str, key: str) -> Path:
    """The folder that a recipe goes on from."""
    (found,) = [change.partition("=")[2] for change in beginnings[name] if change.startswith(f"{key}=")]
    return Path(found)


# ---- the tokenizer


def test_a_tokenizer_run_adds_codes_and_leaves_what_there_is(tiny: Tiny, image_tokenizer: Path) -> None:
    folder = run(tiny("world_all_tokenizer"))
    old, new = load_image_tokenizer(image_tokenizer), load_image_tokenizer(folder / "export")
    assert (old.codebook_size, new.codebook_size) == (OLD, ALL)
    before, after = old.weights(), new.weights()
    assert torch.equal(after["quantizer.codebook"][:OLD], before["quantizer.codebook"])
    encoder = {name for name in before if name.startswith(("network.encoder", "network.analysis"))}
    decoder = {name for name in before if name.startswith(("network.decoder", "network.synthesis"))}
    assert len(encoder) > 3
    assert all(torch.equal(after[name], before[name]) for name in encoder)
    assert any(not torch.equal(after[name], before[name]) for name in decoder)
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    was, now = old.encode(pixels), new.encode(pixels)
    assert bool((now[now != was] >= OLD).all())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (("tokenizer.network.width=12",), ConfigError, "may differ in the number of codes only"),
        (('tokenizer.quantizer={"kind":"vq","size":48,"dim":5}',), ConfigError, "may differ in the number of codes"),
        (('tokenizer.quantizer={"kind":"vq","size":32,"dim":4}',), ConfigError, "32 codes are no more than the 32"),
        (('tokenizer.quantizer={"kind":"fsq","levels":[8,6]}',), ConfigError, "needs a learned codebook, not 'fsq'"),
        (("extends=nowhere",), CheckpointError, "nowhere"),
    ],
)
def test_what_a_tokenizer_cannot_extend(
    changes: tuple[str, ...], error: type[Exception], message: str, tiny: Tiny
) -> None:
    with pytest.raises(error, match=message):
        run(tiny("world_all_tokenizer", *changes), dry=True)


def noise(seed: int, *size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


class Few:
    """A source of the examples that it is given."""

    size = None

    def __init__(self, *examples: Example) -> None:
        self.examples = examples

    def example(self, index: int) -> Example:
        return self.examples[index % len(self.examples)]


def test_a_tokenizer_learns_from_every_picture_of_a_task(tiny: Tiny) -> None:
    task = TaskExample(task="style", images=(noise(0, 16, 16), noise(1, 8, 8)), image=noise(2, 16, 16))
    asked = TaskExample(task="ask", words="what", images=(noise(3, 8, 8),), text="a cat")
    module = tokenizer_of(tiny("world_all_tokenizer"))
    module.source = Few(Example(tasks=(task, asked)), Example(image=noise(4, 16, 16), caption="a cat"))
    seen = {tuple(one.shape[1:]): one for one in module.pictures(0, 2)}
    wanted = {(3, 16, 16): (0, 2, 4), (3, 8, 8): (1, 3)}
    assert seen.keys() == wanted.keys()
    for shape, numbers in wanted.items():
        for made, number in zip(seen[shape], numbers, strict=True):
            np.testing.assert_allclose(made.permute(1, 2, 0).numpy() * 255, noise(number, *shape[1:]), atol=1e-4)
    module.source = Few(Example(tasks=(TaskExample(task="chat", words="hello", text="hello"),)))
    with pytest.raises(DataError, match="example 5 has no picture"):
        module.pictures(5, 1)


# ---- the model


def test_old_ids_keep_their_logits_and_added_codes_begin_near_old_ones(tiny: Tiny, beginnings: Beginnings) -> None:
    module = diffusion_of(tiny("world_all"))
    before, after = load_backbone(where(beginnings, "world_all", "warm_start")), module.backbone
    assert (before.vocab_size, after.vocab_size) == (TEXT + OLD, TEXT + ALL)
    ids = torch.arange(3, TEXT + OLD, 37)
    layout = PackedLayout.of([10, len(ids) - 10])
    with torch.no_grad():
        old, new = (model.head(model(ids, layout)) for model in (before, after))
    torch.testing.assert_close(new[:, : TEXT + OLD], old, atol=1e-6, rtol=1e-6)
    assert float(old.std()) > 0

    image = module.builder.image_tokenizer
    assert isinstance(image, ImageTokenizer)
    vectors = image.weights()["quantizer.codebook"]
    for code in range(OLD, ALL):
        nearest = int((vectors[:OLD] - vectors[code]).square().sum(1).argmin())
        assert torch.equal(after.embedding.weight[TEXT + code], after.embedding.weight[TEXT + nearest])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (("backbone.vocab_size=1080",), ConfigError, r"has 1024 text ids, but .* 1080 leaves 1032 .* set it to 1072"),
        (("backbone.layers=2",), ConfigError, "backbone.layers 2 against its 1; take its: --set backbone.layers=1"),
        (("warm_start=./nowhere",), CheckpointError, "nowhere"),
        (("image_tokenizer=./nowhere",), CheckpointError, "nowhere"),
    ],
)
def test_what_does_not_fit_together(changes: tuple[str, ...], error: type[Exception], message: str, tiny: Tiny) -> None:
    with pytest.raises(error, match=message):
        run(tiny("world_all", *changes), dry=True)


def test_a_model_does_not_start_from_one_with_more_codes(tiny: Tiny, image_tokenizer: Path, tmp_path: Path) -> None:
    large = model_of(diffusion_of(tiny("world_all"))).save(tmp_path / "large")
    changes = (f"image_tokenizer={image_tokenizer}", "backbone.vocab_size=1056", f"warm_start={large}")
    with pytest.raises(ConfigError, match="another image tokenizer than"):
        build_module(tiny("world_all", *changes))


def test_a_run_on_every_task_leaves_a_model_that_takes_them(tiny: Tiny) -> None:
    folder = run(tiny("world_all", "run.steps=3", "run.batch_size=16", "mixture.caption_tokens=26"))
    model = dimoo.load(folder / "export")
    assert model.config.tasks == TASKS
    assert model.config.caption_tokens == 26
    assert set(model.config.template.systems) == set(FAMILIES)
    picture = Image.fromarray(noise(0, 16, 24))
    assert model.edit(picture, "make it grey").size == (24, 16)
    assert model.control(picture, "canny", "a cat").size == (24, 16)
    made, words = model.illustrate("a cat", size=(16, 16))
    assert made.size == (16, 16)
    assert isinstance(words, str)
    assert isinstance(model.chat("hello"), str)
    with pytest.raises(dimoo.RequestError, match="no option 'hed'"):
        model.predict(picture, "hed")
    stored = json.loads((folder / "export" / "config.json").read_text(encoding="utf-8"))
    assert stored["tasks"]["style"]["text"] == "as the second"


# ---- what added codes stand for


class Blocks:
    """A tokenizer whose code is the red of each 8 x 8 block: 4 old codes and 3 added ones."""

    codebook_size = 7

    def encode(self, media: torch.Tensor) -> torch.Tensor:
        return (media[:, 0, ::8, ::8] * 255).round().long()


def blocks(*rows: list[int]) -> NDArray[np.uint8]:
    """The picture of a grid of codes."""
    codes = np.array(rows, dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    return np.stack([codes] * 3, axis=-1)


def pair(before: NDArray[np.uint8], after: NDArray[np.uint8], **changes: Any) -> TaskExample:
    return replace(TaskExample(task="restyle", words="grey", images=(before,), image=after), **changes)


SOURCE = Few(
    Example(tasks=(pair(blocks([0, 1], [2, 3]), blocks([4, 1], [4, 5])),)),
    Example(tasks=(pair(blocks([0, 5]), blocks([4, 6]), words="outlined"),)),  # the second was no old code before
    Example(tasks=(pair(blocks([3]), blocks([4]), task="predict", words="", option="canny"),)),
    Example(tasks=(pair(blocks([3, 3]), blocks([6])),)),  # of another size
    Example(tasks=(TaskExample(task="generate", words="a", image=blocks([6])),)),  # no pair
    Example(image=blocks([0]), caption="a cat"),
)


def test_what_an_added_code_stands_for_is_counted_over_pairs_of_pictures() -> None:
    found = stand_ins(SOURCE, Blocks(), known=4, examples=6)  # type: ignore[arg-type]
    assert found.old.tolist() == [[2, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    # Code 4: twice for grey, once for the outline, once for the edges; code 5 for grey; code 6 for nothing.
    assert sorted(found.asked[0].tolist()) == [1, 1, 2]
    assert found.asked.sum(1).tolist() == [4, 1, 0]
    assert int(found.asked[1].argmax()) == int(found.asked[0].argmax())
    part = stand_ins(SOURCE, Blocks(), known=4, examples=1)  # type: ignore[arg-type]
    assert part.old.tolist() == [[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert stand_ins(SOURCE, Blocks(), known=4, examples=0).old.sum() == 0  # type: ignore[arg-type]


def test_a_row_is_what_it_stands_for_and_one_direction_for_what_is_asked(tiny: Tiny) -> None:
    model = diffusion_of(tiny("world_base")).backbone
    start = TEXT + OLD - 7
    before = model.unembedding.weight.detach().clone()
    found = StandIns(
        old=torch.tensor([[2.0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]),
        asked=torch.tensor([[2.0, 1, 1], [1, 0, 0], [0, 0, 0]]),
    )
    place_stand_ins(model.unembedding.weight, start, found, torch.Generator().manual_seed(3))
    rows, known = model.unembedding.weight.detach(), before[start : start + 4]
    directions = torch.randn(3, before.shape[1], generator=torch.Generator().manual_seed(3)) * 0.5 * known.std()
    first = (2 * known[0] + known[2] + known[3]) / 4 + (2 * directions[0] + directions[1] + directions[2]) / 4
    torch.testing.assert_close(rows[start + 4], first)
    torch.testing.assert_close(rows[start + 5], known[3] + directions[0])
    kept = [index for index in range(len(before)) if index not in (start + 4, start + 5)]
    assert torch.equal(rows[kept], before[kept])
