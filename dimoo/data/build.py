"""Source configs -> sources."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from typing_extensions import assert_never

from dimoo.data.checking import Progress, unseen
from dimoo.data.config import (
    FolderSourceConfig,
    JsonlSourceConfig,
    ShardSourceConfig,
    SourceConfig,
    WorldSourceConfig,
)
from dimoo.data.curriculum import Curriculum
from dimoo.data.example import Check, Source, anything
from dimoo.data.fitted import Fitted, sizes_of
from dimoo.data.folder import FolderSource
from dimoo.data.jsonl import JsonlSource
from dimoo.data.shards import ShardSource
from dimoo.data.splits import Endless, Later, endless
from dimoo.data.world.source import WorldSource


def build_source(
    config: SourceConfig, *, seed: int, examples: int, check: Check = anything, progress: Progress = unseen
) -> Source:
    """A source for a run that will read indices 0 .. examples - 1.

    Finite sources are shuffled anew for every pass and go on for ever, without the examples that are held out.

    Args:
        config: where the examples come from.
        seed: of the world, and of the shuffles.
        examples: how many the run reads.
        check: what the rows of files must pass besides, for those that a model cannot be taught to be bad ones.
        progress: is told how many rows of files are looked at.

    Raises:
        DataError: a file is missing, there are bad rows that are not to be left out, or no good ones, or none that are
            not held out.
    """
    if isinstance(config, WorldSourceConfig):
        shares = [phase.share for phase in config.phases]
        starts = [0, *(round(share * examples) for share in accumulate(shares))][: len(shares)]
        sources = [WorldSource(phase.world, seed, tasks=phase.tasks) for phase in config.phases]
        return Curriculum(sources=sources, starts=starts)
    files: Source
    if isinstance(config, ShardSourceConfig):
        files = shards = ShardSource(Path(config.path), check=check, progress=progress)
        digest = shards.digest()
    else:
        files, digest = open_files(config, check, progress)
    return replace(endless(files, seed=seed, held_out=config.held_out), digest=digest)


def held_out(source: Source, *, examples: int) -> Source | None:
    """What a run that reads indices 0 .. examples - 1 of a source never learns from.

    Of a source that `build_source` made of files: the examples that its config holds out. Of any other endless one, as
    the world: the examples after the run's.

    Returns:
        A source of them, of a size or endless; None where there are none.
    """
    if isinstance(source, Endless):
        return source.held_out
    return None if source.size is not None else Later(source=source, first=examples)


def digest_of(source: Source) -> str | None:
    """What tells whether a source that `build_source` made of files has the same rows as another, in the same order.

    Returns:
        None of any other, as the world, which follows from its config.
    """
    return source.digest if isinstance(source, Endless) else None


def open_files(
    config: FolderSourceConfig | JsonlSourceConfig, check: Check = anything, progress: Progress = unseen
) -> tuple[Fitted, str]:
    """All examples of a folder or file in its order, their pictures fitted; and a digest of their rows.

    Raises:
        DataError: it is missing, there are bad rows that are not to be left out, or no good ones.
    """
    kind: type[FolderSource | JsonlSource]
    match config:
        case FolderSourceConfig():
            kind = FolderSource
        case JsonlSourceConfig():
            kind = JsonlSource
        case _:
            assert_never(config)
    opened = kind(Path(config.path), on_bad=config.on_bad, check=check, verify=config.verify, progress=progress)
    return Fitted(source=opened, sizes=sizes_of(config.size)), opened.digest()
