"""Source configs -> sources."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image
from typing_extensions import assert_never

from dimoo.data.config import FolderSourceConfig, JsonlSourceConfig, SourceConfig, WorldSourceConfig
from dimoo.data.curriculum import Curriculum
from dimoo.data.example import Example, Source
from dimoo.data.folder import FolderSource
from dimoo.data.jsonl import JsonlSource
from dimoo.data.world.source import WorldSource
from dimoo.tokenizers.image.resize import cover_crop


def build_source(config: SourceConfig, *, seed: int, examples: int) -> Source:
    """A source for a run that will read indices 0 .. examples - 1.

    Finite sources are shuffled anew for every pass and go on for ever.
    """
    match config:
        case WorldSourceConfig():
            shares = [phase.share for phase in config.phases]
            starts = [0, *(round(share * examples) for share in accumulate(shares))][: len(shares)]
            sources = [WorldSource(phase.world, seed, tasks=phase.tasks) for phase in config.phases]
            return Curriculum(sources=sources, starts=starts)
        case FolderSourceConfig():
            return Endless(source=FolderSource(Path(config.path), on_bad=config.on_bad), seed=seed, canvas=config.size)
        case JsonlSourceConfig():
            return Endless(source=JsonlSource(Path(config.path), on_bad=config.on_bad), seed=seed, canvas=config.size)
        case _:
            assert_never(config)


@dataclass(frozen=True, kw_only=True)
class Endless:
    """A finite source, shuffled for every pass, its pictures brought to one size."""

    source: Source
    seed: int
    canvas: tuple[int, int]
    """(height, width) in pixels."""

    @property
    def size(self) -> int | None:
        """None: endless."""
        return None

    def example(self, index: int) -> Example:
        """Example `index`: pass `index // size`, at a random place of its own."""
        size = self.source.size
        assert size is not None
        epoch, place = divmod(index, size)
        example = self.source.example(_order(self.seed, epoch, size)[place])
        if example.image is None:
            return example
        picture = cover_crop(Image.fromarray(np.asarray(example.image)), self.canvas)
        return replace(example, image=np.asarray(picture, dtype=np.uint8))


@lru_cache(maxsize=4)  # examples are read pass by pass; a permutation costs as much as a whole pass of lookups
def _order(seed: int, epoch: int, size: int) -> tuple[int, ...]:
    """The shuffle of one pass."""
    return tuple(np.random.default_rng([seed, epoch]).permutation(size).tolist())
