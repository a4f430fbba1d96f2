"""
Measure harvests and series that are kept in an archive: pace, memory, disk and calls.

    python benchmarks/harvest_archive.py [--flipbooks 10000] [--most 100000] [--series 5]
                                         [--latency 0.2] [--fast /dev/shm]

Pace: so many *flipbooks* by `archive.harvest`, and by `flipsnack.harvest`, which
keeps nothing, as in harvest_floor.py: before the in-process sandbox, in virtual
time, beside the least time that both limits allow for so many calls. The disk
takes no virtual time.

Memory: a tenth of *flipbooks*, and *most* of them, by refs from an asynchronous
generator and by the account's listing, unpaced, before a transport that remembers
nothing. Each harvest has a fresh process, and threads for the disk. Peak is the
most that was ever resident, for which a moment suffices: hashing the key for its
fingerprint takes 16 MB. Asking is the most at any row, when that is over.

Calls: the days of 2025 by `archive.series`, of which flipbooks are read on a share,
over those of one call a day: of all flipbooks together, and of the one that took
most. There are *series* flipbooks that are read daily, and more of the others,
which take fewer calls. Limit is the largest that calls so far and steps unresolved
ever were together, over the steps; a step that is asked for is taken to be
resolved. Vendors' counters add up, or leave out the last day of whatever is longer
than a day, or count who comes on several days once. Wrong are days for which a
call of their own would have brought other numbers.

Disk: rows a second of `ArchiveFile.settle`, without pages and with eight, on the
disk for temporary files and on the *fast* one. Beside it bare sqlite3, in turns:
INSERT and COMMIT of the same values into tables without indexes, the journal and
its syncs being the same. The quota lets one row a second come in.

Reading: the archive that the first table's harvest left, from the system's cache.
Opening it includes SQLite's check of the whole file, reading it that of each row.

All archives but that of the disk's own row lie on the *fast* disk: a folder in
memory, if the system has one. Pace, memory and calls are measured two at a time.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from math import sqrt
from pathlib import Path
from random import Random
from typing import Any, TypeAlias
from unittest.mock import patch
from urllib.parse import parse_qsl

import anyio
import attrs
import httpx
from harvest_floor import Result, harvest
from packages import virtually, without_threads
from upload_memory import resident, spawning

from flipsnack_async import CollectionStats, Flipsnack, PageStats, _archive_rows, _series
from flipsnack_async._archive_file import ArchiveFile
from flipsnack_async._archive_rows import Kept, Run, Spent
from flipsnack_async.archive import Archive
from flipsnack_async.sandbox import Sandbox

MEMORY = "/dev/shm"  # noqa: S108  a folder, in which only temporary ones are made
PAGE = 50  # collections in a page of the listing
TURN = 20  # rows that are written until it is the other's turn
SECONDS = 2.0  # for which both write together


def name(place: int) -> str:
    """Make a hash, all of them different and, as the vendor's, in no order."""
    return f"{place * 0x9E3779B1 % 2**32:08x}"


# --- pace


async def harvest_and_keep(flipbooks: int, latency: float, path: Path) -> Result:
    box = Sandbox(collections=flipbooks, latency=latency / 2, count_refused=True)
    async with (
        Flipsnack(box.api_key, box.api_secret, transport=box.transport()) as flipsnack,
        Archive.open(path) as archive,
    ):
        began = anyio.current_time()
        async with archive.harvest(flipsnack) as rows:
            good = [row async for row in rows if row.error is None]
        return Result(
            collections=flipbooks,
            rows=len(good),
            calls=len(box.ledger),
            refused=sum(call.code in (31, 32) for call in box.ledger),
            seconds=anyio.current_time() - began,
        )


def print_pace(flipbooks: int, latency: float, results: dict[str, Result]) -> None:
    print(f"pace: {flipbooks} flipbooks in virtual time, {latency:g} s of latency a call")
    print(f"{'':<20} {'rows':>6} {'calls':>6} {'refused':>8} {'floor s':>9} {'took s':>9} ", end="")
    print(f"{'ratio':>6}")
    for what, result in results.items():
        print(
            f"{what:<20} {result.rows:>6} {result.calls:>6} {result.refused:>8} "
            f"{result.floor:>9} {result.seconds:>9.1f} {result.floor / result.seconds:>6.3f}"
        )


# --- memory


