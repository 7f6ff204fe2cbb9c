"""Write the pictures of the Noto Color Emoji font as a folder of captioned pictures, to train on.

    python scripts/emoji_folder.py emoji --size 32

Pictures are `0000_grinning_face.png` ..., on white, in Unicode's order; `0000_grinning_face.txt` has the caption, the
emoji's name. The font and the names are those of the Debian packages fonts-noto-color-emoji (SIL Open Font License) and
unicode-data (Unicode License); version 15.0 has 3,655 emoji.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, features

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
NAMES = Path("/usr/share/unicode/emoji/emoji-test.txt")
STRIKE = 109
"""The size, in points, of the bitmaps in the font; they are 136 pixels wide and 128 high."""
LINE = re.compile(r"([0-9A-F ]+?) *; fully-qualified +# \S+ E[\d.]+ (.+)")


def emoji_names(path: Path) -> dict[str, str]:
    """Each fully qualified emoji of Unicode's `emoji-test.txt`, with its name, in the order of the file."""
    found = filter(None, map(LINE.fullmatch, path.read_text(encoding="utf-8").splitlines()))
    return {"".join(chr(int(code, 16)) for code in match[1].split()): match[2] for match in found}


def drawn(emoji: str, font: ImageFont.FreeTypeFont, size: int) -> Image.Image:
    """The emoji in the middle of a white square of `size` pixels, as large as fits."""
    page = Image.new("RGBA", (STRIKE * 2, STRIKE * 2))
    ImageDraw.Draw(page).text((20, 20), emoji, font=font, embedded_color=True)
    box = page.getchannel("A").getbbox()
    if box is None:
        raise ValueError(f"the font draws nothing for {emoji!r}; take a font that has it")
    # A square around the middle, premultiplied so that the colour of what is transparent cannot bleed in.
    side = max(box[2] - box[0], box[3] - box[1])
    left, top = (box[0] + box[2] - side) // 2, (box[1] + box[3] - side) // 2
    square = page.crop((left, top, left + side, top + side)).convert("RGBa")
    small = square.resize((size, size), Image.Resampling.HAMMING).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", small.size, "white"), small).convert("RGB")


def write(folder: Path, names: dict[str, str], font: ImageFont.FreeTypeFont, size: int) -> None:
    """Write pictures and captions."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (emoji, name) in enumerate(names.items()):
        stem = f"{number:04}_{re.sub('[^a-z0-9]+', '_', name.lower()).strip('_')}"
        drawn(emoji, font, size).save(folder / f"{stem}.png")
        (folder / f"{stem}.txt").write_text(f"{name}\n", encoding="utf-8")


def main() -> None:
    """Read the arguments and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder; is made where it is absent")
    parser.add_argument("--size", type=int, default=32, help="sides of a picture, in pixels")
    parser.add_argument("--limit", type=int, help="write the first so many alone")
    parser.add_argument("--font", type=Path, default=FONT, help="NotoColorEmoji.ttf with 136x128 bitmaps")
    parser.add_argument("--names", type=Path, default=NAMES, help="Unicode's emoji-test.txt")
    options = parser.parse_args()
    for path, package in ((options.font, "fonts-noto-color-emoji"), (options.names, "unicode-data")):
        if not path.is_file():
            parser.error(f"there is no {path}; install {package}, or say where it is")
    if not features.check("raqm"):
        parser.error("this Pillow has no raqm, without which emoji of several characters fall apart")
    names = dict(list(emoji_names(options.names).items())[: options.limit])
    write(options.out, names, ImageFont.truetype(str(options.font), STRIKE), options.size)
    print(f"{len(names)} pictures in {options.out}")


if __name__ == "__main__":
    main()
