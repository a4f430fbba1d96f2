"""A series that is written to an archive: what is known of each step, and what is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable
from datetime import date
from functools import partial
from typing import TypeAlias, cast

from . import _blocking, _checks
from ._archive_file import ArchiveFile, Settled
from ._archive_job import Job, now
from ._archive_rows import Kept, Run, is_final
from ._crew import Rows
from ._pace import Pace
from ._series import Pool, Resolved, Span, Step, bounds, resolve, spans
from .errors import FlipsnackError
from .harvest import Account
from .models import CollectionStats, SeriesPlan, SeriesProgress, SeriesRow

OnProgress: TypeAlias = Callable[[SeriesProgress], object]


class KeptSeries(Rows[SeriesRow]):
    """
    Hold a series that is written to an archive, and runs inside its ``async with`` block.

    Yields a `SeriesRow` for each step of a collection, in their order, when
    all of it is safely on the disk, or one row with its error. It ends, and
    goes on, as a `KeptHarvest` does.
    """

    def __init__(
        self,
        file: ArchiveFile,
        account: Account,
        refs: AsyncGenerator[str] | None,
        start: date,
        end: date,
        *,
        step: Step,
        exact: bool,
        at_once: int,
        on_progress: OnProgress | None,
    ) -> None:
        _checks.function("on_progress", on_progress)
        _checks.truth("exact", exact)
        self._steps = spans(start, end, step)
        self._exact = exact
        self._on_progress = on_progress
        self._pool = Pool()
        self._plan: SeriesPlan | None = None
        self._steps_left = 0
        self._steps_of: dict[str, int] = {}  # of the collections that are asked about
        self._answers_of: dict[str, set[Span]] = {}  # that came already
        self._ready: deque[SeriesRow] = deque()
        parameters = {"start_date": start.isoformat(), "end_date": end.isoformat()}
        self._job = Job(
            file,
            account,
            "series",
            {**parameters, "step": step, "exact": exact},
            refs,
            on_listed=self._make_plan,
            find=self._find,
            excuse=self._excuse,
            at_once=at_once,
        )
        super().__init__("series", self._job.working)
        self._pace = Pace(account.calls)

    async def plan(self) -> SeriesPlan:
        """Wait until it is known what the series is about, and say what it may cost."""
        await self._job.wait_until_listed()
        return cast(SeriesPlan, self._plan)

    @property
    def progress(self) -> SeriesProgress:
        """Say how far the series is, what came of it before it was broken off included."""
        job = self._job
        most = bounds([self._steps_left], exact=self._exact)[1]
        left = max(0, most - sum(map(len, self._answers_of.values()))) if self._plan else None
        return SeriesProgress(
            done=job.settled,
            failed=job.failed,
            steps_done=(job.settled - job.failed) * len(self._steps),
            calls=job.account.calls(),
            calls_per_minute=self._pace.per_minute(),
            total=job.total if self._plan else None,
            most_calls_left=left,
            most_seconds_left=None if left is None else job.account.seconds_for(left),
        )

    async def __anext__(self) -> SeriesRow:
        if not self._ready:
            self._ready.extend(await self._job.take())
            if self._on_progress is not None:
                self._on_progress(self.progress)
        return self._ready.popleft()

    async def _make_plan(self) -> None:
        job, steps = self._job, len(self._steps)
        known = await _blocking.off_the_loop(job.file.count_known_steps, self._steps, self._exact)
        unknown = [steps - number for number in known]
        self._steps_left = sum(unknown)
        least, most = bounds(unknown, exact=self._exact)
        self._plan = SeriesPlan(
            collections=len(known),
            steps=steps * len(known),
            steps_known=sum(known),
            least_calls=least,
            most_calls=most,
            least_seconds=job.account.seconds_for(least),
            most_seconds=job.account.seconds_for(most),
        )

    async def _find(self, collection_hash: str) -> tuple[list[Kept], list[SeriesRow]]:
        job = self._job
        first, last = self._steps[0].first, self._steps[-1].last
        found = await job.use(job.file.known_within, collection_hash, first, last)
        before = {_span(kept): kept for is_own, kept in found if not is_own}
        mine = {_span(kept) for is_own, kept in found if is_own}
        known: dict[Span, CollectionStats | Resolved] = {
            span: Resolved(kept.stats, kept.is_inferred) for span, kept in before.items()
        }
        wider = [(span, kept) for span, kept in before.items() if span not in self._steps]
        asked_at = []
        for kept in (kept for is_own, kept in found if is_own):
            if is_final(kept) or kept.asked_at.date() == now().date():
                known[_span(kept)] = kept.stats
                asked_at.append(kept.asked_at)
            elif _span(kept) in self._steps:
                # Numbers of another day may have grown since: good for themselves, not for sums.
                known[_span(kept)] = Resolved(kept.stats, kept.is_inferred)
        self._steps_of[collection_hash] = sum(step not in before for step in self._steps)
        self._answers_of[collection_hash] = mine
        flipbook = resolve(collection_hash, self._steps, known, self._pool, exact=self._exact)
        try:
            span = next(flipbook)
            while True:
                kept = await job.ask(partial(self._ask, collection_hash, span))
                await job.keep(kept)
                mine.add(span)
                asked_at.append(kept.asked_at)
                span = flipbook.send(kept.stats)
        except StopIteration as end:
            resolved: list[Resolved] = end.value
        self._count_out(collection_hash)

        def inferred(row: Resolved) -> Kept:
            # As old as the oldest answer that it may come from.
            step = _span(row)
            over = [k.asked_at for s, k in wider if s.first <= step.first and step.last <= s.last]
            return Kept(row.stats, min(asked_at + over), is_inferred=True)

        return [
            before.get(_span(row)) or inferred(row) for row in resolved if _span(row) not in mine
        ], [SeriesRow(collection_hash, row.stats, row.is_inferred) for row in resolved]

    def _excuse(self, collection_hash: str, error: FlipsnackError) -> list[SeriesRow]:
        self._count_out(collection_hash)
        return _excuse(collection_hash, error)

    def _count_out(self, collection_hash: str) -> None:
        self._steps_left -= self._steps_of.pop(collection_hash, 0)
        self._answers_of.pop(collection_hash, None)

    async def _ask(self, collection_hash: str, span: Span) -> Kept:
        asked_at = now()
        stats = await self._job.account.get_stats(
            collection_hash, start_date=span.first, end_date=span.last
        )
        return Kept(stats, asked_at)


def rows_of_settled(run: Run, settled: Settled) -> list[SeriesRow]:
    """Make the rows of a collection that was settled: of its answers those that are steps."""
    if settled.error is not None:
        return _excuse(settled.collection_hash, settled.error)
    first, last = (date.fromisoformat(run.parameters[end]) for end in ("start_date", "end_date"))
    kept = {_span(one): one for one in settled.kept}
    steps = spans(first, last, run.parameters["step"])
    return [
        SeriesRow(settled.collection_hash, kept[step].stats, kept[step].is_inferred)
        for step in steps
    ]


def _excuse(collection_hash: str, error: FlipsnackError) -> list[SeriesRow]:
    return [SeriesRow(collection_hash, error=error)]


def _span(row: Kept | Resolved) -> Span:
    return Span(cast(date, row.stats.start_date), cast(date, row.stats.end_date))  # both are given
