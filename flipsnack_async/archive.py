"""
Keep harvests in a file, so that none of their calls is ever made again.

    async with Archive.open("stats.db") as archive:
        async with archive.harvest(flipsnack) as rows:
            async for row in rows:
                print(row.collection_hash, row.stats or row.error)

The file is a SQLite database. Its tables are runs, listing, statistics,
page_statistics and failures, with a view of the tombstones: flipbooks that
were deleted, or are somebody else's. What their columns mean is written in
the schema, which `sqlite3 stats.db .schema` shows. Every row ends with a
checksum, so that what is changed by hand counts as damaged.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Mapping,
)
from datetime import date
from functools import partial
from types import TracebackType
from typing import TypeAlias, TypeVar, get_args

import anyio

from . import _blocking, _checks
from ._actions import Day, Ref, days, hashes_of
from ._archive_file import ArchiveFile, Settled
from ._archive_job import Job, now
from ._archive_rows import Kept, Kind, Outcome, Run
from ._archive_series import KeptSeries, rows_of_settled
from ._client import Flipsnack
from ._crew import Rows
from ._pace import Pace
from ._series import Step
from .errors import ArchiveError, FlipsnackError, InvalidArgumentError
from .harvest import Account
from .models import HarvestProgress, HarvestRow, RunSummary, SeriesProgress, SeriesRow

__all__ = ["Archive", "KeptHarvest", "KeptSeries", "Step"]

Row = TypeVar("Row")
OnProgress: TypeAlias = Callable[[HarvestProgress], object]

BATCH = 200  # rows read at a time


class Archive:
    """
    Keep harvests in a file, for as long as its ``async with`` block lasts.

    Nobody else can open the file meanwhile. What cannot be used is refused
    with `ArchiveError`, and left as it is: a file that is damaged, in use,
    or none of ours. A file that is not there yet is made, for its owner's
    eyes only. It does not belong on a network's disk, whose locks may lie.
    """

    def __init__(self, file: ArchiveFile) -> None:
        self._file = file

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Archive:
        """Name the file, which is opened on entering the block."""
        found = _checks.path("path", path)
        if not found.name:
            raise InvalidArgumentError("path", "name a file")
        return cls(ArchiveFile(found))

    async def __aenter__(self) -> Archive:
        self._file.is_wanted = True
        try:
            await _blocking.off_the_loop(self._file.open)
        except anyio.get_cancelled_exc_class():  # natively, on asyncio: the thread goes on
            await _blocking.surely_off_the_loop(self._file.close)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await _blocking.surely_off_the_loop(self._file.close)

    def harvest(
        self,
        flipsnack: Flipsnack,
        refs: Iterable[Ref] | AsyncIterable[Ref] | None = None,
        *,
        start_date: Day | None = None,
        end_date: Day | None = None,
        pages: bool = False,
        at_once: int = 8,
        fresh: bool = False,
        on_progress: OnProgress | None = None,
    ) -> KeptHarvest:
        """
        Harvest statistics of *refs*, or of every collection of the account, and keep them.

        The same harvest again continues one that was broken off, wherever
        that was; when the last one is over it starts another. Numbers of a
        range that had ended two days before they were asked for are final:
        where the archive has them they cost no call, unless *fresh*. The
        stalest come first. *refs* are drawn to their end before anything is
        asked. *on_progress* gets the progress with each row.
        """
        return KeptHarvest(
            self._file,
            flipsnack._account(),
            None if refs is None else hashes_of(refs),
            days(start_date, end_date),
            pages=pages,
            at_once=at_once,
            fresh=fresh,
            on_progress=on_progress,
        )

    def series(
        self,
        flipsnack: Flipsnack,
        refs: Iterable[Ref] | AsyncIterable[Ref] | None,
        start_date: Day,
        end_date: Day,
        *,
        step: Step = "day",
        exact: bool = False,
        at_once: int = 8,
        on_progress: Callable[[SeriesProgress], object] | None = None,
    ) -> KeptSeries:
        """
        Find out the statistics of each day, week or month of a range, and keep them.

        Of *refs*, or of every collection of the account with None. Weeks
        begin on Mondays; the first and the last week or month may be cut off.
        A range's total tells of all its steps when it is zero, and of the
        last one where those before it are known and the flipbook's counters
        add up. Its first split shows whether they do, unless too few days were
        read: then a vendor who leaves out a range's last day, say, is believed.
        So rows that were inferred say so, and *exact* asks for each step
        instead. Calls so far and steps unresolved are never more than 1.05
        for each step. Goes on, and spares what is known, as `harvest` does.
        """
        start, end = days(start_date, end_date)
        if start is None or end is None:
            raise InvalidArgumentError("start_date, end_date", "give both")
        if step not in get_args(Step):
            raise InvalidArgumentError("step", f"give one of {', '.join(get_args(Step))}")
        return KeptSeries(
            self._file,
            flipsnack._account(),
            None if refs is None else hashes_of(refs),
            start,
            end,
            step=step,
            exact=exact,
            at_once=at_once,
            on_progress=on_progress,
        )

    def series_rows(self, run: int | None = None) -> AsyncIterator[SeriesRow]:
        """Read the rows of a series, by default the newest one's, as `rows` does."""
        return _Rows(self._file, "series", run, rows_of_settled)

    def rows(self, run: int | None = None) -> AsyncIterator[HarvestRow]:
        """
        Read the rows of a harvest, by default the newest one's, in the order of its listing.

        Raises `ArchiveError` where they are not what was written.
        """
        return _Rows(self._file, "harvest", run, _row_of_settled)

    async def contents(self) -> tuple[RunSummary, ...]:
        """Tell which harvests and series are in the archive, and how far each came."""
        return await _blocking.off_the_loop(self._summaries)

    def _summaries(self) -> tuple[RunSummary, ...]:
        runs = self._file.runs()
        for run in runs:
            self._file.check(run)
        return tuple(_summary(run, self._file.counts(run)) for run in runs)


