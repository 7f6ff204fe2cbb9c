"""What several processes of a run say when one of them fails: its error, and nothing of what the others make of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed
from torch.distributed.distributed_c10d import _get_default_store

from dimoo.core.errors import TrainingError
from recipes.processes import FollowsError

KEY = "dimoo/failed"


@contextmanager
def failing_together() -> Iterator[None]:
    """Where processes work together, so that an error of one breaks the connections of all others.

    Raises:
        FollowsError: another one failed before this one.
        TrainingError: another one was lost, and none said why.
    """
    try:
        yield
    except Exception as error:
        if not distributed.is_initialized():
            raise
        if not _first():
            raise FollowsError("another process of this run failed before, and says why") from error
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            raise TrainingError(
                "another process of this run was lost, killed or out of memory it may be; --resume goes on from the"
                " last checkpoint"
            ) from error
        raise


def _first() -> bool:
    """Whether no process has said before that it failed; the first one keeps what they all read."""
    own = str(distributed.get_rank())
    try:
        with _unheard():
            return bool(_get_default_store().compare_set(KEY, "", own).decode() == own)
    except RuntimeError:  # the process that keeps it has ended
        return False


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
