"""The line on stderr that shows how far a harvest is."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from flipsnack_async import Harvest, HarvestProgress, Quota, QuotaStatistics

from ._readable import counted, duration
from ._settings import Settings

REDRAWN_EVERY = 0.25


def wants_bar(settings: Settings) -> bool:
    """Say whether stderr is a terminal that nothing else writes rows on."""
    rows_on_screen = sys.stdout.isatty() and settings.json
    return sys.stderr.isatty() and not settings.quiet and not rows_on_screen


@asynccontextmanager
async def progress_bar(rows: Harvest, quota: Quota) -> AsyncIterator[None]:
    """
    Show a bar inside the block.

    It moves by the clock and not by the rows: where the quota is used up a
    minute can pass without one.
    """
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
            tasks.start_soon(_redraw, bar, rows, quota)
            try:
                yield
            except Exception as error:  # kept, or the task group would wrap it in a group
                failure = error
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _redraw(bar: Progress, rows: Harvest, quota: Quota) -> None:
    task = bar.add_task("", total=None)
    while True:
        progress = rows.progress
        bar.update(
            task,
            completed=progress.done,
            total=progress.total,
            description=in_words(progress, quota.statistics()),
            refresh=True,
        )
        await anyio.sleep(REDRAWN_EVERY)


def in_words(progress: HarvestProgress, quota: QuotaStatistics) -> str:
    """Say how far a harvest is, what it has cost, and what may be sent at once."""
    total = "?" if progress.total is None else f"{progress.total:,}"
    free = " ".join(f"{tokens}/{rate.limit}" for rate, tokens in quota.free.items())
    parts = [
        f"{progress.done:,}/{total}",
        f"{progress.failed:,} failed",
        counted(progress.calls, "call"),
        f"free {free}",
    ]
    if progress.seconds_left is not None:
        parts.append(f"{duration(progress.seconds_left)} left")
    return "  ".join(parts)
