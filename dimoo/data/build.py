"""Source configs -> sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
            return Curriculum(
                sources=[WorldSource(phase.world, seed) for phase in config.phases], starts=starts
            )
        case FolderSourceConfig():
            return Endless(source=FolderSource(Path(config.path)), seed=seed, canvas=config.size)
        case JsonlSourceConfig():
            return Endless(source=JsonlSource(Path(config.path)), seed=seed, canvas=config.size)
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
        order: Sequence[int] = np.random.default_rng([self.seed, epoch]).permutation(size).tolist()
        example = self.source.example(order[place])
        if example.image is None:
            return example
        picture = cover_crop(Image.fromarray(np.asarray(example.image)), self.canvas)
        return Example(image=np.asarray(picture, dtype=np.uint8), caption=example.caption, qa=example.qa)
