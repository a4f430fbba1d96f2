"""The line on stderr that shows how far something is."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import attrs
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ._settings import Settings

REDRAWN_EVERY = 0.25


@attrs.frozen
class Look:
    """Say what the bar shows: it sways where *total* is None, and *words* stand next to it."""

    words: str
    completed: float = 0
    total: float | None = None


@asynccontextmanager
async def progress_bar(settings: Settings, look: Callable[[], Look]) -> AsyncIterator[None]:
    """
    Show a bar inside the block, if stderr is a terminal that nothing else writes rows on.

    It moves by the clock: a minute can pass without news where the quota is
    used up, or a document is converted.
    """
    if not _wants_bar(settings):
        yield
        return
    # Not redrawn by the thread that rich offers: only the event loop knows the time of the quota.
    columns = (BarColumn(bar_width=None), TextColumn("{task.description}", markup=False))
    console = Console(stderr=True)
    failure = None
    with Progress(
        *columns,
        console=console,
        auto_refresh=False,
        transient=True,
        expand=True,
        redirect_stdout=False,
    ) as bar:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_redraw, bar, look)
            try:
                yield
            except Exception as error:  # kept, or the task group would wrap it in a group
                failure = error
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _wants_bar(settings: Settings) -> bool:
    rows_on_screen = sys.stdout.isatty() and settings.json
    return sys.stderr.isatty() and not settings.quiet and not rows_on_screen


async def _redraw(bar: Progress, look: Callable[[], Look]) -> None:
    task = bar.add_task("", total=None)
    while True:
        now = look()
        bar.update(
            task, completed=now.completed, total=now.total, description=now.words, refresh=True
        )
        await anyio.sleep(REDRAWN_EVERY)