@attrs.frozen
class Memory:
    """What a process had resident, in bytes."""

    peak: int
    asking: int
    calls: int
    seconds: float


def unpaced(answer: Callable[[dict[str, str]], dict[str, Any]]) -> Flipsnack:
    """Make a client of a vendor who answers at once, and has no limits."""

    def respond(request: httpx.Request) -> httpx.Response:
        _, _, query = request.extensions["target"].decode().partition("?")
        data = answer(dict(parse_qsl(query)))
        return httpx.Response(200, json={"code": 20, "status": "OK", "data": data})

    return Flipsnack("bench", "bench", transport=httpx.MockTransport(respond), rates=())


def peak() -> int:
    """Say how much was resident at the most; getrusage would count what the parent had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0


async def grow(flipbooks: int, is_listed: bool, folder: str) -> Memory:
    calls = asking = 0

    def answer(fields: dict[str, str]) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if fields["action"] == "collection.getStats":
            return {"impressions": 2945, "views": 3719, "time_spent": 154, "downloads": 28}
        first = int(fields.get("from", 0))
        places = range(first, min(first + PAGE, flipbooks))
        listed = [{"collectionHash": name(place), "collectionTitle": "T"} for place in places]
        return {"collectionCount": flipbooks, "collections": listed}

    async def refs() -> AsyncIterator[str]:
        for place in range(flipbooks):
            yield name(place)

    began = time.perf_counter()
    async with (
        unpaced(answer) as flipsnack,
        Archive.open(Path(folder) / f"{flipbooks} {is_listed}.db") as archive,
        archive.harvest(flipsnack, None if is_listed else refs()) as rows,
    ):
        async for row in rows:
            if row.error is not None:
                raise row.error
            asking = max(asking, resident())
    return Memory(peak(), asking, calls, time.perf_counter() - began)


def grown(flipbooks: int, is_listed: bool, folder: str) -> Memory:
    return anyio.run(grow, flipbooks, is_listed, folder)


def print_memory(results: dict[tuple[str, int], Memory]) -> None:
    print("\nmemory: most that is resident, by who names the flipbooks")
    print(f"{'':<10} {'flipbooks':>9} {'calls':>7} {'peak MB':>8} {'asking MB':>10} {'real s':>7}")
    for (what, flipbooks), result in results.items():
        print(
            f"{what:<10} {flipbooks:>9} {result.calls:>7} {result.peak / 1e6:>8.1f} "
            f"{result.asking / 1e6:>10.1f} {result.seconds:>7.1f}"
        )


# --- calls


Day: TypeAlias = tuple[int, int, int, int]

START = date(2025, 1, 1)
DAYS = 365
COUNTERS = ("impressions", "views", "time_spent", "downloads")
UNREAD: Day = (0, 0, 0, 0)


def sums(days: Sequence[Day]) -> list[int]:
    return [sum(column) for column in zip(*days, strict=True)]


VENDORS: dict[str, Callable[[Sequence[Day]], list[int]]] = {
    "adds up": sums,
    "leaves out last day": lambda days: sums(days[:-1] or days),
    "counts a reader once": lambda days: [max(column) for column in zip(*days, strict=True)],
}
SCATTERED, STRETCH = "scattered", "one stretch"
READ = [*((share, how) for share in (0.01, 0.1, 0.5) for how in (SCATTERED, STRETCH)), (1.0, "all")]


def year(dice: Random, share: float, how: str) -> list[Day]:
    """Draw a flipbook's readers for each day."""
    number = round(share * DAYS)
    first = dice.randrange(DAYS - number + 1)
    read = dice.sample(range(DAYS), number) if how == SCATTERED else range(first, first + number)
    days = [UNREAD] * DAYS
    for day in read:
        views = dice.randint(1, 50)
        days[day] = (views + dice.randint(0, 50), views, views * dice.randint(5, 90), views // 20)
    return days


@attrs.frozen
class Series:
    """What a series came to."""

    calls: list[int]  # of each flipbook
    most: int  # calls and unresolved steps together
    wrong: int


async def ask_for_a_year(vendor: str, share: float, how: str, daily: int, folder: str) -> Series:
    number = round(daily / sqrt(share))
    dice = Random(f"{share} {how}")
    flipbooks = {name(place): year(dice, share, how) for place in range(number)}
    count = VENDORS[vendor]
    calls = Counter[str]()
    asked: dict[str, tuple[int, int]] = {}  # each flipbook's last range
    begun: dict[str, Watched] = {}
    most = 0

    class Watched(_series._Flipbook):
        def __init__(self, collection_hash: str, *args: Any, **options: Any) -> None:
            super().__init__(collection_hash, *args, **options)
            begun[collection_hash] = self

    def unresolved() -> int:
        steps = DAYS * (number - len(begun)) + sum(f.rows.count(None) for f in begun.values())
        return steps - sum(
            first == last and begun[flipbook].rows[first] is None
            for flipbook, (first, last) in asked.items()
        )

    def answer(fields: dict[str, str]) -> dict[str, Any]:
        nonlocal most
        flipbook = fields["collectionHash"]
        first, last = (
            (date.fromisoformat(fields[end]) - START).days for end in ("startDate", "endDate")
        )
        calls[flipbook] += 1
        asked[flipbook] = first, last
        most = max(most, calls.total() + unresolved())
        return dict(zip(COUNTERS, count(flipbooks[flipbook][first : last + 1]), strict=True))

    wrong = 0
    async with (
        unpaced(answer) as flipsnack,
        Archive.open(Path(folder) / f"{vendor} {share} {how}.db") as archive,
    ):
        with patch.object(_series, "_Flipbook", Watched):
            end = START + timedelta(DAYS - 1)
            async with archive.series(flipsnack, list(flipbooks), START, end) as rows:
                async for row in rows:
                    if row.stats is None or row.stats.start_date is None:
                        raise row.error or RuntimeError("a row without a day")
                    day = flipbooks[row.collection_hash][(row.stats.start_date - START).days]
                    wrong += [getattr(row.stats, counter) for counter in COUNTERS] != count([day])
    return Series([calls[flipbook] for flipbook in flipbooks], most, wrong)


def on_the_loop(measure: Callable[..., Awaitable[Any]], *args: object) -> Any:
    """Measure what threads would only slow down."""
    with without_threads():
        return anyio.run(measure, *args)


def print_calls(results: dict[tuple[str, float, str], Series]) -> None:
    print(f"\ncalls: series of {DAYS} days, over one call a day")
    print(f"{'vendor':<21} {'days read':>9} {'':<12} {'flipbooks':>9} ", end="")
    print(f"{'all':>7} {'worst':>7} {'limit':>7} {'wrong':>6}")
    for (vendor, share, how), result in results.items():
        steps = len(result.calls) * DAYS
        print(
            f"{vendor:<21} {share:>9.0%} {how:<12} {len(result.calls):>9} "
            f"{sum(result.calls) / steps:>7.1%} "
            f"{max(result.calls) / DAYS:>7.1%} {result.most / steps:>7.2%} {result.wrong:>6}"
        )


# --- disk

NOW = datetime(2026, 1, 1, tzinfo=UTC)
# As it is in the midst of a harvest: the last minute's calls, and eight under way.
SPENT = Spent(10_000, tuple(NOW.timestamp() - second for second in range(60)), 8)


def statistics(collection_hash: str, pages: int) -> Kept:
    numbers = tuple(PageStats(page, 9.5, 3, 120) for page in range(1, pages + 1))
    stats = CollectionStats(collection_hash, 2945, 3719, 154, 28, pages=numbers if pages else None)
    return Kept(stats, NOW, has_pages=bool(pages))


def archived(path: Path, rows: Sequence[Kept]) -> Iterator[None]:
    file = ArchiveFile(path)
    file.is_wanted = True
    file.open()
    file.begin(Run(1, "harvest", {"refs": "all"}, "bench", "listing", NOW, NOW))
    file.add([kept.stats.collection_hash for kept in rows], SPENT, NOW)
    file.listed(NOW)
    for kept in rows:
        file.settle(kept.stats.collection_hash, [kept], SPENT, NOW)
        yield
    file.close()


def bare(path: Path, rows: Sequence[Kept]) -> Iterator[None]:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("PRAGMA synchronous = FULL")
    tables = {"statistics": _archive_rows.STATISTICS, "pages": _archive_rows.PAGE_STATISTICS}
    inserts = []
    for table, columns in tables.items():
        database.execute(f"CREATE TABLE {table} ({', '.join(columns)}, checksum)")
        marks = ", ".join("?" * (len(columns) + 1))
        inserts.append(f"INSERT INTO {table} VALUES ({marks})")  # noqa: S608  names of ours
    ready = [
        (_archive_rows.of_statistics(1, kept), _archive_rows.of_pages(1, kept.stats.pages or ()))
        for kept in rows
    ]
    for row, pages in ready:
        database.execute("BEGIN")
        database.execute(inserts[0], row)
        database.executemany(inserts[1], pages)
        database.execute("COMMIT")
        yield
    database.close()


def write(folder: str, pages: int, number: int) -> list[float]:
    """Say how many rows a second the archive takes, and bare sqlite3."""
    rows = [statistics(name(place), pages) for place in range(number)]
    writers = [archived(Path(folder) / "ours", rows), bare(Path(folder) / "bare", rows)]
    written, spent = 0, [0.0, 0.0]
    for writer in writers:
        next(writer)
    while sum(spent) < SECONDS and written + TURN < number:
        written += TURN
        for place, writer in enumerate(writers):
            began = time.perf_counter()
            for _ in range(TURN):
                next(writer)
            spent[place] += time.perf_counter() - began
    return [written / seconds for seconds in spent]


def print_disk(flipbooks: int, fast: str | None) -> None:
    print(f"\ndisk: rows a second into a listing of {flipbooks}")
    print(f"{'':<28} {'archive':>8} {'bare':>8} {'ratio':>6}")
    disks = {"temporary files": None} | ({"fast": fast} if fast else {})
    for disk, folder in disks.items():
        for pages in (0, 8):
            with tempfile.TemporaryDirectory(dir=folder) as own:
                ours, theirs = write(own, pages, flipbooks)
            what = f"{disk}, {pages} pages" if pages else disk
            print(f"{what:<28} {ours:>8.0f} {theirs:>8.0f} {ours / theirs:>6.2f}")


# --- reading


async def read(path: Path) -> tuple[int, list[float]]:
    """Say how many rows there are, and how many seconds each thing took."""
    times = [time.perf_counter()]
    async with Archive.open(path) as archive:
        times.append(time.perf_counter())
        await archive.contents()
        times.append(time.perf_counter())
        rows = [row async for row in archive.rows()]
        times.append(time.perf_counter())
    return len(rows), [late - early for early, late in pairwise(times)]


def print_reading(path: Path) -> None:
    rows, (opening, contents, reading) = anyio.run(read, path)
    print(f"\nreading: an archive of {rows} rows, {path.stat().st_size / 1e6:.1f} MB")
    print(f"open {opening:.3f} s, contents {contents:.3f} s, rows {reading:.3f} s")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    arguments.add_argument("--flipbooks", type=int, default=10_000)
    arguments.add_argument("--most", type=int, default=100_000)
    arguments.add_argument("--series", type=int, default=5)
    arguments.add_argument("--latency", type=float, default=0.2)
    arguments.add_argument("--fast", default=MEMORY if os.access(MEMORY, os.W_OK) else None)
    given = arguments.parse_args()

    print(
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"{os.cpu_count()} CPUs, archives in {given.fast or tempfile.gettempdir()}\n"
    )
    with tempfile.TemporaryDirectory(dir=given.fast) as folder:
        path = Path(folder) / "harvest.db"
        few = given.flipbooks // 10
        # Each task has a process of its own.
        with ProcessPoolExecutor(2, mp_context=spawning, max_tasks_per_child=1) as processes:
            start = processes.submit
            memory: dict[tuple[str, int], Future[Memory]] = {
                (what, size): start(grown, size, is_listed, folder)
                for size in (given.most, few)
                for what, is_listed in (("generator", False), ("listing", True))
            }
            pace = {
                "archive.harvest": start(
                    virtually, harvest_and_keep, given.flipbooks, given.latency, path
                ),
                "flipsnack.harvest": start(
                    virtually, harvest, given.flipbooks, given.latency, "sliding"
                ),
            }
            calls: dict[tuple[str, float, str], Future[Series]] = {
                (vendor, share, how): start(
                    on_the_loop, ask_for_a_year, vendor, share, how, given.series, folder
                )
                for vendor in VENDORS
                for share, how in READ
            }
        print_pace(
            given.flipbooks, given.latency, {what: pace[what].result() for what in reversed(pace)}
        )
        print_memory({what: memory[what].result() for what in sorted(memory)})
        print_calls({what: calls[what].result() for what in calls})
        print_disk(given.flipbooks, given.fast)
        print_reading(path)


if __name__ == "__main__":
    main()
