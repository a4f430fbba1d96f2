"""The archive's file: what is opened and what is refused, who may have it, and what is in it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import client, done, refused

from flipsnack_async import (
    ArchiveError,
    ClientClosedError,
    CollectionStats,
    Flipsnack,
    FlipsnackError,
    HarvestRow,
    InvalidArgumentError,
    PageStats,
    _archive_rows,
    _archive_schema,
    errors,
)
from flipsnack_async._archive_file import ArchiveFile
from flipsnack_async._archive_rows import Kept, Run, Spent
from flipsnack_async.archive import Archive
from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 3, 1, tzinfo=UTC)
unprivileged = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="to root every file is open"
)


@pytest.fixture
def box() -> Sandbox:
    return Sandbox(collections=12, rates=())


async def gather(rows: Any) -> list[HarvestRow]:
    return [row async for row in rows]


async def harvest(path: Path, box: Sandbox, **options: Any) -> list[HarvestRow]:
    async with client(box, rates=()) as flipsnack, Archive.open(path) as archive:
        async with archive.harvest(flipsnack, **options) as rows:
            return await gather(rows)


async def kept(path: Path) -> list[HarvestRow]:
    async with Archive.open(path) as archive:
        return await gather(archive.rows())


def everything_in(folder: Path) -> dict[str, Any]:
    """Read a folder: what each file holds, where a link leads, and what else there is."""
    return {
        path.name: os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else "folder"
        for path in folder.iterdir()
    }


def put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link(path: Path, to: Path) -> None:
    path.unlink(missing_ok=True)
    to.parent.mkdir(exist_ok=True)
    path.symlink_to(to)


def sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement).fetchall()


def replace(path: Path, at: int, content: bytes) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + content + whole[at + len(content) :])


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


# --- what is opened

FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "no archive"),
    "text": (lambda path: path.write_text("collection,views\n" * 99, "utf-8"), "no archive"),
    "other": (lambda path: replace(path, 68, b"\0\0\0\1"), "a database, but no archive"),
    "newer": (lambda path: replace(path, 60, b"\0\0\0\x09"), "newer version"),
    "none": (lambda path: replace(path, 60, b"\0\0\0\0"), "damaged"),
    "log": (lambda path: sql(path, "PRAGMA journal_mode = WAL"), "no archive, or is damaged"),
    "folder": (put_folder, "no file"),
    "nowhere": (lambda path: link(path, path.with_name("nowhere")), "cannot be used"),
    "schema": (lambda path: sql(path, "CREATE TABLE more (id)"), "damaged"),
    "trigger": (
        lambda path: sql(
            path, "CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM listing; END"
        ),
        "damaged",
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
async def test_g8_what_is_no_archive_of_ours_is_refused(
    path: Path, box: Sandbox, kind: str
) -> None:
    """
    What is none of ours, or of a newer version, is refused in words, and stays as it is.
    """
    await harvest(path, box)
    spoil, problem = FOREIGN[kind]
    spoil(path)
    before, asked = everything_in(path.parent), len(box.ledger)
    with pytest.raises(ArchiveError, match=problem) as caught:
        await harvest(path, box)

    assert before == everything_in(path.parent)
    assert str(path) == caught.value.path
    assert caught.value.remedy
    assert asked == len(box.ledger)


async def test_where_there_is_no_folder_no_file_is_made(path: Path, box: Sandbox) -> None:
    """
    A path into nowhere is refused in words, and so is one that no system could have.
    """
    with pytest.raises(ArchiveError, match="look at its folder"):
        await harvest(path / "stats.db", box)
    for odd in ("a\0b", "\ud800", b"stats.db", None):
        with pytest.raises(InvalidArgumentError, match=r"^path: "):
            Archive.open(odd)  # type: ignore[arg-type]
    for nameless in ("", ".", "/"):
        with pytest.raises(InvalidArgumentError, match=r"^path: name a file$"):
            Archive.open(nameless)

    assert {} == everything_in(path.parent)


async def test_an_older_sqlite_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where SQLite is too old, the version that is needed is told, and no file is made.
    """
    monkeypatch.setattr(_archive_schema, "OLDEST_SQLITE", (99, 1, 0))
    with pytest.raises(ArchiveError) as caught:
        await kept(path)

    assert "needs SQLite 99.1.0" == caught.value.problem
    assert sqlite3.sqlite_version in caught.value.remedy
    assert {} == everything_in(path.parent)


