"""Train the bundled text tokenizer on the world's captions, questions and answers, with every noun of the atlas.

python scripts/train_text_tokenizer.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dimoo.data.world.atlas import names
from dimoo.data.world.config import WorldConfig
from dimoo.data.world.source import WorldSource
from dimoo.tokenizers.text import train_bpe

SIZE = 1024
OUT = Path(__file__).parents[1] / "dimoo" / "assets" / "mini" / "tokenizer.json"


def corpus(count: int) -> Iterator[str]:
    """Texts of `count` scenes over all nouns."""
    source = WorldSource(WorldConfig(nouns=len(names()), canvases=((64, 64), (96, 96))), seed=0)
    for index in range(count):
        example = source.example(index)
        yield example.caption or ""
        for question, answer in example.qa:
            yield question
            yield answer
    yield from ("draw", "answer", "describe the picture")


if __name__ == "__main__":
    tokenizer = train_bpe(corpus(20_000), size=SIZE)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(OUT)
    print(f"{OUT}: {tokenizer.size} tokens, {OUT.stat().st_size / 1024:.0f} KiB")
