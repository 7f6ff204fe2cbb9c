"""info, convert and verify on the command line: models in both layouts, of text alone, and image tokenizers."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import failed, run
from llada_like import llada_like
from released import INDEX, write_released
from rich.filesize import decimal
from safetensors.torch import load_file, save_file
from tiny_checkpoint import save_tiny

import dimoo
from dimoo.cli.checkpoints import parse_bytes
from dimoo.tasks.memory import estimate
from dimoo.weights.hub import MINI

SHARD, NORM = "model-00002-of-00003.safetensors", "model.transformer.ln_f.weight"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders tiny (our layout), released, and text (of text alone)."""
    folder = tmp_path_factory.mktemp("models")
    save_tiny(folder / "tiny")
    write_released(folder / "released")
    llada_like().save(folder / "text")
    return folder


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Path:
    return shutil.copytree(models / "released", tmp_path / "released")


@cache
def info(folder: Path) -> dict[str, Any]:
    """What `info --json` prints about a folder that no test changes."""
    facts: dict[str, Any] = json.loads(run("info", folder, "--json").stdout)
    return facts


# info


def test_info_as_json(models: Path) -> None:
    tiny = models / "tiny"
    facts, model = info(tiny), dimoo.load(tiny)
    vocabulary = model.config.vocabulary
    assert (facts["name"], facts["layout"], facts["folder"]) == ("tiny", "dimoo", str(tiny))
    parameters = list(model.backbone.parameters())
    assert facts["backbone"]["parameters"] == sum(parameter.numel() for parameter in parameters)
    assert facts["backbone"]["bytes"] == sum(parameter.nbytes for parameter in parameters)
    assert (facts["backbone"]["layers"], facts["backbone"]["dtypes"]) == (1, ["float32"])
    assert facts["vocabulary"] == {
        "size": vocabulary.size,
        "rows": vocabulary.size,
        "unused_rows": 0,
        "ranges": {"text": [0, vocabulary.text_size], "image": [vocabulary.text_size, vocabulary.size]},
        "specials": vocabulary.specials,
    }
    text, image = model.prompts.text, model.kit.image_tokenizer
    assert facts["text_tokenizer"] == {"ids": text.size, "fingerprint": text.fingerprint}
    assert facts["image_tokenizer"] == {
        "parameters": sum(parameter.numel() for parameter in image.parameters()),
        "codebook_size": 16,
        "pixels_per_code": [8, 8],
        "fingerprint": image.fingerprint,
    }
    assert (facts["image_sampling"]["steps"], facts["image_sampling"]["size"]) == (4, [16, 16])
    assert facts["text_sampling"]["answer_tokens"] == 8
    assert facts["prompts"]["systems"] == {"text_to_image": "draw", "understanding": "answer"}
    assert facts["chat"] is None
    files = {
        path.relative_to(tiny).as_posix(): path.stat().st_size for path in sorted(tiny.rglob("*")) if path.is_file()
    }
    assert facts["files"] == {"count": len(files), "bytes": sum(files.values()), "sizes": files}
    assert "image_tokenizer/config.json" in files


@pytest.mark.parametrize(("name", "dtype"), [("tiny", torch.float32), ("released", torch.bfloat16)])
def test_info_tells_the_memory_in_the_stored_dtype(models: Path, name: str, dtype: torch.dtype) -> None:
    model = dimoo.load(models / name)
    needs = estimate(model.config, dtype=dtype, image=model.kit.image_tokenizer)
    rows = info(models / name)["memory"]
    assert len(rows) == len(needs) > 2
    for row, need in zip(rows, needs, strict=True):
        assert need.size is not None
        values = {key: value for key, value in asdict(need).items() if key != "size"}
        assert row == {**values, "height": need.size[0], "width": need.size[1], "total": need.total}