class KeptHarvest(Rows[HarvestRow]):
    """
    Hold a harvest that is written to an archive, and runs inside its ``async with`` block.

    Yields a `HarvestRow` for each collection that is not settled yet, when it
    is safely on the disk. One that fails in passing is asked about twice more
    when all others are through. Wrong credentials, an archive that cannot be
    written, and an outage end the harvest, which the same one again
    continues. Leaving the block early cancels what is under way. Rows are
    handed out once: a few may be on the disk that the block was left before,
    and `Archive.rows` has them all.
    """

    def __init__(
        self,
        file: ArchiveFile,
        account: Account,
        refs: AsyncGenerator[str] | None,
        dates: tuple[date | None, date | None],
        *,
        pages: bool,
        at_once: int,
        fresh: bool,
        on_progress: OnProgress | None,
    ) -> None:
        _checks.function("on_progress", on_progress)
        _checks.truth("pages", pages)
        _checks.truth("fresh", fresh)
        self._start, self._end = dates
        self._pages = pages
        self._fresh = fresh
        self._on_progress = on_progress
        self._known_left = 0
        self._job = Job(
            file,
            account,
            "harvest",
            {"start_date": _text(self._start), "end_date": _text(self._end)}
            | {"pages": pages, "fresh": fresh},
            refs,
            on_listed=self._on_listed,
            find=self._find,
            excuse=_excuse,
            at_once=at_once,
        )
        super().__init__("harvest", self._job.working)
        self._pace = Pace(account.calls)

    @property
    def progress(self) -> HarvestProgress:
        """Say how far the harvest is, what came of it before it was broken off included."""
        job = self._job
        left = max(0, job.total - job.settled - self._known_left) if job.is_listed else None
        return HarvestProgress(
            done=job.settled,
            failed=job.failed,
            calls=job.account.calls(),
            calls_per_minute=self._pace.per_minute(),
            total=job.total if job.is_listed else None,
            calls_left=left,
            seconds_left=None if left is None else job.account.seconds_for(left),
        )

    async def __anext__(self) -> HarvestRow:
        row = await self._job.take()
        if self._on_progress is not None:
            self._on_progress(self.progress)
        return row

    async def _on_listed(self) -> None:
        """Find out what needs no call."""
        if self._end is not None and not self._fresh:
            self._known_left = await _blocking.off_the_loop(
                partial(self._job.file.count_known, self._start, self._end, pages=self._pages)
            )

    async def _find(self, collection_hash: str) -> tuple[list[Kept], HarvestRow]:
        kept = await self._known(collection_hash)
        if kept is None:
            kept = await self._job.ask(partial(self._ask, collection_hash))
        return [kept], HarvestRow(collection_hash, kept.stats)

    async def _known(self, collection_hash: str) -> Kept | None:
        file = self._job.file
        if self._end is None or not self._known_left:
            return None
        kept = await self._job.use(
            partial(file.known, collection_hash, self._start, self._end, pages=self._pages)
        )
        self._known_left -= kept is not None
        return kept

    async def _ask(self, collection_hash: str) -> Kept:
        asked_at = now()
        stats = await self._job.account.get_stats(
            collection_hash, start_date=self._start, end_date=self._end, pages=self._pages
        )
        return Kept(stats, asked_at, has_pages=self._pages)


class _Rows(AsyncIterator[Row]):
    """Read a run's rows batch by batch. No generator, so that there is nothing to close."""

    def __init__(
        self,
        file: ArchiveFile,
        kind: Kind,
        number: int | None,
        rows_of: Callable[[Run, Settled], Iterable[Row]],
    ) -> None:
        self._file = file
        self._kind = kind
        self._number = number
        self._rows_of = rows_of
        self._run: Run | None = None
        self._ready: deque[Row] = deque()
        self._place = 0
        self._is_over = False

    async def __anext__(self) -> Row:
        while not self._ready and not self._is_over:
            for settled in await _blocking.off_the_loop(self._read):
                self._ready.extend(settled)
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()

    def _read(self) -> list[Iterable[Row]]:
        run = self._run
        if run is None:
            run = self._run = self._find()
            self._file.check(run)
        found = self._file.settled(run, self._place, BATCH)
        self._is_over = not found
        self._place = found[-1].place if found else 0
        return [self._rows_of(run, settled) for settled in found]

    def _find(self) -> Run:
        runs = [run for run in self._file.runs() if run.kind == self._kind]
        if self._number is not None:
            runs = [run for run in runs if run.number == self._number]
        if not runs:
            which = "" if self._number is None else f" {self._number}"
            raise ArchiveError(
                str(self._file.path), f"holds no {self._kind}{which}", "look at its contents"
            )
        return runs[-1]


def _excuse(collection_hash: str, error: FlipsnackError) -> HarvestRow:
    return HarvestRow(collection_hash, error=error)


def _row_of_settled(_: Run, settled: Settled) -> list[HarvestRow]:
    if settled.error is not None:
        return [_excuse(settled.collection_hash, settled.error)]
    return [HarvestRow(settled.collection_hash, kept.stats) for kept in settled.kept]


def _summary(run: Run, counts: Mapping[Outcome, int]) -> RunSummary:
    return RunSummary(
        run.number,
        run.kind,
        {name: value for name, value in run.parameters.items() if value is not None},
        run.state,
        run.started_at,
        run.written_at,
        run.spent.calls,
        *(counts.get(outcome, 0) for outcome in ("done", "failed", "gone", "pending")),
    )


def _text(day: date | None) -> str | None:
    return None if day is None else day.isoformat()
