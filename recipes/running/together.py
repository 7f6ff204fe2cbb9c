"""What several processes of a run say when one of them fails: its error, and nothing of what the others make of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from torch import distributed
from torch.distributed.distributed_c10d import _get_default_store

from dimoo.core.errors import TrainingError
from recipes.processes import FollowsError, first_process

KEY = "dimoo/failed"
MARK = ".failed"
"""A file that the first process leaves when it fails: what the others read may end with it."""


@contextmanager
def failing_together(folder: Path | None) -> Iterator[None]:
    """Where processes work together, so that an error of one breaks the connections of all others.

    Args:
        folder: of the run, which its machines share; None: nothing is written, and the end of the first process is not
            told from its loss.

    Raises:
        FollowsError: another one failed before this one.
        TrainingError: another one was lost, and none said why.
    """
    mark = None if folder is None else folder / MARK
    if mark is not None and first_process():
        mark.unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        if not distributed.is_initialized():
            raise
        rank = distributed.get_rank()
        if rank == 0 and mark is not None:
            with suppress(OSError):  # a full disk, say, which is then the error
                mark.touch()
        if not _first(rank, mark):
            raise FollowsError("another process of this run failed before, and says why") from error
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            raise TrainingError(
                "another process of this run was lost, killed or out of memory it may be; --resume goes on from the"
                " last checkpoint"
            ) from error
        raise


def _first(rank: int, mark: Path | None) -> bool:
    """Whether no process has said before that it failed; process 0 keeps what they all read.

    If it has ended without its mark, it was lost, and process 1 says so for all.
    """
    own = str(rank)
    try:
        with _unheard():
            return bool(_get_default_store().compare_set(KEY, "", own).decode() == own)
    except RuntimeError:  # the process that keeps it has ended
        return rank == 1 and mark is not None and not mark.exists()


@contextmanager
def _unheard() -> Iterator[None]:
    """Without what torch's own code writes to the screen where a connection is gone."""
    sys.stderr.flush()
    screen, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(screen, 2)
        os.close(screen)
        os.close(nowhere)