def test_info_for_people_says_the_same(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = run("info", models / "tiny").stdout
    facts = info(models / "tiny")
    assert f"parameters: {facts['backbone']['parameters']:,}" in shown
    assert f"fingerprint: {facts['text_tokenizer']['fingerprint']}" in shown
    ranges = facts["vocabulary"]["ranges"]
    assert f"text 0..{ranges['text'][1] - 1}, image {ranges['image'][0]}..{ranges['image'][1] - 1}" in shown
    assert all(section.replace("_", " ") in shown.lower() for section in facts)
    for need in facts["memory"]:
        row = [need["task"].replace("_", " "), f"{need['height']}x{need['width']}", f"{need['tokens']:,}"]
        row += [decimal(need[key]) for key in ("weights", "activations", "codec", "total")]
        assert any(line.split() == " ".join(row).split() for line in shown.splitlines()), row


def test_info_about_a_released_model(models: Path) -> None:
    facts, model = info(models / "released"), dimoo.load(models / "released")
    assert (facts["name"], facts["layout"]) == ("released", "lumina")
    assert facts["backbone"]["dtypes"] == ["bfloat16"]
    assert facts["vocabulary"]["ranges"] == {"text": [0, 320], "image": [320, 384]}
    assert facts["image_tokenizer"]["fingerprint"] == model.kit.image_tokenizer.fingerprint
    assert {SHARD, INDEX, "vqvae/config.json"} <= facts["files"]["sizes"].keys()


def test_info_about_a_text_model(models: Path) -> None:
    facts, model = info(models / "text"), dimoo.load(models / "text")
    assert (facts["image_tokenizer"], facts["image_sampling"]) == (None, None)
    assert list(facts["vocabulary"]["ranges"]) == ["text"]
    assert facts["chat"] == model.config.chat.model_dump(mode="json")
    (row,) = facts["memory"]
    assert (row["height"], row["width"], row["codec"]) == (None, None, 0)
    assert row["weights"] == facts["backbone"]["bytes"]
    assert row["total"] == row["weights"] + row["activations"]
    shown = run("info", models / "text").stdout
    assert "image tokenizer  none" in shown


@pytest.mark.parametrize(
    ("place", "layout"), [("released/vqvae", "vqvae"), ("tiny/image_tokenizer", "image_tokenizer")]
)
def test_info_about_an_image_tokenizer_alone(models: Path, place: str, layout: str) -> None:
    facts = info(models / place)
    assert list(facts) == ["name", "folder", "layout", "image_tokenizer", "files"]
    assert (facts["name"], facts["layout"]) == (layout, layout)
    assert facts["image_tokenizer"]["fingerprint"] == dimoo.load_image_tokenizer(models / place).fingerprint
    assert facts["image_tokenizer"]["fingerprint"] in run("info", models / place).stdout


def test_info_without_a_checkpoint(tmp_path: Path, folder: Path) -> None:
    failed(run("info", tmp_path / "nowhere"), "nowhere", '"mini"')
    failed(run("info", tmp_path), str(tmp_path), "config.json")
    (folder / SHARD).write_bytes(b"not safetensors")
    failed(run("info", folder), SHARD, "copy it again")


# verify


@pytest.mark.parametrize("place", ["tiny", "released", "text", "released/vqvae", "tiny/image_tokenizer"])
def test_verify_a_sound_checkpoint(models: Path, place: str) -> None:
    result = run("verify", models / place)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "ok"
    facts = json.loads(run("verify", models / place, "--json").stdout)
    assert list(facts) == ["ok", "folder", "layout", "tensors", "numbers", "bytes", "problems", "notes"]
    assert (facts["ok"], facts["problems"], facts["folder"]) == (True, [], str(models / place))
    tensors = [tensor for file in (models / place).rglob("*.safetensors") for tensor in load_file(file).values()]
    assert (facts["tensors"], facts["bytes"]) == (len(tensors), sum(tensor.nbytes for tensor in tensors))
    assert f"{len(tensors):,} tensors" in result.stdout


def test_verify_the_bundled_model() -> None:
    assert run("verify").exit_code == 2
    assert run("verify", "mini").exit_code == 0


def spoil_nan(folder: Path) -> str:
    tensors = load_file(folder / SHARD)
    tensors[NORM][3] = float("nan")
    save_file(tensors, folder / SHARD)
    return f"{SHARD}: {NORM} holds 1 NaN and 0 infinite of 32 numbers"


def spoil_shape(folder: Path) -> str:
    save_file({**load_file(folder / SHARD), NORM: torch.ones(31)}, folder / SHARD)
    return f"wrong shape: {NORM} is (31,), the model wants (32,)"


def spoil_shard(folder: Path) -> str:
    (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:-1])
    return f"{SHARD} is corrupt or cut off"


def spoil_index(folder: Path) -> str:
    (folder / SHARD).unlink()
    return f"no weights at {folder / SHARD}"


@pytest.mark.parametrize("spoil", [spoil_nan, spoil_shape, spoil_shard, spoil_index])
def test_verify_a_damaged_checkpoint(folder: Path, spoil: Any) -> None:
    wanted = spoil(folder)
    result = run("verify", folder)
    assert (result.exit_code, result.stderr) == (1, "")
    problems = [line for line in result.stdout.splitlines() if line.startswith("problem: ")]
    assert any(wanted in problem for problem in problems)
    assert result.stdout.splitlines()[-1] == f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    as_json = run("verify", folder, "--json")
    facts = json.loads(as_json.stdout)
    assert (as_json.exit_code, facts["ok"]) == (1, False)
    assert [f"problem: {problem}" for problem in facts["problems"]] == problems


