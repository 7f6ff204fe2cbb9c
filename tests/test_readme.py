"""The code in README.md and docs/ runs as it stands there, with the bundled model.

What would take long is cut to a short form that still checks its arguments: `dimoo evaluate` judges a few pictures,
and `dimoo train` without --print or --dry-run prints its recipe. `pip ...` lines, with `dimoo demo`, are run by
`.ci/run`.

These fail as long as dimoo/assets/mini holds no model: test_examples_run[README.md] and [architecture.md].
"""

from __future__ import annotations

import json
import re
import runpy
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from dimoo.cli import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    language: str
    code: str


def blocks(document: Path) -> list[Block]:
    """The fenced blocks in order; a language may be empty."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [Block(language, code) for language, code in found]


def short(arguments: list[str]) -> list[str]:
    """The same command, cut to seconds."""
    if arguments[0] == "evaluate":
        arguments[arguments.index("--limit") + 1] = "2"
        arguments += ["--set", "image.steps=2"]
    if arguments[0] == "train" and not {"--print", "--dry-run"} & set(arguments):
        arguments = [*arguments, "--print"]
    return arguments


def test_the_two_commands_stand_there_word_for_word() -> None:
    lines = [line for block in blocks(ROOT / "README.md") for line in block.code.splitlines()]
    assert 'pip install -e ".[dev]" && dimoo demo' in lines
    assert 'pip install -e ".[dev]" && pytest' in lines


def test_every_block_says_what_it_is() -> None:
    """A block is run if it is marked python or bash; a typo in the mark must not exempt it."""
    assert {block.language for path in DOCUMENTS for block in blocks(path)} <= {"", "python", "bash"}
    assert [len([b for b in blocks(path) if b.language == "python"]) for path in DOCUMENTS] == [1, 2, 3, 1, 6, 0, 2]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_examples_run(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python blocks first, whose files the commands use; then every `dimoo` line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for block in blocks(document):
        if block.language == "python":
            (tmp_path / "example.py").write_text(block.code, encoding="utf-8")
            runpy.run_path("example.py", run_name="example")
    commands = [line for b in blocks(document) if b.language == "bash" for line in b.code.splitlines()]
    for command in commands:
        if not command.startswith("pip "):
            program, *arguments = shlex.split(command)
            assert program == "dimoo", command
            result = CliRunner().invoke(app, short(arguments))
            assert result.exit_code == 0, f"{command}\n{result.output}"
    if document.name == "README.md":
        check_what_the_readme_made(tmp_path)


def check_what_the_readme_made(folder: Path) -> None:
    sizes = {}
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            sizes[path.name] = picture.size[::-1]
    same = ["parrot", "mask", "edges", "blue", "pink", "green", "grey", "blue_grey", "mirrored", "cat", "retouched"]
    same += ["both", "again"]
    expected = dict.fromkeys((f"{name}.png" for name in same), (64, 64)) | {"wide.png": (64, 96)}
    assert sizes == expected | {"batch-0.png": (48, 64), "batch-1.png": (48, 64)}
    assert (folder / "scores" / "index.html").is_file()
    for score in json.loads((folder / "scores" / "scores.json").read_text(encoding="utf-8")).values():
        assert 0 <= score["low"] <= score["score"] <= score["high"] <= 1
