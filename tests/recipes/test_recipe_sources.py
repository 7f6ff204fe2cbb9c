"""Recipes on users' data: folders, shards of them, packs of so many tokens, pictures that are held out."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, features
from safetensors.torch import load_file
from tiny_recipes import Tiny, differences

from dimoo.core.config import override
from dimoo.core.errors import ConfigError, DataError
from dimoo.data.build import open_files
from dimoo.data.config import FolderSourceConfig
from dimoo.data.encode import write_shards
from dimoo.data.example import Codes
from dimoo.data.folder import FolderSource
from dimoo.data.shards import Manifest
from dimoo.data.world.atlas import names, sprite
from dimoo.tokenizers.image.files import load_image_tokenizer
from recipes.config import DiffusionRecipe
from recipes.learning.assemble import build_module, diffusion_module
from recipes.learning.diffusion import DiffusionModule
from recipes.learning.packing import divided
from recipes.run import export_run, run
from recipes.watching import pictures

SCRIPT = Path(__file__).parents[2] / "scripts" / "emoji_folder.py"
EMOJI = 3655


def encoded(folder: Path, out: Path, image_tokenizer: Path) -> Path:
    tokenizer = load_image_tokenizer(image_tokenizer)
    source, digest = open_files(FolderSourceConfig(path=str(folder), size=(32, 32)))
    manifest = Manifest(
        fingerprint=tokenizer.fingerprint, source=digest, size=(32, 32), examples=source.size or 0, shard_examples=500
    )
    write_shards(source, tokenizer, out, manifest=manifest)
    return out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The world's first 24 nouns, with their names."""
    folder = tmp_path / "nouns"
    folder.mkdir()
    for noun in names(24):
        pixels = (sprite(noun, 32)[..., :3] * 255).astype("uint8")
        Image.fromarray(pixels).save(folder / f"{noun.replace(' ', '_')}.png")
    return folder


def of_folder(path: Path, **settings: Any) -> str:
    return "source=" + json.dumps({"kind": "folder", "path": str(path), "size": [32, 32], **settings})


def of_shards(path: Path, **settings: Any) -> str:
    return "source=" + json.dumps({"kind": "shards", "path": str(path), **settings})


def diffusion(recipe: Any) -> DiffusionModule:
    assert isinstance(recipe, DiffusionRecipe)
    return diffusion_module(recipe)


