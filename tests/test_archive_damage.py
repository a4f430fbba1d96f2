"""
Archives that were damaged: whatever is read is what was written, or `ArchiveError` is raised.

FLIPSNACK_TEST_DAMAGES says how many cases to try, for a thorough run.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TypeAlias

import httpx
import pytest
from conftest import Backend, on_the_loop, virtual_asyncio
from scripted import done, refused

from flipsnack_async import ArchiveError, Flipsnack, _blocking
from flipsnack_async.archive import Archive

pytestmark = pytest.mark.anyio

CASES: Final = int(os.environ.get("FLIPSNACK_TEST_DAMAGES", "1000"))
PAGE: Final = 4096
BOOKS: Final = [f"book{n}" for n in range(12)]
GONE, REFUSED = BOOKS[3], BOOKS[5]
JANUARY: Final[dict[str, Any]] = {"start_date": "2026-01-01", "end_date": "2026-01-31"}
FEBRUARY: Final[dict[str, Any]] = {"start_date": "2026-02-01", "end_date": "2026-02-10"}

Told: TypeAlias = dict[Any, Any]


@pytest.fixture
def anyio_backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    """One of the two: nothing here waits."""
    monkeypatch.setattr(_blocking, "off_the_loop", on_the_loop)
    return "asyncio", {"loop_factory": virtual_asyncio}


def vendor() -> Flipsnack:
    """Be a client of a vendor who has something of everything."""

    def answer(request: httpx.Request) -> httpx.Response:
        query = httpx.QueryParams(request.extensions["target"].partition(b"?")[2].decode())
        name, start = query["collectionHash"], query["startDate"]
        if name in {GONE, REFUSED}:
            return httpx.Response(200, json=refused(43 if name == GONE else 46, "no \x1b[31m"))
        views = len(start) * int(name[4:]) if int(start[-2:]) % 3 else 0
        stats: dict[str, Any] = {"impressions": views, "views": views, "time_spent": views / 7}
        if "includePageStats" in query:
            stats["pages"] = [
                {"page": page, "time_spent": page / 3, "clicks": page, "hovers": "\U0001f642"}
                for page in range(int(name[4:]))
            ]
            stats |= {"extra_of_theirs": {"nested": [None, True, 1.5, "\x00\u2028"]}}
        return httpx.Response(200, json=done(**stats))

    return Flipsnack("k", "s", transport=httpx.MockTransport(answer), rates=())


async def fill(path: Path) -> None:
    """Make an archive with something of everything, the last harvest of which was broken off."""
    async with vendor() as flipsnack, Archive.open(path) as archive:
        async with archive.harvest(flipsnack, BOOKS, pages=True, **JANUARY) as rows:
            assert len(BOOKS) == len([row async for row in rows])
        async with archive.series(flipsnack, BOOKS[:6], **FEBRUARY) as steps:
            assert [step async for step in steps]
        await go_on(archive, flipsnack, 8)


async def go_on(archive: Archive, flipsnack: Flipsnack, most: int = 100) -> None:
    options: dict[str, Any] = {"pages": True, **FEBRUARY}
    async with archive.harvest(flipsnack, BOOKS, at_once=1, **options) as rows:
        async for _ in rows:
            most -= 1
            if not most:
                break


def told(row: Any) -> Any:
    """Make a row comparable: an error is no other one's equal."""
    error = row.error
    return row.collection_hash, row.stats, type(error), str(error), error and vars(error)


async def read(archive: Archive, run: int) -> list[Any]:
    reading = archive.series_rows if run == 2 else archive.rows
    return [told(row) async for row in reading(run)]


async def everything(path: Path) -> Told:
    """Read an archive's contents and the rows of each run, or what is said instead of them."""
    found: Told = {}
    async with Archive.open(path) as archive:
        try:
            found["contents"] = await archive.contents()
        except ArchiveError as error:
            found["contents"] = error
        for run in (1, 2, 3):
            try:
                found[run] = await read(archive, run)
            except ArchiveError as error:
                found[run] = error
    return found


