"""`dimoo inpaint`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import failed, noisy_picture, run
from PIL import Image
from tiny_checkpoint import save_tiny

import dimoo


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return noisy_picture(tmp_path / "picture.png")


def test_inpaint_leaves_the_rest_alone(tiny: Path, picture: Path, tmp_path: Path) -> None:
    region = np.zeros((16, 24), dtype=np.uint8)
    region[3:7, 10:20] = 255
    Image.fromarray(region).save(tmp_path / "mask.png")
    out = tmp_path / "out.png"
    options = ("--mask", tmp_path / "mask.png", "--prompt", "a cat", "--out", out, "--model", tiny, "--seed", 2)
    result = run("inpaint", picture, *options)
    assert (result.exit_code, result.stdout) == (0, f"{out}\n"), result.output
    with Image.open(picture) as before, Image.open(out) as after, Image.open(tmp_path / "mask.png") as mask:
        expected = dimoo.load(tiny).inpaint(before, mask, "a cat", seed=2)
        assert np.array_equal(np.asarray(after), np.asarray(expected))
        same = (np.asarray(before) == np.asarray(after)).all(axis=2)
    assert same[region == 0].all()
    assert not same[region > 0].all()


def test_inpaint_needs_a_mask(picture: Path, tmp_path: Path) -> None:
    result = run("inpaint", picture, "--prompt", "a cat", "--out", tmp_path / "out.png")
    assert result.exit_code == 2
    assert "--mask" in result.stderr


def test_inpaint_refuses_a_mask_of_another_size(tiny: Path, picture: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 8), 255).save(tmp_path / "mask.png")
    options = ("--mask", tmp_path / "mask.png", "--prompt", "a cat", "--out", tmp_path / "o.png", "--model", tiny)
    failed(run("inpaint", picture, *options), "8x8", "16x24")


def test_inpaint_refuses_an_empty_mask(tiny: Path, picture: Path, tmp_path: Path) -> None:
    Image.new("L", (24, 16), 0).save(tmp_path / "mask.png")
    options = ("--mask", tmp_path / "mask.png", "--prompt", "a cat", "--out", tmp_path / "o.png", "--model", tiny)
    failed(run("inpaint", picture, *options), "selects no pixel")


def test_inpaint_says_which_file_is_missing(picture: Path, tmp_path: Path) -> None:
    options = ("--mask", tmp_path / "none.png", "--prompt", "a cat", "--out", tmp_path / "o.png")
    failed(run("inpaint", picture, *options), "none.png", "does not exist")


def test_a_transparent_mask_pixel_is_not_masked(tiny: Path, tmp_path: Path) -> None:
    picture, mask, out = tmp_path / "f.png", tmp_path / "m.png", tmp_path / "g.png"
    Image.new("RGB", (16, 16), (200, 30, 30)).save(picture)
    layer = Image.new("RGBA", (16, 16), (255, 255, 255, 0))
    layer.paste((255, 255, 255, 255), (0, 8, 16, 16))
    layer.save(mask)
    result = run("inpaint", picture, "--mask", mask, "--prompt", "a cat", "--out", out, "--model", tiny)
    assert result.exit_code == 0, result.output
    assert Image.open(out).crop((0, 0, 16, 8)).tobytes() == Image.open(picture).crop((0, 0, 16, 8)).tobytes()
    assert Image.open(out).tobytes() != Image.open(picture).tobytes()


def test_a_mask_is_turned_as_its_picture_is(tiny: Path, tmp_path: Path) -> None:
    """A photo whose tag says to turn it by 90 degrees, and a mask painted on it as it is stored."""
    stored = np.asarray(Image.open(noisy_picture(tmp_path / "plain.png")))
    turn = Image.Exif()
    turn[0x0112] = 6  # a quarter clockwise
    Image.fromarray(stored).save(tmp_path / "photo.png", exif=turn)
    region = np.zeros(stored.shape[:2], dtype=np.uint8)
    region[:8] = 255
    Image.fromarray(region).save(tmp_path / "mask.png")
    options = ("--mask", tmp_path / "mask.png", "--out", tmp_path / "out.png", "--model", tiny)
    for command in ("inpaint", "retouch"):
        assert run(command, tmp_path / "photo.png", "--prompt", "a cat", *options).exit_code == 0
        with Image.open(tmp_path / "out.png") as made:
            same = (np.rot90(stored, -1) == np.asarray(made)).all(axis=2)
        kept = np.rot90(region == 0, -1)
        assert same[kept].all()
        assert not same[~kept].all()
