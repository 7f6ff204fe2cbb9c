"""Running `dimoo` commands inside a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

from dimoo.cli import app


def run(*arguments: object) -> Result:
    """Runs `dimoo ARGUMENTS...` in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def failed(result: Result, *parts: str) -> None:
    """The run ended with one error message that holds the parts: no traceback, nothing on stdout."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in result.stderr


def succeeded(result: Result) -> str:
    """The run ended well; returns what it printed."""
    assert result.exit_code == 0, result.output
    return result.stdout


def told(result: Result) -> dict[str, Any]:
    """The run ended well and printed one JSON object: that."""
    facts = json.loads(succeeded(result))
    assert isinstance(facts, dict)
    return facts


def noisy_picture(path: Path, height: int = 16, width: int = 24, seed: int = 0) -> Path:
    """Writes a picture of random colours; returns its path."""
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return path


def pixels(picture: Path | Image.Image) -> NDArray[np.uint8]:
    """[height, width, 3]."""
    if isinstance(picture, Image.Image):
        return np.asarray(picture)
    with Image.open(picture) as opened:
        return np.asarray(opened)


def pictures_in(folder: Path) -> dict[str, Path]:
    """Writes two pictures, and a mask of the left half of them, by name."""
    mask = np.zeros((16, 24), dtype=np.uint8)
    mask[:, :12] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return {
        "one": noisy_picture(folder / "one.png"),
        "two": noisy_picture(folder / "two.png", seed=1),
        "mask": folder / "mask.png",
    }
