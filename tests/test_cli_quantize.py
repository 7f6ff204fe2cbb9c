"""`--quantize`: pictures of a quantised model, made again, and the memory that it takes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from command_line import failed, pixels, run, succeeded, told
from tiny_checkpoint import save_tiny

import dimoo

pytest.importorskip("torchao")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("quantize") / "tiny")


@pytest.fixture(scope="module", params=["int8", "fp8"])
def made(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / f"{request.param}.png"
    succeeded(run("generate", "a cat", "--model", tiny, "--quantize", request.param, "--seed", 2, "--out", out))
    return out


def test_the_picture_comes_out_again(made: Path, tiny: Path, tmp_path: Path) -> None:
    record = dimoo.read_record(made)
    assert record.model.quantize == made.stem
    facts = told(run("rerun", made, "--out", tmp_path / "h.png", "--json"))
    assert facts["equal"] is True
    assert facts["fingerprint"] == record.model.fingerprint != dimoo.load(tiny).fingerprint
    assert (pixels(made) == pixels(tmp_path / "h.png")).all()
    assert dimoo.read_record(tmp_path / "h.png") == record


def test_a_record_that_does_not_say_so_is_of_another_model(made: Path, tmp_path: Path) -> None:
    record = dimoo.read_record(made)
    record.model_copy(update={"model": record.model.model_copy(update={"quantize": None})}).save(tmp_path / "g.json")
    failed(run("rerun", tmp_path / "g.json", "--out", tmp_path / "h.png"), "another model", "--force")


def test_without_torchao_it_says_what_is_missing(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchao"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchao", None)  # type: ignore[arg-type]
    failed(run("rerun", made, "--out", tmp_path / "h.png"), "needs torchao", "pip install 'dimoo[quantize]'")
    failed(run("ask", made, "what is it", "--quantize", "fp8"), "needs torchao")


def test_info_tells_the_memory(tiny: Path) -> None:
    plain, small = (told(run("info", tiny, "--json", *how)) for how in ((), ("--quantize", "int8")))
    assert {name: part for name, part in plain.items() if name != "memory"} == {
        name: part for name, part in small.items() if name != "memory"
    }
    for before, after in zip(plain["memory"], small["memory"], strict=True):
        assert after["weights"] < before["weights"]


def test_a_kind_that_is_not_there_is_wrong_use(tiny: Path, tmp_path: Path) -> None:
    result = run("generate", "a cat", "--model", tiny, "--quantize", "int3", "--out", tmp_path / "g.png")
    assert (result.exit_code, "int3" in result.stderr) == (2, True)
