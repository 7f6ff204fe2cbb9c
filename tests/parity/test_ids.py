"""What the loader reads off a released folder: every id of the golden vocabulary, out of the tokenizer alone."""

from __future__ import annotations

import pytest
from golden_folder import Golden
from golden_release import Released, has_released_ids

import dimoo

NAMES = {
    "newline": "end_of_line",
    "eot": "end_of_text",
    "mask": "mask",
    "pad": "pad",
    "boi": "image_start",
    "eoi": "image_end",
    "uncond": "unconditional",
    "boa": "answer_start",
    "eoa": "answer_end",
}


def test_ids(golden: Golden, released: Released) -> None:
    if not has_released_ids(golden):
        pytest.skip("this folder's ids lie as no released model's: its weights are loaded without a vocabulary")
    vocabulary = dimoo.load(released.folder).config.vocabulary
    given = golden.info["special_tokens"]
    assert {NAMES[name]: given[name] for name in NAMES.keys() & given.keys()}.items() <= vocabulary.specials.items()
    assert vocabulary.columns("image") == golden.codes
    assert vocabulary.columns("text") == (0, golden.codes[0])