def test_shards_train_as_their_folder_does(tiny: Tiny, folder: Path, tmp_path: Path, image_tokenizer: Path) -> None:
    shards = encoded(folder, tmp_path / "shards", image_tokenizer)
    trained = [
        run(tiny("world_base", source, f"run.name={name}", "run.steps=3", "run.sample_every=3"))
        for name, source in (("folder", of_folder(folder, held_out=4)), ("shards", of_shards(shards, held_out=4)))
    ]
    weights = [torch.load(path / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for path in trained]
    assert list(differences(*weights)) == []
    with Image.open(trained[1] / "pictures/step0000003.png") as shown:
        assert shown.width > 32  # the codes are decoded


@pytest.mark.parametrize("name", ["world_base", "world_tokenizer"])
def test_an_export_needs_no_data(name: str, tiny: Tiny, folder: Path) -> None:
    recipe = tiny(name, of_folder(folder), "run.steps=2")
    made = run(recipe) / "export/model.safetensors"
    before = load_file(made)
    made.unlink()
    shutil.rmtree(folder)
    export_run(recipe)
    assert list(differences(load_file(made), before)) == []


def test_sample_pictures_are_held_out(tiny: Tiny, folder: Path) -> None:
    captions = {path.stem.replace("_", " ") for path in folder.glob("*.png")}
    for held in (0, 5):
        recipe = tiny("world_base", of_folder(folder, held_out=held))
        module = diffusion(recipe)
        learnt = {module.source.example(index).caption for index in range(24 * 3)}
        (shown,) = [
            part
            for part in pictures.callbacks(recipe, module.source, folder, dry=False)
            if isinstance(part, pictures.Pictures)
        ]
        seen = [shown._source.example(index).caption for index in shown._numbers]
        assert len(seen) == (5 if held else pictures.SHOWN)
        assert set(seen).isdisjoint(learnt) == (held > 0)
        assert learnt | set(seen) == captions


def test_shards_of_another_tokenizer_stop_before_the_first_step(
    tiny: Tiny, folder: Path, tmp_path: Path, image_tokenizer: Path
) -> None:
    shards = encoded(folder, tmp_path / "shards", image_tokenizer)
    with pytest.raises(DataError, match=r"the codes are those of image tokenizer \w+, but this model's is"):
        run(tiny("world_base", of_shards(shards), "image_tokenizer=mini", "backbone.vocab_size=9300"), dry=True)


def test_a_tokenizer_needs_pixels(tiny: Tiny, folder: Path, tmp_path: Path, image_tokenizer: Path) -> None:
    shards = encoded(folder, tmp_path / "shards", image_tokenizer)
    with pytest.raises(DataError, match="needs the pixels of pictures, but shards hold codes alone"):
        run(tiny("world_tokenizer", of_shards(shards)), dry=True)
    run(tiny("world_tokenizer", of_folder(folder)), dry=True)


def test_rows_that_the_recipe_has_no_task_for_are_bad(tiny: Tiny, folder: Path) -> None:
    path = folder / "rows.jsonl"
    path.write_text(json.dumps({"task": "sing", "words": "a", "text": "b"}) + "\n")
    source = json.dumps({"kind": "jsonl", "path": str(path), "size": [32, 32]})
    with pytest.raises(DataError, match=r"rows\.jsonl:1: this model has no task 'sing'"):
        build_module(tiny("world_base", f"source={source}"))


# packs of so many tokens

CHOICES = (
    (),
    ("complementary=true",),
    ('loss_weight={"kind":"schedule_weight"}', 'corruption={"kind":"bernoulli"}'),
    ('loss_weight={"kind":"answer_mean","weight":{"kind":"schedule_weight"}}', 'kind_weights={"padding":0.3}'),
)


@pytest.mark.parametrize("choice", CHOICES)
def test_divided_packs_learn_what_one_does(tiny: Tiny, choice: tuple[str, ...]) -> None:
    """Loss and gradients to 1e-6 of their size; no pack is too long, and no example is lost."""
    recipe = tiny("world_base", "run.batch_size=12", "accumulate=1", *choice)
    longest = max(diffusion(recipe).packs(0)[0].lengths)
    outcomes, packs = [], list[int]()
    for tokens in (None, longest, 3 * longest):
        module = diffusion(override(recipe, [f"pack_tokens={json.dumps(tokens)}"]))
        parts = module.corrupted(0)
        count = sum(module.objective.count(part) for part in parts)
        total = sum(module.objective.loss(module.backbone, part).terms.total for part in parts) / count
        assert isinstance(total, torch.Tensor)
        total.backward()  # type: ignore[no-untyped-call]
        gradients = torch.cat(
            [weight.grad.flatten() for weight in module.backbone.parameters() if weight.grad is not None]
        )
        lengths = sorted(length for part in parts for length in part.batch.lengths)
        tokens_seen = sorted(token for part in parts for token in part.ids.tolist())
        outcomes.append((float(total.detach()), gradients, count, lengths, tokens_seen))
        assert tokens is None or all(len(part.ids) <= tokens for part in parts)
        packs.append(len(parts))
        assert all(sum(part.batch.lengths) == len(part.ids) == len(part.batch.group) for part in parts)
    assert packs[0] < packs[2] < packs[1]
    (loss, gradients, count, *others), *divisions = outcomes
    for other_loss, other_gradients, other_count, *more in divisions:
        assert other_loss == pytest.approx(loss, rel=1e-6)
        assert other_count == pytest.approx(count, rel=1e-6)
        assert float((other_gradients - gradients).norm() / gradients.norm()) < 1e-6
        assert more == others


def test_a_part_is_what_its_documents_are_in_the_whole(tiny: Tiny) -> None:
    module = diffusion(tiny("world_base", "run.batch_size=6", "accumulate=1"))
    (whole,) = module.corrupted(0)

    def documents(noisy: Any) -> list[tuple[Any, ...]]:
        """Of each document: clean and masked ids, and of each token the kind, size, share and time of its group."""
        group, found = noisy.batch.group, []
        facts = [
            (target.kind, int(size), float(share), float(time))
            for target, size, share, time in zip(
                noisy.batch.targets, noisy.groups.sizes, noisy.groups.share, noisy.groups.progress, strict=True
            )
        ]
        masked = dict(zip(noisy.rows.tolist(), noisy.groups.group.tolist(), strict=True))
        start = 0
        for length in noisy.batch.lengths:
            places = range(start, start + length)
            of_token = [None if group[place] < 0 else facts[int(group[place])] for place in places]
            hidden = [None if place not in masked else facts[masked[place]] for place in places]
            found.append((*map(tuple, (noisy.batch.ids[start : start + length].tolist(),
                                       noisy.ids[start : start + length].tolist(), of_token, hidden)),))  # fmt: skip
            start += length
        return found

    parts = divided(whole, max(whole.batch.lengths) + 1)
    assert len(parts) > 2
    key = str
    assert sorted((one for part in parts for one in documents(part)), key=key) == sorted(documents(whole), key=key)
    assert divided(whole, None) == [whole]
    assert divided(whole, len(whole.ids)) == [whole]


def test_an_example_that_no_pack_takes_is_named(tiny: Tiny) -> None:
    recipe = tiny("world_base", "pack_tokens=20")
    with pytest.raises(DataError, match=r"example \d+ makes a document of \d+ tokens, but a pack takes pack_tokens=20"):
        diffusion(recipe).packs(0)


def test_processes_that_share_the_model_compute_equal_numbers_of_packs(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="pack_tokens does not give"):
        tiny("world_base", "pack_tokens=500", "run.devices=2", "run.parallel=fsdp", "ema=0")


# the emoji of a font


def script(*arguments: str) -> dict[str, Any]:
    """Runs the script in this process; returns what it defines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        return runpy.run_path(str(SCRIPT), run_name="__main__" if arguments else "script")


def test_emoji_names_are_read_from_unicodes_list(tmp_path: Path) -> None:
    path = tmp_path / "emoji-test.txt"
    lines = (
        "# group: Smileys & Emotion",
        "1F600                                                  ; fully-qualified     # 😀 E1.0 grinning face",
        "263A                                                   ; unqualified         # ☺ E0.6 smiling face",
        "1F44B 1F3FF                ; fully-qualified     # 👋🏿 E1.0 waving hand: dark skin tone",
        "0023 FE0F 20E3                                         ; fully-qualified     # #️⃣ E0.6 keycap: #",
    )
    path.write_text("\n".join(lines), encoding="utf-8")
    assert script()["emoji_names"](path) == {
        "\U0001f600": "grinning face",
        "\U0001f44b\U0001f3ff": "waving hand: dark skin tone",
        "#\ufe0f\u20e3": "keycap: #",
    }


with_font = pytest.mark.skipif(
    not (script()["FONT"].is_file() and script()["NAMES"].is_file() and features.check("raqm")),
    reason="needs the font and the names: apt-get install fonts-noto-color-emoji unicode-data",
)


@with_font
def test_emoji_of_noto_are_a_folder_to_train_on(
    tiny: Tiny, tmp_path: Path, image_tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "emoji"
    script(str(folder), "--size", "32", "--limit", "80")
    assert capsys.readouterr().out == f"80 pictures in {folder}\n"
    first = FolderSource(folder).example(0).image
    assert first is not None
    assert first.shape == (32, 32, 3)
    assert (first[0, 0] == 255).all()  # on white
    assert first[16, 16, 0] > first[16, 16, 2] + 100  # a yellow face
    shards = encoded(folder, tmp_path / "shards", image_tokenizer)
    for data in (of_folder(folder, held_out=8), of_shards(shards, held_out=8)):
        recipe = tiny("world_base", data, "mixture.caption_tokens=48", "run.steps=2")
        module = diffusion(recipe)
        kinds = {type(module.source.example(index).image) for index in range(20)}
        assert kinds == ({Codes} if "shards" in data else {type(first)})
        capsys.readouterr()
        run(recipe, dry=True)
        assert re.findall(r"^step (\d/\d)", capsys.readouterr().err, re.MULTILINE) == ["1/2", "2/2"]


@pytest.mark.slow
@with_font
def test_all_named_emoji_of_noto_train_from_folder_and_shards(
    tiny: Tiny, tmp_path: Path, image_tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "emoji"
    script(str(folder))
    assert capsys.readouterr().out == f"{EMOJI} pictures in {folder}\n"
    source = FolderSource(folder)
    assert (source.size, source.bad) == (EMOJI, ())
    captions = [source.example(index).caption for index in range(EMOJI)]
    assert len(set(captions)) == EMOJI
    assert (captions[0], captions[-1]) == ("grinning face", "flag: Wales")
    shards = encoded(folder, tmp_path / "shards", image_tokenizer)
    settings = ("mixture.caption_tokens=48", "run.steps=2", "run.save_every=2")
    trained = [
        run(tiny("world_base", data, f"run.name={name}", *settings))
        for name, data in (("folder", of_folder(folder, held_out=55)), ("shards", of_shards(shards, held_out=55)))
    ]
    weights = [torch.load(path / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for path in trained]
    assert list(differences(*weights)) == []