def test_verify_what_is_no_checkpoint(tmp_path: Path) -> None:
    failed(run("verify", tmp_path / "nowhere"), "no checkpoint folder at")
    result = run("verify", tmp_path)
    assert result.exit_code == 1
    assert "problem: " in result.stdout
    assert "layout unknown" in result.stdout


# convert


def test_convert_there_and_back(models: Path, tmp_path: Path) -> None:
    source, there, back = models / "tiny", tmp_path / "deep" / "there", tmp_path / "back"
    first = run("convert", source, there, "--to", "lumina")
    assert (first.exit_code, first.stdout) == (0, f"{there}\n"), first.output
    assert run("convert", there, back, "--to", "dimoo").stdout == f"{back}\n"
    assert run("verify", there).exit_code == run("verify", back).exit_code == 0
    assert json.loads((there / "config.json").read_text(encoding="utf-8"))["model_type"] == "llada"
    ours, theirs = (load_file(place / "model.safetensors") for place in (back, source))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert dimoo.load(back).config == dimoo.load(source).config


def test_convert_takes_the_files_beside_the_checkpoint_along(tmp_path: Path, models: Path) -> None:
    target = tmp_path / "mini"
    assert run("convert", "mini", target, "--to", "lumina").exit_code == 0
    for name in ("world.json", "README.md"):
        assert (target / name).read_bytes() == (MINI / name).read_bytes()
    source = shutil.copytree(models / "tiny", tmp_path / "source")
    (source / "LICENSE").write_text("free", encoding="utf-8")
    (source / "optimizer.pt").write_text("large", encoding="utf-8")
    run("convert", source, tmp_path / "new", "--to", "lumina")
    assert (tmp_path / "new" / "LICENSE").read_text(encoding="utf-8") == "free"
    assert not (tmp_path / "new" / "optimizer.pt").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_convert_to_a_dtype(models: Path, tmp_path: Path, dtype: str) -> None:
    result = run("convert", models / "released", tmp_path / "new", "--to", "dimoo", "--dtype", dtype)
    assert result.exit_code == 0, result.output
    tensors = load_file(tmp_path / "new" / "model.safetensors")
    assert {str(tensor.dtype) for tensor in tensors.values()} == {f"torch.{dtype}"}


def test_convert_into_shards(models: Path, tmp_path: Path) -> None:
    options = ("--to", "lumina", "--shard-size", "30KB")
    result = run("convert", models / "released", tmp_path / "new", *options)
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "new").glob("model-*.safetensors"))) > 2
    assert run("verify", tmp_path / "new").exit_code == 0


@pytest.mark.parametrize(
    ("text", "size"),
    [("5GB", 5 * 10**9), ("1.5 mb", 1_500_000), ("200k", 200_000), ("1TB", 10**12), ("12", 12), ("7B", 7)],
)
def test_sizes_of_files(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["abc", "0", "0GB", "-5GB", "5XB", "GB", "5 GB GB", "1e9"])
def test_a_size_that_is_none_is_wrong_usage(models: Path, tmp_path: Path, text: str) -> None:
    result = run("convert", models / "tiny", tmp_path / "new", "--to", "dimoo", f"--shard-size={text}")
    assert result.exit_code == 2
    assert f"'{text}' is no size" in result.stderr


def test_convert_refuses(models: Path, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x", encoding="utf-8")
    new = tmp_path / "new"
    failed(run("convert", folder, folder, "--to", "dimoo"), "one lies in the other")
    failed(run("convert", folder, folder / "vqvae", "--to", "dimoo"), "one lies in the other")
    failed(run("convert", folder, tmp_path / "full", "--to", "dimoo"), "holds other files than a checkpoint")
    failed(run("convert", tmp_path / "nowhere", new, "--to", "dimoo"), "no checkpoint folder at")
    failed(run("convert", folder / "vqvae", new, "--to", "dimoo"), "image tokenizer alone")
    spoil_shard(folder)
    failed(run("convert", folder, new, "--to", "dimoo"), "corrupt or cut off")
    assert not new.exists()
    result = run("convert", models / "tiny", new, "--to", "gguf")
    assert result.exit_code == 2
    assert "'gguf'" in result.stderr
    assert run("convert", models / "tiny", new).exit_code == 2  # --to is required
