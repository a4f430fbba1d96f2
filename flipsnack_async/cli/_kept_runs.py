"""What a harvest and a series have in common that are written to an archive."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import anyio
import click

from flipsnack_async import AuthenticationError, FlipsnackError, RunSummary
from flipsnack_async.archive import Archive, KeptHarvest, KeptSeries

from ._failures import FAILED, PARTLY, say, tell
from ._json_lines import write_line
from ._progress_bar import Look, progress_bar
from ._readable import counted, counted_of, stopwatch
from ._session import ended_by_a_second_interrupt
from ._settings import Settings

KeptRows: TypeAlias = KeptHarvest | KeptSeries

GOES_ON = "the same command goes on"

archive_to_write = click.Path(dir_okay=False, path_type=Path)
archive_to_read = click.Path(exists=True, dir_okay=False, path_type=Path)


async def bring_in(
    settings: Settings,
    archive: Archive,
    rows: KeptRows,
    look: Callable[[], Look],
    *,
    shown_by: str,
    announce: Callable[[], Awaitable[None]] | None = None,
) -> int:
    """
    Bring *rows* into the archive, say what came of it, and return the exit code.

    *announce* is awaited before the first row. A terminal gets no rows: there
    may be more than anybody reads, and the command *shown_by* shows them all.
    """
    started = anyio.current_time()
    with ended_by_a_second_interrupt():
        async with archive:
            failure = await _write_out(settings, rows, look, announce)
            run = (await archive.contents())[-1]
    if failure is not None:
        tell(failure, verbose=settings.verbose > 0)
    is_over = run.state in {"complete", "partial"}
    if not settings.quiet:
        calls = counted(rows.progress.calls, "call")
        seconds = stopwatch(anyio.current_time() - started)
        say(f"{_came_of(run)}, {calls}, {seconds}; {shown_by if is_over else GOES_ON}")
    if failure is None and not run.failed:
        return 0
    return PARTLY if run.done or not is_over else FAILED


async def _write_out(
    settings: Settings,
    rows: KeptRows,
    look: Callable[[], Look],
    announce: Callable[[], Awaitable[None]] | None,
) -> FlipsnackError | None:
    """Write out the rows as they come, and return what broke that off, once it had begun."""
    has_begun = False
    try:
        async with rows, progress_bar(settings, look):
            has_begun = True
            if rows.progress.done and not settings.quiet:
                say(f"going on: {counted(rows.progress.done, 'collection')} done already")
            if announce is not None:
                await announce()
            async for row in rows:
                if not settings.as_table:
                    write_line(row)
    except anyio.get_cancelled_exc_class():
        progress = rows.progress
        done = counted_of(progress.done, progress.total, "collection")
        say(f"interrupted: {done} done; {GOES_ON}")
        raise
    except AuthenticationError:
        raise  # which nobody gets past by going on
    except FlipsnackError as error:
        if not has_begun:
            raise
        return error
    return None


def shows(command: str, path: Path) -> str:
    """Say by which command the rows of an archive are shown."""
    return f"flipsnack {command} {shlex.quote(str(path))} shows them"


def _came_of(run: RunSummary) -> str:
    done = run.done + run.failed + run.gone
    total = None if run.state == "listing" else done + run.pending
    return f"{counted_of(done, total, 'collection')}, {run.failed:,} failed, {run.gone:,} gone"