@pytest.mark.parametrize(
    ("error", "problem", "remedy"),
    [
        (sqlite3.SQLITE_BUSY, "is in use", "wait until"),
        (sqlite3.SQLITE_LOCKED, "is in use", "wait until"),
        (sqlite3.SQLITE_FULL, "cannot be written: the disk is full", "make room"),
        (sqlite3.SQLITE_READONLY, "cannot be written", "permissions"),
        (sqlite3.SQLITE_CANTOPEN, "cannot be written", "permissions"),
        (sqlite3.SQLITE_IOERR, "cannot be written", "permissions"),
        (sqlite3.SQLITE_IOERR | 3 << 8, "cannot be written", "permissions"),
        (sqlite3.SQLITE_CORRUPT, "is damaged", "nothing in it was changed"),
        (None, "is damaged", "nothing in it was changed"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), "is damaged", "nothing in it"),
        (OSError(28, "No space left"), "cannot be used: No space left", "permissions"),
        (OSError(), "cannot be used: disk error", "permissions"),
    ],
)
def test_what_the_disk_says_is_put_in_words(
    path: Path, error: Any, problem: str, remedy: str
) -> None:
    """
    Whatever SQLite or the disk complains of comes with what to do about it.
    """
    if not isinstance(error, Exception):
        code, error = error, sqlite3.OperationalError("nobody reads this")
        if code is not None:
            error.sqlite_errorcode = code
    with pytest.raises(ArchiveError) as caught, _archive_schema.trouble(path):
        raise error

    assert (str(path), problem) == (caught.value.path, caught.value.problem)
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("error", [FileExistsError(), PermissionError()])
async def test_an_archive_that_somebody_else_makes_meanwhile_stays(
    path: Path, box: Sandbox, monkeypatch: pytest.MonkeyPatch, error: OSError, first: bool
) -> None:
    """
    Of two who make an archive at once the first one's stays, also on a disk without hard links.
    """
    other = path.with_name("other.db")
    await harvest(other, box)
    theirs = other.read_bytes()
    other.unlink()

    def link(*_: object) -> None:
        if first:
            path.write_bytes(theirs)
        raise error

    monkeypatch.setattr(os, "link", link)
    if first or isinstance(error, PermissionError):
        async with Archive.open(path) as archive:
            assert first == bool(await archive.contents())
    else:
        with pytest.raises(ArchiveError, match="cannot be used"):
            await kept(path)

    assert set(everything_in(path.parent)) <= {path.name}


@unprivileged
@pytest.mark.parametrize("folder", [False, True])
async def test_what_may_not_be_written_is_refused(path: Path, box: Sandbox, folder: bool) -> None:
    """
    An archive that is read-only, or lies in such a folder, is not harvested into.
    """
    await harvest(path, box)
    before = everything_in(path.parent)
    locked = path.parent if folder else path
    locked.chmod(0o500)
    try:
        with pytest.raises(ArchiveError, match="cannot be written"):
            await harvest(path, box)
        if folder:
            with pytest.raises(ArchiveError, match="permissions"):
                await harvest(path.with_name("other.db"), box)
    finally:
        locked.chmod(0o700)

    assert before == everything_in(path.parent)


async def test_a_link_leads_to_the_archive(path: Path, box: Sandbox) -> None:
    """
    Through a link the file it leads to is opened, with its journal beside it.
    """
    real = path.parent / "disk" / "real.db"
    link(path, real)
    with pytest.raises(ArchiveError):
        await harvest(path, box)
    await harvest(real, box)

    assert 12 == len(await kept(path))
    assert {"real.db"} == set(everything_in(real.parent))


@pytest.mark.parametrize(
    "name", ["ä ?#%41&mode=ro.db", "\U0001f4d6" * 60, "-x", "a\nb", ":memory:"]
)
async def test_whatever_the_file_is_called(path: Path, box: Sandbox, name: str) -> None:
    """
    No character of a name has a meaning, and a name may be as long as the disk allows.
    """
    await harvest(path.with_name(name), box)

    assert {name} == set(everything_in(path.parent))
    assert 12 == len(await kept(path.with_name(name)))


