"""Harvests that are broken off and go on: listing, quota, failures that pass, and leaving."""

from __future__ import annotations

import gc
import shutil
import sqlite3
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest
from scripted import client, done, refused

from flipsnack_async import (
    ArchiveError,
    AuthenticationError,
    ClientClosedError,
    Flipsnack,
    HarvestRow,
    InvalidAnswerError,
    InvalidArgumentError,
    NoAnswerError,
    Rate,
    _archive_job,
    _core,
    _sharing,
)
from flipsnack_async import (
    archive as archive_module,
)
from flipsnack_async._sharing import Registry
from flipsnack_async.archive import Archive
from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

JANUARY: dict[str, Any] = {"start_date": "2026-01-01", "end_date": "2026-01-31"}


async def gather(rows: Any) -> list[HarvestRow]:
    return [row async for row in rows]


async def harvest(path: Path, flipsnack: Flipsnack, *args: Any, **more: Any) -> list[HarvestRow]:
    async with Archive.open(path) as archive, archive.harvest(flipsnack, *args, **more) as rows:
        return await gather(rows)


async def take(
    number: int, path: Path, flipsnack: Flipsnack, *args: Any, **more: Any
) -> list[HarvestRow]:
    """Leave a harvest after some rows."""
    async with Archive.open(path) as archive, archive.harvest(flipsnack, *args, **more) as rows:
        return [await anext(rows) for _ in range(number)]


async def kept(path: Path, run: int | None = None) -> list[HarvestRow]:
    async with Archive.open(path) as archive:
        return await gather(archive.rows(run))


async def newest(path: Path) -> Any:
    async with Archive.open(path) as archive:
        return (await archive.contents())[-1]


def names(rows: list[HarvestRow]) -> list[str]:
    return [row.collection_hash for row in rows]


def calls(box: Sandbox, action: str = "collection.getStats") -> list[str]:
    return [call.params.get("collectionHash", "") for call in box.ledger if call.action == action]


# --- the listing


async def leave_while_listing(path: Path, box: Sandbox, calls: int) -> None:
    """Leave a harvest in the middle of its listing."""
    async with client(box) as flipsnack, Archive.open(path) as archive:
        async with archive.harvest(flipsnack):
            while len(box.ledger) < calls:  # noqa: ASYNC110  as long as the vendor takes
                await anyio.sleep(0.02)
        assert "listing" == (await archive.contents())[-1].state


@pytest.mark.parametrize("breaks", [[3], [4, 9, 10]])
async def test_g4_a_listing_that_was_broken_off_goes_on(path: Path, breaks: list[int]) -> None:
    """
    What is left of the list is read from where it was left, at the cost of two pages a time.
    """
    box = Sandbox(collections=100, page_size=10, latency=0.05)
    async with client(box) as flipsnack:
        assert 100 == len([each async for each in flipsnack.collections.list()])
        undisturbed = len(box.ledger)
    box.ledger.clear()
    for number in breaks:
        await leave_while_listing(path, box, number)
    async with client(box) as flipsnack:
        await harvest(path, flipsnack)

    assert [*box.hashes] == names(await kept(path))
    assert len(calls(box, "collection.getList")) <= undisturbed + 2 * len(breaks)
    assert 100 == len(calls(box))


@pytest.mark.parametrize("removed", [[0, 1, 2, 40, 41], [29, 30, 31], [90]])
async def test_g4_what_is_removed_meanwhile_hides_nothing(path: Path, removed: list[int]) -> None:
    """
    When the list moved up while nobody read it, those that moved are found all the same.
    """
    box = Sandbox(collections=100, page_size=10, latency=0.05)
    await leave_while_listing(path, box, 4)
    for name in [box.hashes[place] for place in removed]:
        box.remove(name)
    async with client(box) as flipsnack:
        await harvest(path, flipsnack)
    found = names(await kept(path))

    assert set(box.hashes) <= set(found)
    assert len(found) == len(set(found))
    assert len(calls(box, "collection.getList")) <= 4 + 12


