"""The line on stderr that shows how far something is."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext

import anyio
import attrs
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ._failures import say
from ._settings import Settings

REDRAWN_EVERY = 0.25
TOLD_EVERY = 60.0


@attrs.frozen
class Look:
    """Say what the bar shows: it sways where *total* is None, and *words* stand next to it."""

    words: str
    completed: float = 0
    total: float | None = None


@asynccontextmanager
async def progress_bar(settings: Settings, look: Callable[[], Look]) -> AsyncIterator[None]:
    """
    Show a bar inside the block, or a line each minute where stderr is no terminal.

    Neither if there are rows on the same terminal. Both go by the clock: a
    minute can pass without news where the quota is used up, or a document is
    converted.
    """
    is_terminal = sys.stderr.isatty()
    has_rows = sys.stdout.isatty() and settings.json
    if settings.quiet or (is_terminal and has_rows):
        yield
        return
    failure = None
    with _bar() if is_terminal else nullcontext() as bar:
        async with anyio.create_task_group() as tasks:
            if bar is None:
                tasks.start_soon(_tell, look)
            else:
                tasks.start_soon(_redraw, bar, look)
            try:
                yield
            except Exception as error:  # kept, or the task group would wrap it in a group
                failure = error
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _bar() -> Progress:
    # Not redrawn by the thread that rich offers: only the event loop knows the time of the quota.
    return Progress(
        BarColumn(bar_width=None),
        TextColumn("{task.description}", markup=False),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
        expand=True,
        redirect_stdout=False,
    )


async def _redraw(bar: Progress, look: Callable[[], Look]) -> None:
    task = bar.add_task("", total=None)
    while True:
        now = look()
        bar.update(
            task, completed=now.completed, total=now.total, description=now.words, refresh=True
        )
        await anyio.sleep(REDRAWN_EVERY)


async def _tell(look: Callable[[], Look]) -> None:
    while True:
        await anyio.sleep(TOLD_EVERY)
        say(look().words)
