"""The command that asks for the statistics of many collections."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import anyio
import click

from flipsnack_async import Flipsnack, FlipsnackError, Harvest, HarvestProgress, HarvestRow
from flipsnack_async.archive import Archive

from ._choice import choice_options, chosen
from ._failures import FAILED, PARTLY, say
from ._json_lines import write_line
from ._kept_runs import archive_to_write, bring_in, shows
from ._looks import look_of_harvest
from ._progress_bar import progress_bar
from ._readable import counted, counted_of, stopwatch
from ._session import converse
from ._settings import Settings, shared_options
from ._tables import of_harvest, show


@click.command()
@choice_options
@click.option("--start", metavar="DATE", help="The first day, as YYYY-MM-DD.")
@click.option("--end", metavar="DATE", help="The last day, as YYYY-MM-DD.")
@click.option("--pages", is_flag=True, help="Ask for each page's statistics too.")
@click.option(
    "--at-once",
    type=click.IntRange(min=1),
    metavar="N",
    default=8,
    show_default=True,
    help="How many calls may be under way or waiting for quota.",
)
@click.option(
    "--out",
    metavar="FILE",
    type=archive_to_write,
    help="Keep them in an archive too, from which the same command goes on.",
)
@click.option("--fresh", is_flag=True, help="With --out: ask for what the archive knows, too.")
@shared_options()
@click.pass_obj
def harvest(
    settings: Settings,
    hashes: tuple[str, ...],
    everything: bool,
    file: TextIO | None,
    start: str | None,
    end: str | None,
    pages: bool,
    at_once: int,
    out: Path | None,
    fresh: bool,
) -> int:
    """
    Ask for the statistics of many collections.

    Calls go out as fast as the limits allow, and rows come in any order. A
    collection that fails is a row like any other, with its error.

    With --out each row is on the disk when it comes, and a harvest that was
    interrupted goes on if it is started again. What the archive was told of
    days that were over then is not asked again, unless --fresh is given.

    \b
    Examples:
      flipsnack harvest --all --start 2026-01-01 --end 2026-01-31 > january.jsonl
      flipsnack harvest --all --out stats.db
      flipsnack harvest fxh4k89 fzz81kd
      flipsnack list | jq -r .collection_hash | flipsnack harvest --from-file -
      flipsnack --sandbox harvest --all --pages
    """
    refs = chosen(hashes, everything=everything, file=file)
    if fresh and out is None:
        raise click.UsageError("--fresh goes with --out")
    output = RowOutput(settings, pages=pages)

    async def keep(flipsnack: Flipsnack, archive: Archive, path: Path) -> int:
        rows = archive.harvest(
            flipsnack,
            refs,
            start_date=start,
            end_date=end,
            pages=pages,
            at_once=at_once,
            fresh=fresh,
        )
        return await bring_in(
            settings,
            archive,
            rows,
            lambda: look_of_harvest(rows.progress),
            shown_by=shows("rows", path),
        )

    async def work(flipsnack: Flipsnack) -> int:
        if out is not None:
            return await keep(flipsnack, Archive.open(out), out)
        rows = flipsnack.harvest(refs, start_date=start, end_date=end, pages=pages, at_once=at_once)
        async with rows:
            await _bring_in(rows, output)
        if not rows.progress.failed:
            return 0
        return PARTLY if rows.progress.failed < rows.progress.done else FAILED

    return converse(settings, work)


class RowOutput:
    """Put rows out as they come, or keep them for a table."""

    def __init__(self, settings: Settings, *, pages: bool) -> None:
        self.settings = settings
        self._pages = pages
        self._kept: list[HarvestRow] = []

    def put(self, row: HarvestRow) -> None:
        if self.settings.as_table:
            self._kept.append(row)
        else:
            write_line(row)

    def show_kept(self) -> None:
        show(*of_harvest(self._kept, pages=self._pages))

    def sum_up(self, progress: HarvestProgress, seconds: float) -> None:
        if not self.settings.quiet:
            done = counted(progress.done, "collection")
            calls = counted(progress.calls, "call")
            say(f"{done}, {progress.failed:,} failed, {calls}, {stopwatch(seconds)}")


async def _bring_in(rows: Harvest, output: RowOutput) -> None:
    started = anyio.current_time()
    try:
        async with progress_bar(output.settings, lambda: look_of_harvest(rows.progress)):
            async for row in rows:
                output.put(row)
    except anyio.get_cancelled_exc_class():
        output.show_kept()
        progress = rows.progress
        say(f"interrupted: {counted_of(progress.done, progress.total, 'collection')} done")
        raise
    except FlipsnackError:
        output.show_kept()
        raise
    output.show_kept()
    output.sum_up(rows.progress, anyio.current_time() - started)
