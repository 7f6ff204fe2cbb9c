"""Render the sprites of the built-in world from the Noto Color Emoji font.

    python scripts/render_atlas.py --font NotoColorEmoji.ttf --licence copyright

writes `dimoo/assets/world/atlas.png` (RGBA cells, row by row), `nouns.json` (noun, plural, article, emoji, in
the order of the cells) and the licence of the font. The order matters, because a world uses the first n
nouns: nouns from `EASY` come first, then the rest, each time the one that is farthest from all nouns before
it when both are drawn 24 px large and blurred.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

CELL = 96
COLUMNS = 10
FIRST = 32
ASSETS = Path(__file__).resolve().parents[1] / "dimoo" / "assets" / "world"

EASY = """
apple 🍎, banana 🍌, tree 🌳, penguin 🐧, car 🚙, cat 🐈, dog 🐶, frog 🐸, pig 🐷, fox 🦊, elephant 🐘,
whale 🐳, butterfly 🦋, octopus 🐙, crab 🦀, mushroom 🍄, cactus 🌵, sunflower 🌻, pineapple 🍍,
watermelon 🍉, carrot 🥕, eggplant 🍆, pizza 🍕, donut 🍩, star ⭐, moon 🌙, rainbow 🌈, umbrella ☂,
rocket 🚀, house 🏠, sailboat ⛵, guitar 🎸, balloon 🎈, soccer ball ⚽, key 🔑, heart 💙, gift 🎁, rose 🌹,
robot 🤖, ghost 👻, parrot 🦜, bell 🔔, snowman ⛄, basketball 🏀, bee 🐝, owl 🦉, panda 🐼, turtle 🐢,
flamingo 🦩, drum 🥁, crown 👑, rabbit 🐇
"""
MORE = """
lemon 🍋, tangerine 🍊, strawberry 🍓, peach 🍑, pear 🍐, kiwi 🥝, avocado 🥑, hamburger 🍔, taco 🌮,
egg 🥚, cookie 🍪, cake 🎂, cupcake 🧁, lollipop 🍭, pretzel 🥨, croissant 🥐, koala 🐨, tiger 🐯, lion 🦁,
cow 🐮, monkey 🐵, chicken 🐔, duck 🦆, bat 🦇, wolf 🐺, horse 🐎, unicorn 🦄, snail 🐌, ladybug 🐞,
spider 🕷, snake 🐍, fish 🐠, dolphin 🐬, cloud ☁, shark 🦈, crocodile 🐊, giraffe 🦒, zebra 🦓, bus 🚌,
hedgehog 🦔, tulip 🌷, clover 🍀, leaf 🍁, tractor 🚜, train 🚂, bicycle 🚲, airplane ✈, helicopter 🚁,
ship 🚢, castle 🏰, tent ⛺, flame 🔥, trumpet 🎺, violin 🎻, book 📗, alarm clock ⏰, lock 🔒, hammer 🔨,
light bulb 💡, candle 🕯, top hat 🎩, shoe 👟, dress 👗, shirt 👕, diamond 💎, magnet 🧲, alien 👽,
pumpkin 🎃, globe 🌍, camera 📷, telephone ☎, television 📺, laptop 💻, trophy 🏆, anchor ⚓, door 🚪,
traffic light 🚦, hourglass ⏳, pencil ✏
"""
PLURALS = {
    "fish": "fish",
    "leaf": "leaves",
    "wolf": "wolves",
}
ARTICLES = {"unicorn": "a", "hourglass": "an"}


def main() -> None:
    """Render, order and write the atlas."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--font", type=Path, required=True, help="NotoColorEmoji.ttf with 136x128 bitmaps")
    arguments.add_argument("--licence", type=Path, required=True, help="the copyright file that came with the font")
    arguments.add_argument("--count", type=int, default=100, help="nouns to keep")
    options = arguments.parse_args()

    easy, more = entries(EASY), entries(MORE)
    font = ImageFont.truetype(str(options.font), 109)
    cells = {noun: cell(emoji, font) for noun, emoji in (easy | more).items()}
    looks = {noun: look(image) for noun, image in cells.items()}
    first = spread(list(easy), looks, chosen=["apple"], count=FIRST)
    order = spread(list(easy | more), looks, chosen=first, count=options.count)

    write_atlas([cells[noun] for noun in order], ASSETS / "atlas.png")
    rows = [describe(noun, (easy | more)[noun]) for noun in order]
    lines = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in rows)
    index = f'{{"cell": {CELL}, "columns": {COLUMNS}, "nouns": [\n{lines}\n]}}\n'
    (ASSETS / "nouns.json").write_text(index, encoding="utf-8")
    (ASSETS / "LICENSE-OFL.txt").write_text(ofl(options.licence.read_text(encoding="utf-8")), encoding="utf-8")
    report(order, looks)