async def test_only_its_owner_can_read_it(path: Path, box: Sandbox) -> None:
    """
    Whatever the process allows for new files, the archive and its journal are closed to others.
    """
    before = os.umask(0)
    try:
        async with client(box, rates=()) as flipsnack, Archive.open(path) as archive:
            async with archive.harvest(flipsnack) as rows:
                await anext(rows)
                modes = {each.name: mode(each) for each in path.parent.iterdir()}
    finally:
        os.umask(before)

    assert {"stats.db": 0o600, "stats.db-journal": 0o600} == modes


async def test_g8_an_older_version_is_led_on(
    path: Path, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    An archive of an earlier version becomes one of the present version, and keeps its rows.
    """
    await harvest(path, box)
    old, before = everything_in(path.parent), await kept(path)
    versions = _archive_schema.MIGRATIONS
    more = ("CREATE TABLE notes (note TEXT) STRICT", "CREATE INDEX by_note ON notes (note)")
    monkeypatch.setattr(_archive_schema, "MIGRATIONS", (*versions, more))
    assert old == everything_in(path.parent)
    assert before == await kept(path)
    sql(path, "INSERT INTO notes VALUES ('here')")
    await harvest(path, box)
    assert len(before) == len(await kept(path))

    monkeypatch.setattr(_archive_schema, "MIGRATIONS", versions)
    new = everything_in(path.parent)
    with pytest.raises(ArchiveError, match="newer"):
        await kept(path)
    assert new == everything_in(path.parent)


async def test_g8_a_version_that_cannot_be_reached_changes_nothing(
    path: Path, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Where leading an archive on fails half-way, it is as it was.
    """
    await harvest(path, box)
    before = everything_in(path.parent)
    step = ("CREATE TABLE notes (note TEXT) STRICT", "DROP TABLE nothing")
    versions = _archive_schema.MIGRATIONS
    monkeypatch.setattr(_archive_schema, "MIGRATIONS", (*versions, step))
    with pytest.raises(ArchiveError):
        await kept(path)
    monkeypatch.setattr(_archive_schema, "MIGRATIONS", versions)

    assert 12 == len(await kept(path))
    assert before == everything_in(path.parent)


# --- whose it is

OTHER_PROCESS = """
import sys, anyio
from flipsnack_async import ArchiveError
from flipsnack_async.archive import Archive

async def main(path):
    try:
        async with Archive.open(path) as archive:
            print("open", len([row async for row in archive.rows()]), flush=True)
            sys.stdin.readline()
    except ArchiveError as error:
        print(error.problem, flush=True)

anyio.run(main, sys.argv[1])
"""


@pytest.fixture
def elsewhere(path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Open the archive in another process."""
    others: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        others.append(
            subprocess.Popen(  # noqa: S603  our own program
                [sys.executable, "-c", OTHER_PROCESS, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return others[-1]

    yield start
    for other in others:
        other.communicate(timeout=10)


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)  # processes are slow
async def test_g9_an_archive_is_open_once(
    path: Path,
    box: Sandbox,
    elsewhere: Callable[[], subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    While it is open nobody else can open it, in this process by whatever name, or in another one.
    """
    monkeypatch.setattr(_archive_schema, "BUSY", 0.01)
    await harvest(path, box)
    names = [path, path.with_name("link"), path.with_name("hard")]
    names[1].symlink_to(path)
    os.link(path, names[2])
    async with Archive.open(path) as archive:
        for name in names:
            with pytest.raises(ArchiveError, match="in use"):
                await kept(name)
        with pytest.raises(ArchiveError, match="in use"):
            async with archive:
                pass
        # Those who were refused here have not given the lock away.
        assert "is in use\n" == talk(elsewhere())
        assert 12 == len(await gather(archive.rows()))

    other = elsewhere()
    assert "open 12\n" == talk(other)
    with pytest.raises(ArchiveError, match="in use"):
        await kept(path)
    other.communicate("\n", timeout=10)
    assert 12 == len(await kept(path))


def talk(other: subprocess.Popen[str]) -> str:
    assert other.stdout is not None
    return other.stdout.readline()


async def test_one_harvest_at_a_time(path: Path, box: Sandbox) -> None:
    """
    An archive that is at work on a harvest takes no other one, and loses nothing by the attempt.
    """
    async with client(box, rates=()) as flipsnack, Archive.open(path) as archive:
        async with archive.harvest(flipsnack) as rows:
            await anext(rows)
            with pytest.raises(ArchiveError, match="at work on something else"):
                async with archive.harvest(flipsnack):
                    pass
            with pytest.raises(ArchiveError, match="at work on something else"):
                async with archive.series(flipsnack, None, "2026-01-01", "2026-01-02"):
                    pass
            # Reading is free meanwhile.
            found = 1 + len([row async for row in rows if await gather(archive.rows())])
        assert 12 == found
        async with archive.harvest(flipsnack) as rows:
            assert 12 == len(await gather(rows))


async def test_it_is_used_inside_its_block(path: Path, box: Sandbox) -> None:
    """
    Before and after the block everything is refused in words, and a harvest has one block only.
    """
    archive = Archive.open(path)
    async with client(box, rates=()) as flipsnack:
        rows = archive.harvest(flipsnack)
        with pytest.raises(ClientClosedError, match="block"):
            await anext(rows)
        for _ in range(2):
            for use in (archive.contents, lambda: gather(archive.rows()), rows.__aenter__):
                with pytest.raises((ArchiveError, ClientClosedError)) as caught:
                    await use()
                assert "block" in str(caught.value) or "async with" in str(caught.value)
            rows = archive.harvest(flipsnack)
            async with archive, rows:
                await anext(rows)
            with pytest.raises(ClientClosedError, match="block"):
                await anext(rows)


# --- the disk


async def test_g3_a_row_that_was_handed_out_is_on_the_disk(path: Path, box: Sandbox) -> None:
    """
    Each commit is waited for until it is on the disk, so what is cut off any moment has the row.
    """
    seen = set[str]()
    async with client(box, rates=()) as flipsnack, Archive.open(path) as archive:
        database = archive._file._database
        assert database is not None
        levels = {
            name: database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("synchronous", "journal_mode", "locking_mode")
        }
        async with archive.harvest(flipsnack) as rows:
            async for row in rows:
                seen.add(row.collection_hash)
                copies = path.with_name(f"cut-off-{len(seen)}")
                copies.mkdir()
                for name in (path.name, f"{path.name}-journal"):
                    shutil.copy(path.with_name(name), copies)
                assert seen <= {row.collection_hash for row in await kept(copies / path.name)}

    assert {"synchronous": 2, "journal_mode": "delete", "locking_mode": "exclusive"} == levels
    assert 12 == len(seen)


@pytest.mark.parametrize("room", [0, 1, 3])
async def test_g10_a_full_disk_ends_it_and_nothing_is_lost(path: Path, room: int) -> None:
    """
    When a row finds no room nothing more is asked; with room again, only what was under way is.
    """
    box = Sandbox(collections=30, rates=())
    await harvest(path, box, refs=box.hashes[:1])
    box.ledger.clear()
    async with client(box, rates=()) as flipsnack:
        async with Archive.open(path) as archive:
            database = archive._file._database
            assert database is not None
            (pages,) = database.execute("PRAGMA page_count").fetchone()
            database.execute(f"PRAGMA max_page_count = {pages + room}")
            with pytest.raises(ArchiveError, match="disk is full") as caught:
                async with archive.harvest(flipsnack, pages=True, at_once=4) as rows:
                    await gather(rows)
            assert "go on" in caught.value.remedy
            asked = len(box.ledger)
            await anyio.sleep(1000)
            assert asked == len(box.ledger)
            assert asked <= 2 + rows.progress.done + 4
            database.execute("PRAGMA max_page_count = 100000")
            async with archive.harvest(flipsnack, pages=True, at_once=4) as rows:
                await gather(rows)
        assert [*box.hashes] == [row.collection_hash for row in await kept(path)]

    assert len(box.ledger) <= 2 + 30 + 4


# --- what is in it


CANARY = ("CANARYKEY4711", "CANARYSECRET0815")


async def test_no_secret_is_in_it(path: Path) -> None:
    """
    Neither key nor secret nor any signature is in the file, its journal, an error or a repr.
    """
    signatures: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        target = request.extensions["target"].decode()
        query = httpx.QueryParams(target.partition("?")[2])
        signatures.append(query["signature"])
        name = query["collectionHash"]
        if name == "echo":  # servers may repeat the signed address
            return httpx.Response(200, json=refused(43, target[:180] + query["signature"]))
        if name == "wrong":
            return httpx.Response(200, json=done(views=query["signature"]))
        return httpx.Response(200, json=done(views=1))

    shown = ""
    async with Flipsnack(*CANARY, transport=httpx.MockTransport(answer), rates=()) as flipsnack:
        async with Archive.open(path) as archive:
            async with archive.harvest(flipsnack, ["fine", "echo", "wrong"]) as rows:
                shown += "".join([repr(row) + str(row.error) async for row in rows])
                shown += repr(rows) + repr(archive) + repr(rows.progress)
                files = b"".join(each.read_bytes() for each in path.parent.iterdir())
            shown += repr(await archive.contents()) + repr(await gather(archive.rows()))

    assert len(signatures) > 3
    for secret in (*CANARY, *signatures):
        assert secret.encode() not in files
        assert secret not in shown


# What a vendor can have sent: `_strict_json` lets nothing else through.
texts = st.text(st.characters(exclude_categories=["Cs"]))
wholes = st.none() | st.integers(-(2**63), 2**63 - 1)
numbers = wholes | st.floats(allow_nan=False, allow_infinity=False)
extras = st.dictionaries(
    texts,
    st.recursive(
        numbers | st.booleans() | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)
pages = st.builds(
    PageStats, page=wholes, time_spent=numbers, clicks=wholes, views=wholes, extra=extras
)
days = st.none() | st.dates()
statistics = st.builds(
    CollectionStats,
    collection_hash=texts,
    impressions=wholes,
    views=wholes,
    time_spent=numbers,
    downloads=wholes,
    likes=wholes,
    shares=wholes,
    pages=st.none() | st.lists(pages, max_size=3).map(tuple),
    start_date=days,
    end_date=days,
    extra=extras,
)
kinds = [
    kind for name in errors.__all__ if issubclass(kind := getattr(errors, name), errors.APIError)
]
failures = st.one_of(
    st.builds(lambda kind, *args: kind(*args), st.sampled_from(kinds), wholes, texts, texts),
    st.builds(
        lambda *args, moved_to: errors.CollectionUnavailableError(*args, moved_to=moved_to),
        st.sampled_from([43, 46]),
        texts,
        texts,
        moved_to=texts,
    ),
    st.builds(errors.InvalidAnswerError, texts, texts, field=texts, http_status=st.integers(0)),
    st.builds(errors.NoAnswerError, texts),
    st.builds(errors.ConnectionFailedError, texts),
    st.builds(errors.InvalidArgumentError, texts, texts),
    st.builds(
        errors.UploadOutcomeUnknownError,
        texts,
        texts,
        body_complete=st.booleans(),
        size=wholes,
        title=texts,
    ),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArchiveFile]:
    """Hold an archive open for many examples."""
    file = ArchiveFile(tmp_path_factory.mktemp("archive") / "stats.db")
    file.is_wanted = True
    file.open()
    yield file
    file.close()


def test_g15_what_is_settled_already_stays(file: ArchiveFile) -> None:
    """
    A thread whose caller was cancelled may write when somebody else has taken up the run.

    Of two answers the first one stays, and the digest counts what was written.
    """
    number = len(file.runs()) + 1
    file.begin(Run(number, "harvest", {"refs": "given"}, "00:00", "listing", NOW, NOW))
    file.want_nothing()
    file.want(["a", "b"])
    file.list_wanted(NOW)
    before = file.runs()[-1]
    first, second = (Kept(CollectionStats("a", views=views), NOW) for views in (1, 2))
    file.settle("a", [first], Spent(), NOW)
    file.take_up(before, Spent(7), NOW)
    file.settle("a", [second], Spent(8), NOW)
    file.settle("a", errors.NoAnswerError("no"), Spent(9), NOW)

    assert [(first,)] == [settled.kept for settled in file.settled(before, 0, 10)]
    assert {"done": 1, "pending": 1} == file.counts(before)
    file.check(before)
    assert (9, "asking") == (file.runs()[-1].spent.calls, file.runs()[-1].state)
    file.settle("b", [], Spent(), NOW)


def test_what_comes_too_late_opens_nothing(path: Path) -> None:
    """
    A thread that is to open the file when its caller is gone already leaves it alone.
    """
    file = ArchiveFile(path)
    file.is_wanted = True
    file.close()
    file.open()

    assert not path.exists()


def test_where_nothing_is_under_way_nothing_is_written(path: Path) -> None:
    """
    A file that is not open, or has no run under way, says so.
    """
    file = ArchiveFile(path)
    with pytest.raises(ArchiveError, match="is not open; use it inside"):
        file.runs()
    file.is_wanted = True
    file.open()
    try:
        for use in (lambda: file.note(Spent(), NOW), lambda: file.pending(("", 0), 1)):
            with pytest.raises(ArchiveError, match="has no run under way"):
                use()
        assert [] == file.runs()
    finally:
        file.close()


def test_g7_what_is_missing_is_noticed_where_it_is_met(file: ArchiveFile) -> None:
    """
    A run, a collection or a failure that is not there counts as damage, and nothing is written.
    """
    run = Run(len(file.runs()) + 1, "harvest", {}, "00:00", "listing", NOW, NOW)
    with pytest.raises(ArchiveError, match="is damaged"):
        file.check(run)
    file.begin(run)
    file.add(["a"], Spent(), NOW)
    before = file.runs()
    with pytest.raises(ArchiveError, match="is damaged"):
        file.settle("b", [], Spent(7), NOW)
    assert before == file.runs()

    file.settle("a", errors.NoAnswerError("no"), Spent(), NOW)
    file.check(run)
    assert file._database is not None
    file._database.execute("DELETE FROM failures WHERE run = ?", [run.number])
    for read in (lambda: file.settled(run, 0, 1), lambda: file.check(run)):
        with pytest.raises(ArchiveError, match="is damaged"):
            read()


def test_g7_a_row_is_believed_with_its_checksum_and_all_its_pages() -> None:
    """
    A row whose checksum is another one's, or whose pages are not all there, counts as damaged.
    """
    stats = CollectionStats("a", pages=(PageStats(page=1), PageStats(page=2)))
    row = _archive_rows.of_statistics(1, Kept(stats, NOW))
    pages = _archive_rows.of_pages(1, stats.pages or ())
    assert Kept(stats, NOW) == _archive_rows.to_kept(row, pages)
    for damaged in ((row, pages[:1]), (row, []), (row, [*pages, pages[0]]), (row[::-1], pages)):
        with pytest.raises(_archive_rows.DamageError):
            _archive_rows.to_kept(*damaged)


@pytest.mark.parametrize("kind", ["NotAnErrorError", "annotations", "Any", "__name__"])
def test_g7_a_failure_of_no_kind_counts_as_damaged(kind: str) -> None:
    """
    Nothing but an error of this library is made from what a file says.
    """
    row = _archive_rows.checked("failures", (1, "a", "2026", kind, None, "", "{}"))
    with pytest.raises(_archive_rows.DamageError):
        _archive_rows.to_error(row)


def through(file: ArchiveFile, name: str, result: list[Kept] | FlipsnackError) -> Any:
    """Write down what became of a collection, in a run of its own, and read it back."""
    number = len(file.runs()) + 1
    run = Run(number, "harvest", {"refs": "given"}, "00:00", "listing", NOW, NOW)
    file.begin(run)
    file.want_nothing()
    file.want([name])
    file.list_wanted(NOW)
    file.settle(name, result, Spent(1, (1.5,), 2), NOW)
    (found,) = file.settled(run, 0, 10)
    file.check(run)
    stored = file.runs()[-1]
    assert not stored.is_unfinished
    assert Spent(1, (1.5,), 0) == stored.spent
    return found


@settings(max_examples=40, deadline=None)
@given(statistics, st.booleans(), st.booleans())
def test_whatever_the_vendor_sends_comes_out_again(
    file: ArchiveFile, stats: CollectionStats, inferred: bool, has_pages: bool
) -> None:
    """
    Any number, text and extra is read as it was written, down to its type.
    """
    kept = Kept(stats, NOW, inferred, has_pages)
    found = through(file, stats.collection_hash, [kept])

    assert repr((kept,)) == repr(found.kept)
    assert stats.collection_hash == found.collection_hash


@settings(max_examples=40, deadline=None)
@given(failures, texts)
def test_whatever_went_wrong_comes_out_again(
    file: ArchiveFile, error: FlipsnackError, name: str
) -> None:
    """
    Any failure is read as it was written, with its class, its facts and its words.
    """
    found = through(file, name, error).error

    assert type(error) is type(found)
    assert (str(error), error.args, vars(error)) == (str(found), found.args, vars(found))