class Damage:
    """Do something to a file by chance."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311  no secret

    def __call__(self, content: bytes) -> tuple[str, bytes]:
        kind = self._chance.choices(
            [self._flip, self._cut, self._zero, self._swap], [70, 15, 5, 10]
        )[0]
        return kind(content)

    def _flip(self, content: bytes) -> tuple[str, bytes]:
        at, bit = self._chance.randrange(len(content)), self._chance.randrange(1, 256)
        if self._chance.random() < 0.1:  # where the file says what it is
            at %= 100
        flipped = bytes([content[at] ^ bit])
        return f"byte {at} flipped by {bit}", content[:at] + flipped + content[at + 1 :]

    def _cut(self, content: bytes) -> tuple[str, bytes]:
        end = self._chance.randrange(len(content))
        if self._chance.random() < 0.5:
            end -= end % PAGE
        return f"cut at {end}", content[:end]

    def _zero(self, content: bytes) -> tuple[str, bytes]:
        at = PAGE * self._chance.randrange(len(content) // PAGE)
        return f"page at {at} zeroed", content[:at] + bytes(PAGE) + content[at + PAGE :]

    def _swap(self, content: bytes) -> tuple[str, bytes]:
        pages = [content[at : at + PAGE] for at in range(0, len(content), PAGE)]
        a, b = self._chance.sample(range(len(pages)), 2)
        pages[a], pages[b] = pages[b], pages[a]
        return f"pages {a} and {b} swapped", b"".join(pages)


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def check(what: str, found: Told, expected: Told) -> int:
    """Compare what was read with what was written; count what was refused."""
    for name, value in found.items():
        assert isinstance(value, ArchiveError) or expected[name] == value, (what, name)
    return sum(isinstance(value, ArchiveError) for value in found.values())


async def test_g7_whatever_is_damaged_is_not_read(path: Path) -> None:
    """
    A file that was flipped, cut, zeroed or mixed up gives exact rows or ArchiveError, and stays.
    """
    await fill(path)
    content, expected = content_of(path), await everything(path)
    assert content == content_of(path)
    assert not check("nothing", expected, expected)
    counted = {"refused at once": 0, "refused when read": 0, "exact": 0}
    for seed in range(CASES):
        what, damaged = Damage(seed)(content)
        put(path, damaged)
        try:
            found = await everything(path)
        except ArchiveError:
            counted["refused at once"] += 1
        else:
            counted["refused when read" if check(what, found, expected) else "exact"] += 1
        assert damaged == content_of(path), what
        assert [path.name] == os.listdir(path.parent), what
    print(f"{len(content)} bytes: {counted}")

    assert all(counted.values())


async def test_g7_whoever_goes_on_with_damage_gets_right_rows(path: Path) -> None:
    """
    A harvest that goes on in a damaged file ends with exact rows or with ArchiveError.
    """
    await fill(path)
    content = content_of(path)
    async with vendor() as flipsnack, Archive.open(path) as archive:
        await go_on(archive, flipsnack)
    expected = await everything(path)
    del expected["contents"]  # which tells times
    outcomes = set[bool]()
    for seed in range(CASES, CASES + CASES // 20):
        what, damaged = Damage(seed)(content)
        put(path, damaged)
        try:
            async with vendor() as flipsnack, Archive.open(path) as archive:
                await go_on(archive, flipsnack)
            found = await everything(path)
        except ArchiveError:
            outcomes.add(False)
        else:
            del found["contents"]
            check(what, found, expected)
            outcomes.add(True)
        path.with_name(f"{path.name}-journal").unlink(missing_ok=True)

    assert {True, False} == outcomes


def rows_of(database: sqlite3.Connection, table: str) -> list[list[Any]]:
    return [list(row) for row in database.execute(f"SELECT * FROM {table}")]  # noqa: S608


def another(value: Any) -> Any:
    """Make something else of the same type."""
    match value:
        case None:
            return 0
        case str() if value.startswith(("{", "[")):
            return value[0] + " " + value[1:]
        case str():
            return value + "0"
        case bytes():
            return value[::-1] + b"\0"
    return value + 1000


async def test_g7_what_is_changed_by_hand_counts_as_damaged(path: Path) -> None:
    """
    No value of any row can be changed, and none of a run be taken out, without being noticed.
    """
    await fill(path)
    content, expected = content_of(path), await everything(path)
    tables = ("runs", "listing", "statistics", "page_statistics", "failures")
    for table in tables:
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            rows = rows_of(database, table)
            columns = [name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")]
        chance = random.Random(table)  # noqa: S311  no secret
        for column in [None, *columns] if table != "runs" else columns:
            put(path, content)
            row = chance.choice(rows)
            where = " AND ".join(f"{name} IS ?" for name in columns)
            with closing(sqlite3.connect(path, isolation_level=None)) as database:
                if column is None:
                    database.execute(f"DELETE FROM {table} WHERE {where}", row)  # noqa: S608
                else:
                    change = f"UPDATE {table} SET {column} = ? WHERE {where}"  # noqa: S608
                    database.execute(change, [another(row[columns.index(column)]), *row])
            try:
                refused = check(f"{table}.{column}", await everything(path), expected)
            except ArchiveError:
                continue
            # The number that a row of statistics goes by says nothing, unless it has pages.
            assert refused or column == "id", (table, column)


@pytest.fixture
def hot(path: Path) -> Callable[[], None]:
    """Put a file in the middle of a change, as a kill leaves it, with the journal beside it."""
    left: dict[Path, bytes] = {}
    journal = path.with_name(f"{path.name}-journal")

    def break_off() -> None:
        if not left:
            with closing(sqlite3.connect(path, isolation_level=None)) as database:
                database.execute("PRAGMA cache_size = 1")  # so that it is written at once
                database.execute("BEGIN")
                for change in (
                    "UPDATE statistics SET views = 4711, extra = extra || hex(randomblob(500))",
                    "UPDATE page_statistics SET clicks = 4711, extra = hex(randomblob(99))",
                    "DELETE FROM listing WHERE outcome = 'done'",
                    "UPDATE runs SET state = 'complete'",
                    "DELETE FROM failures",
                ):
                    database.execute(change)
                left.update({path: content_of(path), journal: content_of(journal)})
        for each, content in left.items():
            put(each, content)

    return break_off


async def test_g1_what_a_kill_left_half_written_is_undone(
    path: Path, hot: Callable[[], None]
) -> None:
    """
    Where a process was killed in the middle of writing, the file is read as it was before.
    """
    await fill(path)
    content, expected = content_of(path), await everything(path)
    hot()
    assert content != content_of(path)

    assert expected == await everything(path)
    assert expected == await everything(path)


async def test_g7_a_damaged_journal_does_no_harm(path: Path, hot: Callable[[], None]) -> None:
    """
    Where what is to be undone was damaged, or lost, rows are exact or ArchiveError is raised.
    """
    await fill(path)
    expected = await everything(path)
    journal = path.with_name(f"{path.name}-journal")
    outcomes = {"refused": 0, "exact": 0}
    for seed in range(CASES // 10):
        hot()
        what, damaged = Damage(seed)(content_of(journal))
        put(journal, damaged)
        if not seed:
            journal.unlink()
        try:
            found = await everything(path)
        except ArchiveError:
            outcomes["refused"] += 1
        else:
            outcomes["refused" if check(what, found, expected) else "exact"] += 1
    print(outcomes)

    assert all(outcomes.values())
