"""A bar while rows are looked over, where that takes more than a moment."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from tiny_recipes import MODULES, Tiny

from dimoo.data import checking
from recipes.run import run
from recipes.watching.looking import looking


def screen(*, terminal: bool = True) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=80)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_bar_is_shown_until_all_are_looked_at() -> None:
    console = screen()
    with looking(console) as told:
        told(256, 700)
        assert "looking at the rows" in shown(console)
        assert "256/700" in shown(console)
        told(512, 700)
        told(700, 700)
        before = shown(console)
        assert before.endswith("\x1b[1A\x1b[2K")  # wiped away
    assert shown(console) == before


def test_few_rows_and_files_that_are_no_terminals_get_none() -> None:
    for console, first in ((screen(), 200), (screen(terminal=False), 50)):
        with looking(console) as told:
            told(first, 200)
            told(200, 200)
        assert shown(console).strip() == ""


def test_an_error_gives_the_screen_back() -> None:
    console = screen()

    def interrupted() -> None:
        with looking(console) as told:
            told(256, 700)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert shown(console).count("\x1b[?25l") == shown(console).count("\x1b[?25h") == 1  # the cursor


@pytest.mark.parametrize("name", MODULES)
def test_a_run_tells_how_far_it_is(name: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(5):
        Image.new("RGB", (32, 32), (index, 0, 0)).save(folder / f"{index}.png")
    monkeypatch.setattr(checking, "TOGETHER", 2)
    console = screen()
    monkeypatch.setattr("recipes.watching.looking.Console", lambda **_: console)
    source = "source=" + json.dumps({"kind": "folder", "path": str(folder), "size": [32, 32]})
    run(tiny(name, source, "fit_pictures=4") if name == "world_tokenizer" else tiny(name, source), dry=True)
    assert "2/5" in shown(console)
