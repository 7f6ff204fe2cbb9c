"""The rows of users' files, looked over before they are used: many at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from dimoo.core.errors import DataError
from dimoo.data.example import BadRow

RowT = TypeVar("RowT")
FoundT = TypeVar("FoundT")

TOGETHER = 256
"""Rows between two reports of progress."""
Progress = Callable[[int, int], None]
"""Is told how many of how many are done."""


def unseen(done: int, total: int) -> None:
    """A `Progress` that nobody looks at."""
    del done, total


def sorted_out(
    rows: Sequence[RowT], look: Callable[[RowT], FoundT], where: Callable[[RowT], str], progress: Progress = unseen
) -> tuple[tuple[tuple[RowT, FoundT], ...], tuple[BadRow, ...]]:
    """Good rows with what is found in them, and bad ones with the reason, each in their order; see `looked_over`.

    Args:
        rows: to look over.
        look: at one of them.
        where: a row is, for people.
        progress: is called now and then, and in the end.
    """
    good: list[tuple[RowT, FoundT]] = []
    bad: list[BadRow] = []
    for row, found in zip(rows, looked_over(rows, look, progress), strict=True):
        if isinstance(found, DataError):
            bad.append(BadRow(where=where(row), reason=str(found)))
        else:
            good.append((row, found))
    return tuple(good), tuple(bad)


def looked_over(
    rows: Sequence[RowT], look: Callable[[RowT], FoundT], progress: Progress = unseen
) -> Iterator[FoundT | DataError]:
    """What is found in each row, in their order, or why it cannot be used.

    In threads: pictures are read and decoded without Python's lock.

    Args:
        rows: to look over.
        look: at one of them; raises DataError where it is bad, and may be called by several threads at a time.
        progress: is called now and then, and in the end.
    """

    def outcome(row: RowT) -> FoundT | DataError:
        try:
            return look(row)
        except DataError as error:
            return error

    with ThreadPoolExecutor(thread_name_prefix="check") as pool:
        for start in range(0, len(rows), TOGETHER):
            part = rows[start : start + TOGETHER]
            yield from pool.map(outcome, part)
            progress(start + len(part), len(rows))
