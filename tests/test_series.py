"""Series that are kept: the vendor's own numbers for each step, and no call made twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from scripted import client, done, refused

from flipsnack_async import (
    ArchiveError,
    AuthenticationError,
    ClientClosedError,
    CollectionUnavailableError,
    Flipsnack,
    InvalidArgumentError,
    NoAnswerError,
    SeriesPlan,
    SeriesProgress,
    SeriesRow,
    _archive_job,
    _archive_series,
)
from flipsnack_async.archive import Archive
from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

JANUARY = ("2026-01-01", "2026-01-31")
COUNTERS = ("impressions", "views", "time_spent", "downloads", "likes", "shares")


async def gather(rows: Any) -> list[SeriesRow]:
    return [row async for row in rows]


async def series(path: Path, flipsnack: Flipsnack, *args: Any, **more: Any) -> list[SeriesRow]:
    async with Archive.open(path) as archive, archive.series(flipsnack, *args, **more) as rows:
        return await gather(rows)


async def kept(path: Path, run: int | None = None) -> list[SeriesRow]:
    async with Archive.open(path) as archive:
        return await gather(archive.series_rows(run))


async def planned(path: Path, flipsnack: Flipsnack, *args: Any, **more: Any) -> SeriesPlan:
    async with Archive.open(path) as archive, archive.series(flipsnack, *args, **more) as rows:
        return await rows.plan()


def asked(box: Sandbox, since: int = 0) -> list[tuple[str, str, str]]:
    """List what was answered: collection, first and last day."""
    return [
        (
            call.params["collectionHash"],
            call.params.get("startDate", ""),
            call.params.get("endDate", ""),
        )
        for call in box.ledger[since:]
        if call.action == "collection.getStats" and call.code == 20
    ]


def numbers(row: SeriesRow) -> Any:
    assert row.stats is not None
    counters = [getattr(row.stats, name) for name in COUNTERS]
    return row.collection_hash, row.stats.start_date, row.stats.end_date, counters


def in_order(box: Sandbox, rows: list[SeriesRow]) -> list[SeriesRow]:
    """Sort rows as they are read: by the listing, and then as they came."""
    return sorted(rows, key=lambda row: box.hashes.index(row.collection_hash))


@pytest.mark.parametrize(
    ("step", "end", "steps"), [("day", "2026-01-20", 20), ("week", "2026-03-03", 10)]
)
@pytest.mark.parametrize("exact", [False, True])
async def test_each_step_has_the_vendors_own_numbers(
    path: Path, step: Any, end: str, steps: int, exact: bool
) -> None:
    """
    What a series says of a step is what the vendor says, asked for just that.
    """
    box = Sandbox(collections=3, rates=())
    async with client(box, rates=()) as flipsnack:
        rows = await series(path, flipsnack, None, "2026-01-01", end, step=step, exact=exact)
        assert 3 * steps == len(rows)
        assert in_order(box, rows) == await kept(path)
        for row in rows:
            stats = row.stats
            assert stats is not None
            own = await flipsnack.collections.get_stats(
                row.collection_hash, start_date=stats.start_date, end_date=stats.end_date
            )
            assert numbers(SeriesRow(row.collection_hash, own)) == numbers(row)
    if exact:
        assert not any(row.is_inferred for row in rows)


async def test_a_month_is_a_step_too(path: Path) -> None:
    """
    Months are cut off where the range ends, and what nobody read is inferred from one call.
    """
    box = Sandbox(collections=1, rates=())
    async with client(box, rates=()) as flipsnack:
        rows = await series(path, flipsnack, None, "2012-01-15", "2014-01-14", step="month")

    assert 25 == len(rows)
    assert all(row.is_inferred for row in rows)
    assert 1 == len(asked(box))
    assert ["2012-01-15", "2014-01-14"] == [
        str(rows[0].stats and rows[0].stats.start_date),
        str(rows[-1].stats and rows[-1].stats.end_date),
    ]


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_series_goes_on_from_wherever_it_broke_off(path: Path) -> None:
    """
    However many answers there were, none of them is asked for again, and the rows are the same.
    """
    box = Sandbox(collections=2, rates=())
    # From before the flipbooks were there, so that something can be inferred.
    names, dates = box.hashes, ("2019-12-01", "2021-01-31")
    async with client(box, rates=()) as flipsnack:
        expected = await series(path, flipsnack, names, *dates, step="month", at_once=1)
        calls = len(asked(box))
        assert 2 < calls < 28 - 10
        for number in range(calls):
            box.ledger.clear()
            broken = path.with_name(f"{number}.db")
            with pytest.raises(AuthenticationError):
                await series_up_to(number, broken, box, names, *dates)
            assert number == len(asked(box))
            plan = await planned(broken, flipsnack, names, *dates, step="month", at_once=1)
            await series(broken, flipsnack, names, *dates, step="month", at_once=1)
            assert list(map(numbers, in_order(box, expected))) == list(
                map(numbers, await kept(broken))
            )
            assert {1} == set(Counter(asked(box)).values())
            assert plan.least_calls <= calls
            assert len(asked(box)) - number <= plan.most_calls


async def series_up_to(number: int, path: Path, box: Sandbox, *args: Any) -> None:
    """Break a series off after so many answers: the key is refused then."""

    class Refusing(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if len(asked(box)) == number:
                box.fail("collection.getStats", code=41)
            return await transport.handle_async_request(request)

    transport = box.transport()
    refusing = Flipsnack(box.api_key, box.api_secret, transport=Refusing(), rates=())
    async with refusing:
        await series(path, refusing, *args, step="month", at_once=1)


async def test_a_longer_range_asks_for_its_new_days(path: Path) -> None:
    """
    Of a range that is extended by a month only that month is asked for, of one that is not nothing.
    """
    box = Sandbox(collections=3, rates=())
    async with client(box, rates=()) as flipsnack:
        january = await series(path, flipsnack, box.hashes, *JANUARY)
        before = len(box.ledger)
        plan = await planned(path, flipsnack, box.hashes, "2026-01-01", "2026-02-28")
        both = await series(path, flipsnack, box.hashes, "2026-01-01", "2026-02-28")
        calls = asked(box, before)
        assert calls
        assert not [first for _, first, _ in calls if first < "2026-02-01"]
        assert (3, 3 * 59, 3 * 31) == (plan.collections, plan.steps, plan.steps_known)
        assert plan.least_calls <= len(calls) <= plan.most_calls

        before = len(box.ledger)
        again = await series(path, flipsnack, box.hashes, "2026-01-10", "2026-02-10")
        assert [] == asked(box, before)
        known = {numbers(row)[:3]: numbers(row) for row in both}
        assert {numbers(row)[:3]: numbers(row) for row in january}.items() <= known.items()
        assert {numbers(row)[:3]: numbers(row) for row in again}.items() <= known.items()


async def test_what_was_inferred_is_asked_for_when_it_has_to_be_exact(path: Path) -> None:
    """
    An exact series takes over what was asked for just so, and asks for all else.
    """
    box = Sandbox(collections=1, rates=())
    dates = ("2025-12-01", "2026-01-20")
    async with client(box, rates=()) as flipsnack:
        rough = await series(path, flipsnack, None, *dates)
        inferred = sum(row.is_inferred for row in rough)
        assert inferred
        before = len(box.ledger)
        exact = await series(path, flipsnack, None, *dates, exact=True)

    assert inferred == len(asked(box, before))
    assert not any(row.is_inferred for row in exact)
    assert list(map(numbers, rough)) == list(map(numbers, exact))
    assert exact == await kept(path)
    assert rough == await kept(path, 1)


@pytest.mark.parametrize("exact", [False, True])
async def test_the_plan_is_kept_to(path: Path, exact: bool) -> None:
    """
    Calls and time are within the bounds that were told before, and progress comes to nothing left.
    """
    box = Sandbox(collections=4)
    seen: list[SeriesProgress] = []
    async with client(box) as flipsnack, Archive.open(path) as archive:
        began = anyio.current_time()
        async with archive.series(
            flipsnack, box.hashes, *JANUARY, exact=exact, on_progress=seen.append
        ) as rows:
            plan = await rows.plan()
            assert plan == await rows.plan()
            found = await gather(rows)
        took = anyio.current_time() - began

    assert (4, 4 * 31, 0) == (plan.collections, plan.steps, plan.steps_known)
    assert plan.least_calls <= len(asked(box)) <= plan.most_calls
    assert (124 if exact else 130) == plan.most_calls
    assert plan.least_seconds <= took <= plan.most_seconds + 1
    assert 124 == len(found)
    assert 4 == len(seen)
    assert [31 * progress.done for progress in seen] == [progress.steps_done for progress in seen]
    left = [progress.most_calls_left or 0 for progress in seen]
    assert sorted(left, reverse=True) == left
    assert (4, 4, 0, 0) == (seen[-1].done, seen[-1].total, seen[-1].failed, left[-1])


async def test_one_that_is_gone_has_one_row(path: Path) -> None:
    """
    A flipbook that is deleted in the middle has its error in one row, and spoils no other one.
    """
    box = Sandbox(collections=3, rates=())
    victim = box.hashes[1]
    async with client(box, rates=()) as flipsnack, Archive.open(path) as archive:
        names = [*box.hashes]
        async with archive.series(flipsnack, names, *JANUARY, at_once=1) as rows:
            first = await anext(rows)
            box.remove(victim)
            found = [first, *await gather(rows)]
            progress = rows.progress
        (run,) = await archive.contents()
        again = await gather(archive.series_rows())

    (row,) = [row for row in found if row.collection_hash == victim]
    assert isinstance(row.error, CollectionUnavailableError)
    assert 2 * 31 + 1 == len(found) == len(again)
    assert (2, 0, 1, "complete") == (run.done, run.failed, run.gone, run.state)
    assert (3, 1, 62, 0) == (
        progress.done,
        progress.failed,
        progress.steps_done,
        progress.most_calls_left,
    )


async def test_what_fails_in_passing_keeps_its_answers(path: Path) -> None:
    """
    A flipbook whose calls break off is tried again when the others are through, from where it was.
    """
    box = Sandbox(collections=3, rates=())

    class Shaky(httpx.AsyncBaseTransport):
        calls = 0

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            self.calls += 1
            if self.calls in (4, 9):
                raise httpx.ReadError("broken off")
            return await transport.handle_async_request(request)

    transport, shaky = box.transport(), Shaky()
    async with Flipsnack(
        box.api_key, box.api_secret, transport=shaky, rates=(), attempts=1
    ) as flipsnack:
        rows = await series(path, flipsnack, box.hashes, *JANUARY, at_once=1)

    assert 3 * 31 == len(rows)
    assert {1} == set(Counter(asked(box)).values())
    assert shaky.calls == len(asked(box)) + 2


async def test_what_fails_for_good_spoils_no_other(path: Path) -> None:
    """
    A flipbook that fails three times in passing has one row; what is left counts it out.
    """
    box = Sandbox(collections=2, rates=())
    poison = box.hashes[0]

    class Poisoned(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if poison.encode() in request.extensions["target"]:
                raise httpx.ReadError("broken off")
            return await transport.handle_async_request(request)

    transport = box.transport()
    flipsnack = Flipsnack(box.api_key, box.api_secret, transport=Poisoned(), rates=(), attempts=1)
    async with flipsnack, Archive.open(path) as archive:
        async with archive.series(flipsnack, box.hashes, *JANUARY) as rows:
            found = await gather(rows)
            left = rows.progress.most_calls_left
        (run,) = await archive.contents()

    assert isinstance(found[-1].error, NoAnswerError)
    assert 31 + 1 == len(found)
    assert (1, 1, "partial", 0) == (run.done, run.failed, run.state, left)


async def test_the_plan_tells_why_there_is_none(path: Path) -> None:
    """
    Where the listing fails, so does the plan; outside the block there is none to wait for.
    """
    box = Sandbox(collections=3, rates=())
    async with client(box, rates=()) as flipsnack, Archive.open(path) as archive:
        box.fail("collection.getList", code=41)
        async with archive.series(flipsnack, None, *JANUARY) as rows:
            with pytest.raises(AuthenticationError):
                await rows.plan()
            with pytest.raises(AuthenticationError):
                await anext(rows)
        with pytest.raises(AuthenticationError):
            await rows.plan()
        with anyio.fail_after(1), pytest.raises(ClientClosedError, match="block"):
            await archive.series(flipsnack, None, *JANUARY).plan()

        rows = archive.series(flipsnack, None, *JANUARY)
        async with anyio.create_task_group() as tasks:

            async def wait() -> None:
                with pytest.raises(ClientClosedError, match="block"):
                    await rows.plan()

            async with rows:
                tasks.start_soon(wait)


async def test_a_plan_that_cannot_be_written_is_said(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    An archive that fails while the plan is made ends the series with what is wrong.
    """
    box = Sandbox(collections=3, rates=())

    def full(*_: object) -> None:
        raise ArchiveError(str(path), "cannot be written: the disk is full", "make room")

    async with client(box, rates=()) as flipsnack, Archive.open(path) as archive:
        monkeypatch.setattr(archive._file, "count_known_steps", full)
        async with archive.series(flipsnack, None, *JANUARY) as rows:
            for wait in (rows.plan, rows.__anext__):
                with pytest.raises(ArchiveError, match="disk is full"):
                    await wait()