async def test_g4_what_is_added_meanwhile_repeats_nothing(path: Path) -> None:
    """
    When newer ones pushed the list down while nobody read it, none is listed twice or left out.
    """
    box = Sandbox(collections=60, page_size=10, latency=0.05)
    before = set(box.hashes)
    await leave_while_listing(path, box, 4)
    async with client(box) as flipsnack:
        for _ in range(3):
            await flipsnack.collections.create(b"%PDF-1.7", title="new")
        await harvest(path, flipsnack)
    found = names(await kept(path))

    assert before <= set(found)
    assert len(found) == len(set(found))


def listing(*items: dict[str, str]) -> httpx.MockTransport:
    """Be a vendor whose list is one page, and who has statistics of everything."""

    def answer(request: httpx.Request) -> httpx.Response:
        query = httpx.QueryParams(request.extensions["target"].partition(b"?")[2].decode())
        if query["action"] == "collection.getStats":
            return httpx.Response(200, json=done(views=1))
        page = [] if "from" in query else [*items]
        return httpx.Response(200, json=done(collections=page))

    return httpx.MockTransport(answer)


async def test_one_that_cannot_be_read_spares_the_others(path: Path) -> None:
    """
    A collection of the list that cannot be read is raised after all rows, and the run is over.
    """
    transport = listing({"collectionHash": "a"}, {"collectionTitle": "?"}, {"collectionHash": "c"})
    async with Flipsnack("k", "s", transport=transport, rates=()) as flipsnack:
        found = []
        async with Archive.open(path) as archive:
            with pytest.raises(InvalidAnswerError):
                async with archive.harvest(flipsnack) as rows:
                    async for row in rows:
                        found.append(row.collection_hash)

    assert {"a", "c"} == set(found)
    assert "partial" == (await newest(path)).state


async def test_a_page_that_cannot_be_read_ends_the_listing(path: Path) -> None:
    """
    Where a page of the list is none, the harvest ends with what is wrong, and goes on later.
    """
    pages = [[{"collectionHash": "a"}, {"collectionHash": "b"}], "no list", []]
    shown = iter(pages)

    def answer(request: httpx.Request) -> httpx.Response:
        if b"getStats" in request.extensions["target"]:
            return httpx.Response(200, json=done(views=1))
        return httpx.Response(200, json=done(collections=next(shown), collectionCount="3"))

    transport = httpx.MockTransport(answer)
    async with Flipsnack("k", "s", transport=transport, rates=()) as flipsnack:
        with pytest.raises(InvalidAnswerError, match=r"data\.collections: is no list"):
            await harvest(path, flipsnack)
        assert "listing" == (await newest(path)).state
        shown = iter([[{"collectionHash": "b"}], []])
        await harvest(path, flipsnack)

    assert ["a", "b"] == names(await kept(path))


async def test_a_hash_that_is_no_text_is_refused(path: Path) -> None:
    """
    A hash that no file can hold is refused by name before anything is begun.
    """
    box = Sandbox(collections=1)
    async with client(box) as flipsnack:
        with pytest.raises(InvalidArgumentError, match="refs: a hash holds half a surrogate pair"):
            await harvest(path, flipsnack, ["fxh4k89", "\ud83d"])
        async with Archive.open(path) as archive:
            assert () == await archive.contents()


