"""The command that asks for the statistics of many collections."""

from __future__ import annotations

from typing import TextIO

import anyio
import click

from flipsnack_async import Flipsnack, FlipsnackError, Harvest, HarvestProgress, HarvestRow, Quota

from ._choice import choice_options, chosen
from ._failures import FAILED, PARTLY, say
from ._json_lines import write_line
from ._looks import look_of_harvest
from ._progress_bar import Look, progress_bar
from ._readable import counted, stopwatch
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
) -> int:
    """
    Ask for the statistics of many collections.

    Calls go out as fast as the limits allow, and rows come in any order. A
    collection that fails is a row like any other, with its error.

    \b
    Examples:
      flipsnack harvest --all --start 2026-01-01 --end 2026-01-31 > january.jsonl
      flipsnack harvest fxh4k89 fzz81kd
      flipsnack list | jq -r .collection_hash | flipsnack harvest --from-file -
      flipsnack --sandbox harvest --all --pages
    """
    refs = chosen(hashes, everything=everything, file=file)
    output = RowOutput(settings, pages=pages)

    async def work(flipsnack: Flipsnack) -> HarvestProgress:
        rows = flipsnack.harvest(refs, start_date=start, end_date=end, pages=pages, at_once=at_once)
        async with rows:
            await _bring_in(rows, flipsnack.quota, output)
        return rows.progress

    progress = converse(settings, work)
    if not progress.failed:
        return 0
    return PARTLY if progress.failed < progress.done else FAILED


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


async def _bring_in(rows: Harvest, quota: Quota, output: RowOutput) -> None:
    started = anyio.current_time()

    def look() -> Look:
        return look_of_harvest(rows.progress, quota.statistics())

    try:
        async with progress_bar(output.settings, look):
            async for row in rows:
                output.put(row)
    except anyio.get_cancelled_exc_class():
        output.show_kept()
        say(f"interrupted: {_how_far(rows.progress)}")
        raise
    except FlipsnackError:
        output.show_kept()
        raise
    output.show_kept()
    output.sum_up(rows.progress, anyio.current_time() - started)


def _how_far(progress: HarvestProgress) -> str:
    of_all = "" if progress.total is None else f" of {progress.total:,}"
    return f"{progress.done:,}{of_all} collections done"