def entries(text: str) -> dict[str, str]:
    """`noun emoji, noun emoji` as {noun: emoji}."""
    pairs = [entry.strip().rsplit(" ", 1) for entry in text.replace("\n", " ").split(",")]
    return {noun: emoji for noun, emoji in pairs}


def cell(emoji: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """One emoji, trimmed to what is drawn and fitted into the middle of a CELL x CELL transparent square."""
    page = Image.new("RGBA", (180, 180))
    ImageDraw.Draw(page).text((20, 20), emoji, font=font, embedded_color=True)
    box = page.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox()
    if box is None:
        raise ValueError(f"the font draws nothing for {emoji!r}; use a font that has it")
    drawn = page.crop(box)
    scale = CELL / max(drawn.size)
    width, height = (max(1, round(side * scale)) for side in drawn.size)
    square = Image.new("RGBA", (CELL, CELL))
    square.paste(drawn.resize((width, height), Image.Resampling.LANCZOS), ((CELL - width) // 2, (CELL - height) // 2))
    return square


def look(image: Image.Image) -> np.ndarray:
    """A sprite at 24 px after blur: premultiplied colour and alpha, float [24, 24, 4] in 0..1."""
    small = image.convert("RGBa").resize((24, 24), Image.Resampling.HAMMING)
    planes = [np.asarray(plane.filter(ImageFilter.GaussianBlur(1)), dtype=np.float64) for plane in small.split()]
    return np.stack(planes, axis=-1) / 255


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Difference of the pixels (on black and on white) plus that of the mean colours, each a RMS."""
    on_black = a[..., :3] - b[..., :3]
    on_white = on_black - (a[..., 3:] - b[..., 3:])
    mean_color = a[..., :3].sum((0, 1)) / a[..., 3].sum() - b[..., :3].sum((0, 1)) / b[..., 3].sum()
    return float(np.sqrt((on_black**2 + on_white**2).mean() / 2) + np.sqrt((mean_color**2).mean()))


def spread(nouns: list[str], looks: dict[str, np.ndarray], *, chosen: list[str], count: int) -> list[str]:
    """Continue `chosen` to `count` nouns, each time with the noun farthest from its nearest chosen one."""
    order = list(chosen)
    nearest = {n: min(distance(looks[n], looks[c]) for c in order) for n in nouns if n not in order}
    while len(order) < count:
        best = max(nearest, key=lambda noun: nearest[noun])
        order.append(best)
        del nearest[best]
        nearest = {n: min(d, distance(looks[n], looks[best])) for n, d in nearest.items()}
    return order


def write_atlas(cells: list[Image.Image], path: Path) -> None:
    """Cells row by row, COLUMNS in a row; colours of fully transparent pixels are cleared."""
    rows = math.ceil(len(cells) / COLUMNS)
    atlas = Image.new("RGBA", (COLUMNS * CELL, rows * CELL))
    for index, image in enumerate(cells):
        atlas.paste(image, (index % COLUMNS * CELL, index // COLUMNS * CELL))
    pixels = np.array(atlas)
    pixels[pixels[..., 3] == 0] = 0
    Image.fromarray(pixels, "RGBA").save(path, optimize=True)


def describe(noun: str, emoji: str) -> dict[str, str]:
    """The row of the index for one noun."""
    article = ARTICLES.get(noun, "an" if noun[0] in "aeiou" else "a")
    return {"noun": noun, "plural": PLURALS.get(noun, plural(noun)), "article": article, "emoji": emoji}


def plural(noun: str) -> str:
    """The regular plural."""
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in "aeiou" else noun + "s"


def ofl(copyright_file: str) -> str:
    """Who holds the copyright, and the SIL Open Font License, out of a Debian copyright file."""
    paragraphs = re.split(r"\n\s*\n", copyright_file)
    font = next(p for p in paragraphs if p.startswith("Files:") and "SIL" in p)
    licence = next(p for p in paragraphs if p.startswith("License:") and "SIL" in p)
    holders = re.search(r"Copyright:(.*?)License:", font, re.DOTALL)
    if holders is None:
        raise ValueError("the copyright file names no holder of the font; give the one that came with the font")
    names = "\n".join("  " + line.strip() for line in holders[1].strip().splitlines())
    text = "\n".join(line[1:].removeprefix(".") for line in licence.splitlines()[1:])
    return f"atlas.png shows pictures of the Noto Color Emoji font.\n\nCopyright\n{names}\n\n{text}\n"


def report(order: list[str], looks: dict[str, np.ndarray]) -> None:
    """Print the closest pairs among the first nouns and among all."""
    for count in (16, FIRST, len(order)):
        some = order[:count]
        pairs = sorted((distance(looks[a], looks[b]), a, b) for i, a in enumerate(some) for b in some[:i])
        print(f"first {count}: closest " + ", ".join(f"{a}/{b} {d:.3f}" for d, a, b in pairs[:5]))
    print(" ".join(order))
    print(f"{(ASSETS / 'atlas.png').stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
