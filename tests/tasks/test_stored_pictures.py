"""Pictures in records."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from request_cases import same
from task_cases import picture

from dimoo.core.errors import DataError
from dimoo.core.pictures import as_rgb
from dimoo.tasks.records.stored import digest, plain, restore, store


@pytest.mark.parametrize("mode", ["CMYK", "HSV", "RGBa", "PA", "F"])
def test_other_modes_are_kept_as_they_look(mode: str) -> None:
    image = picture(3, 4).convert("RGBA")
    image.putalpha(100)
    if mode == "PA":
        image = image.convert("LA").convert("PA")
    else:
        image = image.convert(mode) if mode == "RGBa" else image.convert("RGB").convert("L" if mode == "F" else "RGB")
        image = image if mode == "RGBa" else image.convert(mode)
    assert image.mode == mode
    kept = restore(store(plain(image), embed=True))
    assert as_rgb(kept).tobytes() == as_rgb(image).tobytes()
    assert kept.has_transparency_data == image.has_transparency_data


def test_a_copy_is_the_picture_and_nothing_else() -> None:
    image = picture(3, 4)
    image.info |= {"dimoo": "an older record", "dpi": (72, 72), "path": "p.png"}
    copy = plain(image)
    assert copy.info == {"path": "p.png"}
    image.paste("red", (0, 0, 4, 3))
    assert copy.tobytes() == picture(3, 4).tobytes()


def test_the_digest_is_that_of_the_rgb_bytes() -> None:
    image = picture(3, 4)
    assert digest(image) == hashlib.sha256(np.asarray(image).tobytes()).hexdigest()
    clear = image.copy()
    clear.putalpha(Image.new("L", (4, 3), 255))
    half = image.copy()
    half.putalpha(Image.new("L", (4, 3), 200))
    assert len({digest(image), digest(clear), digest(half)}) == 3


def test_damaged_pictures() -> None:
    stored = store(picture(4, 4), embed=True)
    other = store(picture(4, 4, 1), embed=True)
    with pytest.raises(DataError, match="other pixels"):
        restore(stored.model_copy(update={"data": other.data}))
    for data in (None, "!", "aGVsbG8="):
        with pytest.raises(DataError, match="cannot be read"):
            restore(stored.model_copy(update={"data": data}))


def test_a_file_that_holds_another_picture_is_not_named(tmp_path: Path) -> None:
    picture(4, 4).save(tmp_path / "p.png")
    turned = picture(4, 4)
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=turned.getexif())
    named = picture(4, 4)
    named.info["path"] = str(tmp_path / "p.png")
    assert store(plain(named), embed=False).path == str(tmp_path / "p.png")
    for image in (picture(4, 4, 1), turned):
        image.info["path"] = str(tmp_path / "p.png")
        assert store(plain(image), embed=False).path is None
    with Image.open(tmp_path / "turned.png") as opened:  # read as it is stored: read again upright it is another one
        assert same(restore(store(plain(opened), embed=False)), turned)
