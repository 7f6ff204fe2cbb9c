"""What a run shows while the rows of its files are looked over, before the first step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dimoo.data.checking import Progress as Told
from recipes.processes import first_process


@contextmanager
def looking(console: Console | None = None) -> Iterator[Told]:
    """A bar on a terminal, from the first report that is not the last one until that."""
    screen = console or Console(stderr=True, quiet=not first_process())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal)
    task = bar.add_task("looking at the rows")
    with ExitStack() as stack:

        def told(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            if done < total and not bar.live.is_started:
                stack.enter_context(bar)
            if done == total:
                stack.close()

        yield told