@pytest.mark.parametrize(
    "change", [{"step": "week"}, {"exact": True}, {"refs": ["another"]}, {"end": "2026-02-01"}]
)
async def test_g8_an_unfinished_series_goes_first(path: Path, change: dict[str, Any]) -> None:
    """
    While a series is unfinished another one, or a harvest, is refused, and the file stays.
    """
    box = Sandbox(collections=5, rates=())
    given = {"refs": box.hashes, "end": "2026-01-31", **change}
    options = {name: value for name, value in given.items() if name not in {"refs", "end"}}
    async with client(box, rates=()) as flipsnack:
        async with Archive.open(path) as archive:
            async with archive.series(flipsnack, box.hashes, *JANUARY, at_once=1) as rows:
                await anext(rows)
            with pytest.raises(ArchiveError, match="unfinished series"):
                async with archive.harvest(flipsnack):
                    pass
        before = content(path)
        with pytest.raises(ArchiveError, match="unfinished series"):
            await series(path, flipsnack, given["refs"], "2026-01-01", given["end"], **options)

    assert before == content(path)


def content(path: Path) -> bytes:
    return path.read_bytes()


async def test_what_is_no_series_is_refused(path: Path) -> None:
    """
    Steps that there are not, and ranges without an end, are refused before anything is made.
    """
    box = Sandbox(collections=1)
    archive = Archive.open(path)
    async with client(box) as flipsnack:
        for dates, options, words in (
            (JANUARY, {"step": "hour"}, "step: give one of day, week, month$"),
            (("2026-01-01", None), {}, "start_date, end_date: give both$"),
            ((None, "2026-01-01"), {}, "start_date, end_date: give both$"),
            (("2026-02-01", "2026-01-01"), {}, "date: "),
            (JANUARY, {"at_once": 0}, "at_once: "),
            (JANUARY, {"exact": 1}, "exact: "),
            (JANUARY, {"on_progress": 1}, "on_progress: "),
        ):
            with pytest.raises(InvalidArgumentError, match=words):
                archive.series(flipsnack, None, *dates, **options)

    assert not content_or_nothing(path)


