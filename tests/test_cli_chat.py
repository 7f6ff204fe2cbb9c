"""`dimoo chat`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import failed, run
from llada_like import llada_like
from tiny_checkpoint import save_tiny

import dimoo
from dimoo.diffusion.config import CategoricalConfig
from dimoo.presets.config import TextSettings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chat") / "llada"
    llada_like(sampling=TextSettings(draw=CategoricalConfig(temperature=2.0))).save(path)
    return path


def test_the_answer_alone(folder: Path) -> None:
    result = run("chat", "what is your name", "--model", folder, "--tokens", 9)
    assert result.exit_code == 0, result.output
    answer = dimoo.load(folder).chat("what is your name", tokens=9)
    assert answer
    assert result.stdout == f"{answer}\n"


@pytest.mark.parametrize(("options", "tokens"), [((), 6), (("--tokens", 9), 9)])
def test_json(folder: Path, options: tuple[object, ...], tokens: int) -> None:
    result = run("chat", "hello", "--model", folder, "--seed", 4, "--json", *options)
    answer = dimoo.load(folder).chat("hello", tokens=tokens, seed=4)
    assert answer != dimoo.load(folder).chat("hello", tokens=tokens)
    assert json.loads(result.stdout) == {"answer": answer, "prompt": "hello", "seed": 4, "tokens": tokens}


def test_a_model_that_cannot_chat(tmp_path: Path) -> None:
    failed(run("chat", "hello", "--model", save_tiny(tmp_path / "tiny")), "this model has no chat template")


def test_a_model_that_knows_text_only(folder: Path, tmp_path: Path) -> None:
    failed(run("generate", "a cat", "--model", folder, "--out", tmp_path / "a.png"), "this model knows text only")
