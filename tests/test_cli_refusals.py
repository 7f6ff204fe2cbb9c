"""Requests that no model could serve: refused with a clear message before one is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import failed, noisy_picture, pictures_in, run


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    return pictures_in(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("retouch", "one"), "--box, --polygon or --mask"),
        (("retouch", "one", "--box", "1,2,3"), "'1,2,3' is no box; write LEFT,TOP,RIGHT,BOTTOM"),
        (("retouch", "one", "--box", "1.5,2,3,4"), "'1.5,2,3,4' is no box"),
        (("retouch", "one", "--polygon", "0,0 8,0"), "'0,0 8,0' is no outline; write at least three points"),
        (("retouch", "one", "--polygon", "0,0 8,0 8"), "is no outline"),
        (("retouch", "one", "--polygon", "0,0 8,0 8,8 x,8"), "is no outline"),
        (("outpaint", "one", "--prompt", "p"), "--left, --right, --top or --bottom"),
        (("outpaint", "one", "--prompt", "p", "--left", "-8"), "--left"),
        (("outpaint", "one", "--left", "8"), "--prompt"),
        (("style", "one"), "--like PICTURE or --to TEXT"),
        (("style", "one", "--like", "two", "--to", "grey"), "--like PICTURE or --to TEXT"),
        (("control", "one", "--prompt", "p"), "--kind"),
        (("predict", "one"), "--kind"),
        (("view", "one"), "--view"),
        (("edit", "one"), "INSTRUCTION"),
        (("edit", "one", "add a cat", "--num-images", "0"), "--num-images"),
        (("edit", "one", "add a cat", "--guidance-text", "-1"), "--guidance-text"),
        (("edit", "one", "add a cat", "--preview-every", "0"), "--preview-every"),
    ],
)
def test_wrong_usage(inputs: dict[str, Path], tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    given = (inputs.get(argument, argument) for argument in arguments)
    result = run(*given, "--out", tmp_path / "out.png", "--model", "nowhere")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("retouch", "one", "--box", "0,0,25,4"), ("reaches out of the picture", "24 wide and 16 high")),
        (("retouch", "one", "--box", "4,0,4,4"), ("is empty",)),
        (("retouch", "one", "--mask", "odd"), ("8x8", "16x24")),
        (("inpaint", "one", "--mask", "odd", "--prompt", "p"), ("8x8", "16x24")),
        (("outpaint", "one", "--right", "8", "--prompt", "p", "--guidance-text", "2"), ("--guidance-text 2", "none")),
        (("generate", "a cat", "--guidance-image", "0.5"), ("--guidance-image 0.5", "give --guidance")),
        (("illustrate", "a cat", "--guidance-image", "0"), ("--guidance-image 0",)),
        (("edit", "one", "add a cat", "--preview", "mask"), ("cannot make the folder", "mask.png")),
        (("control", "one", "--kind", "depth", "--prompt", "p", "--from-picture"), ("a depth map needs a network",)),
    ],
)
def test_what_fails_without_asking_the_model(
    inputs: dict[str, Path], tmp_path: Path, arguments: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    inputs["odd"] = noisy_picture(tmp_path / "odd.png", 8, 8)
    given = (inputs.get(argument, argument) for argument in arguments)
    failed(run(*given, "--out", tmp_path / "out.png", "--model", "nowhere"), *parts)