def content_or_nothing(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Set the wall clock to a day of January 2026."""

    def set_to(day: int) -> None:
        for room in (_archive_job, _archive_series):
            monkeypatch.setattr(room, "now", lambda: datetime(2026, 1, day, 12, tzinfo=UTC))

    return set_to


@pytest.mark.parametrize("after", [1, 2, 3, 4, 6, 9])
async def test_numbers_of_two_days_are_not_summed_up(
    path: Path, clock: Callable[[int], None], after: int
) -> None:
    """
    A series that goes on days later finds what its flipbook's last days have grown to.
    """
    today, views = 20, {date(2025, 12, 5): 2, date(2026, 1, 3): 1}

    async def answer(request: httpx.Request) -> httpx.Response:
        query = httpx.QueryParams(request.extensions["target"].partition(b"?")[2].decode())
        first, last = (date.fromisoformat(query[name]) for name in ("startDate", "endDate"))
        counted = dict(views) if today == 20 else {**views, date(2026, 1, 20): 7}
        seen = sum(number for day, number in counted.items() if first <= day <= last)
        data = {"impressions": seen, "views": seen, "time_spent": seen, "downloads": 0}
        return httpx.Response(200, json=done(**data))

    async def go(most: int) -> list[SeriesRow]:
        async with Flipsnack("k", "s", transport=counting(answer, most), rates=()) as flipsnack:
            async with Archive.open(path) as archive:
                range_ = ("2025-12-01", "2026-01-20")
                async with archive.series(flipsnack, ["fxh4k89"], *range_) as rows:
                    return [row async for row in rows]

    clock(today)
    with suppress(AuthenticationError):
        await go(after)
    today = 25
    clock(today)
    for _ in range(2):
        rows = await go(1000)
        assert {**views, date(2026, 1, 20): 7} == {
            row.stats.start_date: row.stats.views for row in rows if row.stats and row.stats.views
        }


async def test_a_step_that_may_have_grown_is_not_asked_for_again(
    path: Path, clock: Callable[[int], None]
) -> None:
    """
    A series that goes on days later keeps the steps it was told, final or not.
    """
    box = Sandbox(collections=1, rates=(), today=date(2026, 1, 20))
    range_ = ("2026-01-17", "2026-01-20")
    clock(20)
    cut_off = counting(box.transport().handle_async_request, 3)
    async with Flipsnack(box.api_key, box.api_secret, transport=cut_off, rates=()) as flipsnack:
        with pytest.raises(AuthenticationError):
            await series(path, flipsnack, box.hashes, *range_, exact=True)
    clock(24)
    async with client(box, rates=()) as flipsnack:
        rows = await series(path, flipsnack, box.hashes, *range_, exact=True)

    days = [date(2026, 1, day) for day in range(17, 21)]
    assert days == [row.stats.start_date for row in rows if row.stats]
    assert {1} == set(Counter(asked(box)).values())
    assert rows == await kept(path)


def counting(
    answer: Callable[[httpx.Request], Awaitable[httpx.Response]], most: int
) -> httpx.MockTransport:
    """Answer so many calls, and refuse the key then."""
    left = iter(range(most))

    async def answer_or_refuse(request: httpx.Request) -> httpx.Response:
        if next(left, None) is None:
            return httpx.Response(200, json=refused(41))
        return await answer(request)

    return httpx.MockTransport(answer_or_refuse)
