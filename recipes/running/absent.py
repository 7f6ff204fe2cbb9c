"""What an estimate takes for tokenizers and data that are not on this machine: nothing is fetched for it."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from dimoo.core.errors import ConfigError
from dimoo.core.rng import generator
from dimoo.data.config import JsonlSourceConfig, WorldSourceConfig
from dimoo.presets import lumina_dimoo_8b as lumina
from dimoo.tokenizers.image.build import build_image_tokenizer
from dimoo.tokenizers.image.config import FiniteScalarQuantizerConfig, ImageTokenizerConfig, PatchNetworkConfig
from dimoo.tokenizers.image.files import save_image_tokenizer
from recipes.config import OF_WARM_START, DiffusionRecipe

PIXELS = 16
"""Of a side of the square that a code of the released tokenizer stands for ..."""
SMALLER = 4
"""... and by how much pictures and squares are smaller here: as many codes, for a fraction of the work."""
LEVELS = (8, 8, 8, 16)
"""Whose product is the number of its codes; rounding to levels is faster than looking for the nearest of them."""
SHARE = 4
"""One in so many of a caption's planned tokens is a word here."""


def present(recipe: DiffusionRecipe, scratch: Path) -> tuple[DiffusionRecipe, str]:
    """The recipe with stand-ins for what is not here, of the same shapes, and a note that says so.

    A recipe whose files are all here is given back as it is. Of others every example is a captioned picture of the
    source's size with a question, in the words of the bundled text tokenizer.

    Args:
        recipe: that is to be looked at.
        scratch: a folder, for the stand-ins.

    Raises:
        ConfigError: the shape of the image tokenizer, or the size of the pictures, is not known without files that are
            not here; names them.
    """
    source, needed = recipe.source, {"image_tokenizer": recipe.image_tokenizer}
    if recipe.text_tokenizer == OF_WARM_START:
        needed["warm_start"] = str(recipe.warm_start)
    if not isinstance(source, WorldSourceConfig):
        needed["source.path"] = source.path
    absent = {name: place for name, place in needed.items() if place != "mini" and not Path(place).exists()}
    if not absent:
        return recipe, ""
    named = ", ".join(f"{name} {place}" for name, place in absent.items())
    size = getattr(source, "size", None)
    if recipe.image_tokenizer != lumina.REPOSITORY or size is None:
        raise ConfigError(
            f"--estimate needs what is not here: {named}; put it there, or take image_tokenizer {lumina.REPOSITORY},"
            " whose shape is known, and a source of pictures with a size"
        )
    high, wide = (size, size) if isinstance(size, int) else size
    _write_tokenizer(scratch)
    small = (high // SMALLER, wide // SMALLER)
    path = _write_rows(scratch, small, words=recipe.mixture.caption_tokens // SHARE)
    changes = {
        "image_tokenizer": str(scratch),
        "text_tokenizer": "mini",
        "new_rows_steps": 0,
        "source": JsonlSourceConfig(path=str(path), size=small),
    }
    note = (
        f"not here: {named}. In place of them every example is a picture of {high} x {wide} pixels with a caption of"
        f" {recipe.mixture.caption_tokens // SHARE} words and a question."
    )
    return recipe.model_copy(update=changes), note


def _write_tokenizer(folder: Path) -> None:
    """As many codes as the released one, each for as large a part of a picture; which they are does not matter."""
    config = ImageTokenizerConfig(
        network=PatchNetworkConfig(patch=PIXELS // SMALLER, width=8, encoder_blocks=1, decoder_blocks=1),
        quantizer=FiniteScalarQuantizerConfig(levels=LEVELS),
    )
    save_image_tokenizer(build_image_tokenizer(config, generator(0, "estimate")), folder)


def _write_rows(folder: Path, size: tuple[int, int], *, words: int) -> Path:
    Image.new("RGB", size[::-1]).save(folder / "picture.png")
    turn = {"question": "what is it", "answer": "a cat"}
    row = {"image": "picture.png", "caption": " ".join(["cat"] * max(1, words)), "conversations": [turn]}
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    return path