async def test_refs_come_in_batches(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    However many refs go into a batch, all of them are harvested in their order.
    """
    monkeypatch.setattr(_archive_job, "BATCH", 2)
    box = Sandbox(collections=5, rates=())
    async with client(box, rates=()) as flipsnack:
        for number in (5, 4):
            await harvest(path, flipsnack, box.hashes[:number])
            assert [*box.hashes[:number]] == names(await kept(path))


async def test_g5_what_is_listed_twice_is_asked_once(path: Path) -> None:
    """
    A hash that comes twice, in the vendor's list or in the caller's, has one row.
    """
    a, b = {"collectionHash": "a"}, {"collectionHash": "b"}
    async with Flipsnack("k", "s", transport=listing(a, b, a, b, a), rates=()) as flipsnack:
        await harvest(path, flipsnack)
        assert ["a", "b"] == names(await kept(path))
        assert 2 == len(await harvest(path, flipsnack, ["b", "c", "b", "b", "c"]))
        assert ["b", "c"] == names(await kept(path))


async def test_g6_what_is_deleted_meanwhile_has_a_tombstone(path: Path) -> None:
    """
    A flipbook that is deleted during the harvest is gone, and no failure; since when is stored.
    """
    box = Sandbox(collections=10, rates=())
    victim = box.hashes[-1]
    async with client(box, rates=()) as flipsnack:
        await take(2, path, flipsnack, at_once=1)
        box.remove(victim)
        await harvest(path, flipsnack, at_once=1)
    run = await newest(path)
    with closing(sqlite3.connect(path)) as database:
        tombstones = database.execute("SELECT * FROM tombstones").fetchall()

    assert (9, 0, 1, "complete") == (run.done, run.failed, run.gone, run.state)
    assert [(1, victim)] == [row[:2] for row in tombstones]
    assert datetime.fromisoformat(tombstones[0][2]) <= run.written_at


async def test_an_account_without_collections_is_soon_done(path: Path) -> None:
    """
    Where nothing is listed nothing is asked, and the run is complete, as is one without refs.
    """
    box = Sandbox(collections=0)
    async with client(box) as flipsnack:
        assert [] == await harvest(path, flipsnack)
        assert "complete" == (await newest(path)).state
        assert [] == await harvest(path, flipsnack, [])
        assert "complete" == (await newest(path)).state

    assert [] == calls(box)


# --- days


async def test_g13_the_range_is_what_it_was_at_the_start(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A harvest that goes on the day after is of the days it began with, which were not final then.
    """
    clock = Clock(monkeypatch)
    box = Sandbox(collections=10, rates=(), today=clock.now().date() + timedelta(9))
    dates = {"start_date": "2026-01-01", "end_date": clock.now().date()}
    async with client(box, rates=()) as flipsnack:
        await take(4, path, flipsnack, **dates)
        clock.ahead += 86_400
        with pytest.raises(ArchiveError, match="end_date"):
            await harvest(path, flipsnack, **{**dates, "end_date": clock.now().date()})
        await harvest(path, flipsnack, **dates)
        rows = await kept(path)
        assert {dates["end_date"]} == {row.stats and row.stats.end_date for row in rows}
        assert 10 == len(rows) == len(set(names(rows)))

        before = len(calls(box))
        clock.ahead += 2 * 86_400
        await harvest(path, flipsnack, **dates)
        assert 10 == len(calls(box)) - before
        await harvest(path, flipsnack, **dates)
        assert 10 == len(calls(box)) - before


@pytest.mark.parametrize("end", ["9999-12-31", "9999-12-29", "0001-01-02"])
async def test_the_calendar_has_ends(path: Path, end: str) -> None:
    """
    The last days there are can be asked for, and are never final.
    """
    box = Sandbox(collections=2, rates=())
    async with client(box, rates=()) as flipsnack:
        for _ in range(2):
            await harvest(path, flipsnack, box.hashes, start_date="0001-01-01", end_date=end)

    assert len(calls(box)) == (2 if end < "2000" else 4)


# --- the quota


class Clock:
    """Be the wall clock, which goes as fast as the event loop's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 1_767_225_600.0  # New Year 2026
        monkeypatch.setattr(_archive_job, "now", self.now)
        monkeypatch.setattr(archive_module, "now", self.now)
        # By which a process remembers tokens from one event loop to the next.
        monkeypatch.setattr(_sharing, "time", SimpleNamespace(monotonic=anyio.current_time))

    def now(self) -> datetime:
        try:
            seconds = anyio.current_time()
        except anyio.NoEventLoopError:
            seconds = 0.0
        return datetime.fromtimestamp(self.ahead + seconds, UTC)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what this process knows of the quota."""
    monkeypatch.setattr(_core, "registry", Registry())


@pytest.mark.parametrize("pause", [0, 30])
@pytest.mark.parametrize("killed", [False, True])
async def test_another_process_starts_with_the_tokens_out(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, killed: bool, pause: float
) -> None:
    """
    Whoever goes on within a minute, after leaving or after a kill, is refused nothing.

    What is known to be spent is not taken to be more: the pace stays.
    """
    box = Sandbox(collections=110, latency=0.1, count_refused=True)
    lives = [path]

    def cut_off() -> None:
        """Keep what a kill at this moment would leave."""
        folder = path.with_name(f"life-{len(lives)}")
        folder.mkdir()
        for suffix in ("", "-journal"):
            shutil.copy(f"{lives[-1]}{suffix}", folder)
        lives.append(folder / path.name)

    async with client(box) as flipsnack, Archive.open(path) as archive:
        async with archive.harvest(flipsnack) as rows:
            for _ in range(45):
                await anext(rows)
            if killed:
                cut_off()
    for _ in range(2 * killed):  # again at once, before it could do anything
        in_another_process(monkeypatch)
        async with client(box) as flipsnack, Archive.open(lives[-1]) as archive:
            async with archive.harvest(flipsnack):
                cut_off()
    await anyio.sleep(pause)
    in_another_process(monkeypatch)
    began = anyio.current_time()
    async with client(box) as flipsnack:
        await harvest(lives[-1], flipsnack)

    assert {20} == {call.code for call in box.ledger}
    assert anyio.current_time() - began < 130


async def test_calls_under_way_are_taken_for_sent(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Of the calls that were sent since the last row was written nothing is known but their number.
    """
    rate = Rate(8, per=10.0)
    box = Sandbox(collections=20, latency=0.5, rates=[rate], count_refused=True)
    copy = path.with_name("cut-off.db")
    async with client(box, rates=(rate,)) as flipsnack, Archive.open(path) as archive:
        async with archive.harvest(flipsnack, box.hashes):
            await anyio.sleep(0.7)
            assert 8 == len(box.ledger)
            shutil.copy(path, copy)
    in_another_process(monkeypatch)
    async with client(box, rates=(rate,)) as flipsnack:
        await harvest(copy, flipsnack, box.hashes)

    assert {20} == {call.code for call in box.ledger}


@pytest.mark.parametrize("closes", [False, True])
async def test_the_same_process_counts_no_token_twice(
    path: Path, clock: Clock, closes: bool
) -> None:
    """
    Tokens that this process knows to be out are not taken out again by what the archive says.
    """
    box = Sandbox(collections=40, latency=0.4)
    flipsnack = client(box)
    async with Archive.open(path) as archive:
        async with archive.harvest(flipsnack) as rows:
            for _ in range(13):
                await anext(rows)
        free = flipsnack.quota.statistics().free
        assert min(free.values()) < 50
        if closes:
            await flipsnack.aclose()
            flipsnack = client(box)
        async with archive.harvest(flipsnack):
            assert free == flipsnack.quota.statistics().free
    await flipsnack.aclose()


@pytest.mark.parametrize("jump", [-3600, 3600])
@pytest.mark.parametrize("same_process", [False, True])
async def test_a_clock_that_jumps_does_no_harm(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, jump: float, same_process: bool
) -> None:
    """
    When the wall clock is set by an hour the harvest goes on, a minute later at the latest.

    Nobody is refused, unless another process was made to believe that an hour passed.
    """
    box = Sandbox(collections=80, latency=0.1, count_refused=True)
    async with client(box) as flipsnack:
        await take(30, path, flipsnack)
        clock.ahead += jump
        if not same_process:
            in_another_process(monkeypatch)
    began = anyio.current_time()
    async with client(box) as flipsnack:
        await harvest(path, flipsnack)

    assert [*box.hashes] == names(await kept(path))
    assert anyio.current_time() - began < 200
    if same_process or jump < 0:
        assert {20} == {call.code for call in box.ledger}


async def test_a_run_says_when_its_last_row_was_written(path: Path, clock: Clock) -> None:
    """
    The time is that of the last answer, in UTC, also of a collection that is not through yet.
    """
    box = Sandbox(collections=1, latency=1.0, rates=())
    async with client(box, rates=()) as flipsnack, Archive.open(path) as archive:
        began = clock.now()
        async with archive.series(flipsnack, box.hashes, "2026-01-01", "2026-01-03", exact=True):
            await anyio.sleep(2.5)
            (run,) = await archive.contents()

    assert (0, 1) == (run.done, run.pending)
    assert (began + timedelta(seconds=2), UTC) == (run.written_at, run.written_at.tzinfo)


# --- failures that may pass


class Poisoned(httpx.AsyncBaseTransport):
    """Break off the calls about some collections, and note when they came."""

    def __init__(self, box: Sandbox, is_broken: Callable[[str], bool]) -> None:
        self.asked: list[tuple[float, str]] = []
        self.is_broken = is_broken
        self._transport = box.transport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        query = httpx.QueryParams(request.extensions["target"].partition(b"?")[2].decode())
        name = query.get("collectionHash")
        await anyio.sleep(0.1)
        if name is not None:
            self.asked.append((anyio.current_time(), name))
            if self.is_broken(name):
                raise httpx.ReadError("broken off")
        return await self._transport.handle_async_request(request)

    def client(self, box: Sandbox) -> Flipsnack:
        return Flipsnack(box.api_key, box.api_secret, transport=self, rates=(), attempts=1)

    def times(self, name: str) -> list[float]:
        return [at for at, asked in self.asked if asked == name]


@pytest.mark.parametrize("at_once", [1, 8])
async def test_g16_one_poison_collection_is_put_off(path: Path, at_once: int) -> None:
    """
    A collection that fails in passing waits until all others are through, and is tried thrice.
    """
    box = Sandbox(collections=20, rates=())
    poison = box.hashes[0]
    vendor = Poisoned(box, lambda name: name == poison)
    async with vendor.client(box) as flipsnack:
        rows = await harvest(path, flipsnack, at_once=at_once)
    run = await newest(path)
    first, second, third = vendor.times(poison)

    assert poison == rows[-1].collection_hash
    assert isinstance(rows[-1].error, NoAnswerError)
    assert (19, 1, "partial") == (run.done, run.failed, run.state)
    last = max(at for at, name in vendor.asked[:-1] if name != poison)
    assert last - first < 10
    assert second > last
    assert 15 <= second - first < 40
    assert 150 <= third - second <= 301
    assert 22 + 1 == len(vendor.asked)  # another one is asked before this one is blamed


async def test_g16_what_passes_is_no_failure(path: Path) -> None:
    """
    A collection that answers the second time has its row like all others.
    """
    box = Sandbox(collections=20, rates=())
    vendor = Poisoned(box, lambda name: name in box.hashes[:5] and len(vendor.times(name)) == 1)
    async with vendor.client(box) as flipsnack:
        await harvest(path, flipsnack)

    assert "complete" == (await newest(path)).state
    assert 25 == len(vendor.asked)


@pytest.mark.parametrize("place", [0, 29])
@pytest.mark.parametrize("at_once", [1, 4])
async def test_g16_many_poison_collections_are_no_outage(
    path: Path, at_once: int, place: int
) -> None:
    """
    More of them than are asked about at once, one after the other, do not keep it from its end.
    """
    box = Sandbox(collections=40, rates=())
    poison = box.hashes[place : place + 10]
    vendor = Poisoned(box, lambda name: False)
    async with vendor.client(box) as flipsnack:
        await harvest(path, flipsnack, box.hashes[-1:])  # something that is known to work
        vendor.is_broken = lambda name: name in poison
        await harvest(path, flipsnack, box.hashes, at_once=at_once)
    run = await newest(path)

    assert (30, 10, "partial") == (run.done, run.failed, run.state)
    assert {3} == {len(vendor.times(name)) for name in poison}
    assert len(vendor.asked) < 1 + 30 + 30 + 30


@pytest.mark.parametrize("at_once", [1, 8])
@pytest.mark.parametrize("after", [0, 38])
async def test_an_outage_ends_it_and_blames_nobody(path: Path, at_once: int, after: int) -> None:
    """
    When nothing works for minutes the harvest ends with what is wrong, unfinished, and goes on.

    Meanwhile hardly a call is wasted.
    """
    box = Sandbox(collections=40, rates=())
    vendor = Poisoned(box, lambda name: len(vendor.asked) > after)
    began = anyio.current_time()
    async with vendor.client(box) as flipsnack:
        with pytest.raises(NoAnswerError):
            await harvest(path, flipsnack, at_once=at_once)
        run = await newest(path)
        assert (0, 0, "asking") == (run.failed, run.gone, run.state)
        assert after == run.done
        assert 150 < anyio.current_time() - began < 700
        assert len(vendor.asked) <= after + 3 * max(2, at_once) + 4
        vendor.is_broken = lambda name: False
        await harvest(path, flipsnack, at_once=at_once)

    assert "complete" == (await newest(path)).state
    assert [*box.hashes] == names(await kept(path))


@pytest.mark.parametrize(
    ("code", "state", "failed"), [(41, "asking", 0), (43, "partial", 3), (20, "partial", 3)]
)
async def test_an_outage_is_over_when_anything_is_answered(
    path: Path, code: int, state: str, failed: int
) -> None:
    """
    A refusal is an answer, too: it shows that others failed for themselves. Not so a wrong key.
    """
    asked = Counter[str]()

    def answer(request: httpx.Request) -> httpx.Response:
        query = httpx.QueryParams(request.extensions["target"].partition(b"?")[2].decode())
        name = query["collectionHash"]
        asked[name] += 1
        if name in {"b", "c", "d"}:
            raise httpx.ReadError("broken off")
        later = asked[name] > 1
        return httpx.Response(200, json=done(views=1) if code == 20 or not later else refused(code))

    vendor = Flipsnack("k", "s", transport=httpx.MockTransport(answer), rates=(), attempts=1)
    async with vendor as flipsnack:
        if code == 41:
            with pytest.raises(AuthenticationError):
                await harvest(path, flipsnack, [*"abcd"], at_once=1)
        else:
            await harvest(path, flipsnack, [*"abcd"], at_once=1)
    run = await newest(path)

    assert asked["a"] > 1
    assert (state, 1, failed) == (run.state, run.done, run.failed)


async def test_the_only_one_is_no_outage(path: Path) -> None:
    """
    A collection that fails three times has failed, where it is all there is.
    """
    box = Sandbox(collections=1, rates=())
    vendor = Poisoned(box, lambda name: True)
    async with vendor.client(box) as flipsnack:
        (row,) = await harvest(path, flipsnack)

    assert isinstance(row.error, NoAnswerError)
    assert 3 == len(vendor.asked)


async def test_a_short_outage_is_sat_out(path: Path) -> None:
    """
    When everything works again after half a minute, nobody has failed.
    """
    box = Sandbox(collections=100, rates=())
    vendor = Poisoned(box, lambda name: 2 < anyio.current_time() - began < 12)
    began = anyio.current_time()
    async with vendor.client(box) as flipsnack:
        assert 100 == len(await harvest(path, flipsnack, at_once=2))

    assert "complete" == (await newest(path)).state


async def test_a_client_that_is_closed_ends_it(path: Path) -> None:
    """
    Closing the client under a harvest blames no collection: it ends, and goes on with another one.
    """
    box = Sandbox(collections=20, rates=())
    async with Archive.open(path) as archive:
        flipsnack = client(box, rates=())
        with pytest.raises(ClientClosedError):
            async with archive.harvest(flipsnack, at_once=1) as rows:
                await anext(rows)
                await flipsnack.aclose()
                await gather(rows)
        assert "asking" == (await archive.contents())[-1].state
    async with client(box, rates=()) as flipsnack:
        await harvest(path, flipsnack)

    assert [*box.hashes] == names(await kept(path))
    assert "complete" == (await newest(path)).state


# --- leaving


async def test_g17_whoever_breaks_off_leaves_nothing_behind(path: Path) -> None:
    """
    After a break nobody waits for quota or is at work, and no warning comes at the end.
    """
    box = Sandbox(collections=40, latency=0.1)
    async with client(box) as flipsnack, Archive.open(path) as archive:
        async with archive.harvest(flipsnack) as rows:
            async for _ in rows:
                break
        reading = archive.rows()
        await anext(reading)
        del reading
        before = len(box.ledger)
        assert {0} == set(flipsnack.quota.statistics().waiting.values())
        await anyio.sleep(100)
        assert before == len(box.ledger)
    gc.collect()


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)])
async def test_what_the_body_raises_comes_out(path: Path, error: BaseException) -> None:
    """
    An error inside the block comes out as it is, in no group, and the rows before it are kept.
    """
    box = Sandbox(collections=20, rates=())
    async with client(box, rates=()) as flipsnack, Archive.open(path) as archive:
        with pytest.raises(type(error)) as caught:
            async with archive.harvest(flipsnack) as rows:
                taken = {(await anext(rows)).collection_hash, (await anext(rows)).collection_hash}
                raise error
        assert error is caught.value
        assert taken <= set(names(await gather(archive.rows())))
        async with archive.harvest(flipsnack) as rows:
            assert not taken & set(names(await gather(rows)))


async def test_what_the_callers_refs_raise_comes_out(path: Path) -> None:
    """
    When drawing the refs fails nothing was begun, and it is said as it is.
    """
    box = Sandbox(collections=5, rates=())

    async def refs() -> AsyncIterator[str]:
        yield box.hashes[0]
        raise ZeroDivisionError

    async with client(box, rates=()) as flipsnack:
        with pytest.raises(ZeroDivisionError):
            await harvest(path, flipsnack, refs())
        async with Archive.open(path) as archive:
            assert () == await archive.contents()
        assert 5 == len(await harvest(path, flipsnack))


async def test_however_often_it_is_cancelled_it_comes_to_its_end(path: Path) -> None:
    """
    A deadline may cut it off anywhere: no row is lost or comes twice, and few calls do.
    """
    box = Sandbox(collections=60, page_size=20, rates=(), latency=0.05)
    cuts, at_once, seen = 0, 4, set[str]()
    async with client(box, rates=()) as flipsnack:
        while True:
            with anyio.move_on_after(0.13 + 0.037 * (cuts % 10)) as scope:
                async with Archive.open(path) as archive:
                    async with archive.harvest(flipsnack, pages=True, at_once=at_once) as rows:
                        async for row in rows:
                            assert row.collection_hash not in seen
                            seen.add(row.collection_hash)
            if not scope.cancelled_caught:
                break
            cuts += 1
    counted = Counter(calls(box))

    assert cuts > 5
    assert [*box.hashes] == names(await kept(path))
    assert set(box.hashes) == set(counted)
    assert counted.total() - 60 <= at_once * cuts
    assert len(calls(box, "collection.getList")) <= 4 + 2 * cuts


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_refs_may_be_many(path: Path) -> None:
    """
    What is to be harvested is kept on the disk: thousands of refs take no memory.
    """
    box = Sandbox(collections=1, rates=())
    peaks = []

    async def refs(number: int) -> AsyncIterator[str]:
        for each in range(number):
            yield f"{path.stem}{each}"

    async with client(box, rates=()) as flipsnack:
        for number in (200, 5000):
            async with Archive.open(path.with_name(f"{number}.db")) as archive:
                tracemalloc.start()
                async with archive.harvest(flipsnack, refs(number)):
                    peaks.append(tracemalloc.get_traced_memory()[1])
                tracemalloc.stop()

    assert peaks[1] < peaks[0] + 300_000
