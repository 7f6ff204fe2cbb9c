from __future__ import annotations

from pathlib import Path

import pytest

import dimoo
from dimoo.tokenizers.prompts import Prompts
from dimoo.tokenizers.template import PromptTemplate
from dimoo.tokenizers.text import SPECIAL_TOKENS, TextTokenizer
from dimoo.tokenizers.vocabulary import Vocabulary

CODES = 64


@pytest.fixture(scope="session")
def text() -> TextTokenizer:
    """The bundled text tokenizer."""
    return TextTokenizer.load(Path(dimoo.__file__).parent / "assets" / "mini" / "tokenizer.json")


@pytest.fixture(scope="session")
def prompts(text: TextTokenizer) -> Prompts:
    """Prompts over the bundled text tokenizer and 64 image codes."""
    ids = {name: text.id_of(token) for name, token in SPECIAL_TOKENS.items()}
    opening, closing = ids.pop("image_start"), ids.pop("image_end")
    vocabulary = Vocabulary(text_size=text.size, **ids).with_modality("image", CODES, opening=opening, closing=closing)
    template = PromptTemplate(systems={"draw": "make a picture", "ask": "answer"}, max_prompt_tokens=100)
    return Prompts(text=text, vocabulary=vocabulary, template=template)
