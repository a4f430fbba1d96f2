"""
The archive's tables, and how its file is made, opened and looked through. Blocks.

A file that is none of ours, or is damaged, or is in use elsewhere, is refused
before anything is written to it.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Final
from weakref import WeakSet

from .errors import ArchiveError

MAGIC: Final = b"SQLite format 3\0"
APPLICATION: Final = int.from_bytes(b"Flps")
OLDEST_SQLITE: Final = (3, 37, 0)  # the first that knows STRICT
BUSY: Final = 1.0  # seconds that a lock is waited for

HARVESTS: Final = (
    """
    CREATE TABLE runs (
        run INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,             -- harvest or series
        parameters TEXT NOT NULL,       -- JSON: what was asked for
        key_fingerprint TEXT NOT NULL,  -- of the API key, salted
        state TEXT NOT NULL,            -- listing, asking, complete or partial
        started_at TEXT NOT NULL,       -- times are in UTC
        written_at TEXT NOT NULL,
        calls INTEGER NOT NULL,         -- sent so far
        under_way INTEGER NOT NULL,     -- calls of which it is not known whether they were sent
        tokens BLOB NOT NULL,           -- when the last minute's calls ended: doubles, since 1970
        digest BLOB NOT NULL,           -- sum of the checksums of all rows of the run
        checksum BLOB NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE listing (              -- what a run is about
        run INTEGER NOT NULL,
        place INTEGER NOT NULL,
        collection_hash TEXT NOT NULL,
        known_since TEXT NOT NULL,      -- when it was asked about last before the run; '' for never
        outcome TEXT NOT NULL,          -- pending, done, failed or gone
        checksum BLOB NOT NULL,
        PRIMARY KEY (run, collection_hash)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE statistics (           -- answers, and what was concluded from answers
        id INTEGER PRIMARY KEY,
        run INTEGER NOT NULL,
        collection_hash TEXT NOT NULL,
        start_date TEXT,                -- as asked for, both ends included
        end_date TEXT,
        asked_at TEXT NOT NULL,
        is_inferred INTEGER NOT NULL,   -- 1: concluded from others, see archive.series
        has_pages INTEGER NOT NULL,     -- 1: each page's statistics were asked for
        impressions INTEGER,
        views INTEGER,
        time_spent ANY,                 -- seconds
        downloads INTEGER,
        likes INTEGER,
        shares INTEGER,
        page_count INTEGER,             -- rows of page_statistics; NULL where no pages came
        extra TEXT NOT NULL,            -- JSON: what the vendor sent beyond that
        checksum BLOB NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE page_statistics (
        statistics INTEGER NOT NULL,    -- statistics.id
        place INTEGER NOT NULL,         -- in the answer, from 0
        page INTEGER,                   -- as the vendor numbers it
        time_spent ANY,                 -- seconds
        clicks INTEGER,
        views INTEGER,
        extra TEXT NOT NULL,
        checksum BLOB NOT NULL,
        PRIMARY KEY (statistics, place)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE failures (
        run INTEGER NOT NULL,
        collection_hash TEXT NOT NULL,  -- '' where the list could not be read whole
        failed_at TEXT NOT NULL,
        kind TEXT NOT NULL,             -- the error's class
        code INTEGER,                   -- the vendor's status code
        message TEXT NOT NULL,
        facts TEXT NOT NULL,            -- JSON: what the error is made from
        checksum BLOB NOT NULL,
        PRIMARY KEY (run, collection_hash)
    ) STRICT, WITHOUT ROWID
    """,
    # Flipbooks that were deleted, or are somebody else's.
    "CREATE VIEW tombstones AS SELECT run, collection_hash, failed_at AS gone_at FROM failures"
    " WHERE code = 43",
    "CREATE UNIQUE INDEX listing_by_place ON listing (run, place)",
    "CREATE INDEX pending ON listing (run, known_since, place) WHERE outcome = 'pending'",
    "CREATE INDEX statistics_by_run ON statistics (run, collection_hash)",
    "CREATE INDEX statistics_by_collection ON statistics (collection_hash, asked_at)",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (HARVESTS,)
"""The statements that lead from each version of the schema to the next; the first one from none."""


class Database(sqlite3.Connection):
    """Know which file it has open: its device and its number there."""

    identity: tuple[int, int] | None = None

    def close(self) -> None:
        super().close()
        self.identity = None


_open: Final = WeakSet[Database]()
_turn: Final = Lock()


def connect(path: Path) -> Database:
    """Open an archive for nobody else, or make it; raises `ArchiveError`."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        needed = ".".join(map(str, OLDEST_SQLITE))
        raise ArchiveError(
            str(path), f"needs SQLite {needed}", f"this Python has {sqlite3.sqlite_version}"
        )
    with trouble(path):
        if not os.path.lexists(path):
            _make(path)
        with _turn:
            database = _connect(path)
        try:
            _look_through(path, database)
            _migrate(database)
        except BaseException:
            database.close()
            raise
    return database


@contextmanager
def trouble(path: Path) -> Iterator[None]:
    """Turn what the disk and SQLite raise into `ArchiveError`."""
    try:
        yield
    except sqlite3.Error as error:
        failure = _in_words(path, error)
    except UnicodeDecodeError:  # what SQLite says may hold bytes of the damaged file
        failure = damaged(path)
    except OSError as error:
        failure = ArchiveError(
            str(path),
            f"cannot be used: {error.strerror or 'disk error'}",
            "look at its folder and its permissions, or name another file",
        )
    else:
        return
    raise failure


def damaged(path: Path) -> ArchiveError:
    return ArchiveError(
        str(path),
        "is damaged",
        "nothing in it was changed; keep it or bring it back from a copy, and name another file",
    )


def _in_use(path: Path) -> ArchiveError:
    return ArchiveError(str(path), "is in use", "wait until whoever has it open is done")


def _in_words(path: Path, error: sqlite3.Error) -> ArchiveError:
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return _in_use(path)
        case sqlite3.SQLITE_FULL:
            problem, remedy = "cannot be written: the disk is full", "make room, and go on"
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN:
            problem = "cannot be written"
            remedy = "look at the disk, its room and the file's permissions, and go on"
        case _:
            return damaged(path)
    return ArchiveError(str(path), problem, remedy)


def _make(path: Path) -> None:
    """Make an empty archive, which is there whole or not at all."""
    neighbour = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.new")
    os.close(os.open(neighbour, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        database = sqlite3.connect(neighbour, isolation_level=None)
        try:
            database.execute(f"PRAGMA application_id = {APPLICATION}")
            database.execute("PRAGMA synchronous = FULL")
            _migrate(database)
        finally:
            database.close()
        with suppress(FileExistsError):  # somebody else was faster
            _take_name(neighbour, path)
    finally:
        with suppress(OSError):
            neighbour.unlink()


def _take_name(neighbour: Path, path: Path) -> None:
    try:
        os.link(neighbour, path)
    except FileExistsError:
        raise
    except OSError:  # not every disk has hard links
        if not path.exists():
            os.replace(neighbour, path)


def _check_head(path: Path) -> None:
    """Refuse what SQLite would take for empty, for another format, or for another's."""
    if not path.is_file():
        raise ArchiveError(str(path), "is no file", "name a file")
    with path.open("rb") as file:
        head = file.read(100)
    # Bytes 18 and 19 tell that there is no write-ahead log, which opening would begin to use.
    if len(head) < 100 or head[:16] != MAGIC or head[18:20] != b"\1\1":
        raise ArchiveError(str(path), "is no archive, or is damaged", "name another file")
    if int.from_bytes(head[68:72]) != APPLICATION:
        raise ArchiveError(str(path), "is a database, but no archive", "name another file")
    version = int.from_bytes(head[60:64])
    if version > len(MIGRATIONS):
        raise ArchiveError(
            str(path), "was made by a newer version of this library", "upgrade flipsnack-async"
        )
    if version == 0:
        raise damaged(path)


def _connect(path: Path) -> Database:
    status = path.stat()
    identity = (status.st_dev, status.st_ino)
    # Whoever closes a file gives up all locks that his process has on it, so that one which is
    # open here must not even be looked into.
    given_up_at = time.monotonic() + BUSY
    while any(database.identity == identity for database in _open):
        if time.monotonic() > given_up_at:
            raise _in_use(path)
        time.sleep(0.01)
    _check_head(path)
    # Threads take turns, see `ArchiveFile`.
    address = f"{path.absolute().as_uri()}?mode=rw"
    database = sqlite3.connect(
        address,
        uri=True,
        timeout=BUSY,
        isolation_level=None,
        check_same_thread=False,
        factory=Database,
    )
    try:
        for pragma in (
            "locking_mode = EXCLUSIVE",
            "synchronous = FULL",
            "cell_size_check = ON",
            "trusted_schema = OFF",
            "temp_store = FILE",
        ):
            database.execute(f"PRAGMA {pragma}")
        database.execute("BEGIN EXCLUSIVE")
        database.execute("COMMIT")  # in this mode the lock stays
    except BaseException:
        database.close()
        raise
    database.identity = identity
    _open.add(database)
    return database


def _look_through(path: Path, database: sqlite3.Connection) -> None:
    (verdict,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok" or _schema(database) != _schema_of(_version(database)):
        raise damaged(path)


def _version(database: sqlite3.Connection) -> int:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    return int(version)


def _schema(database: sqlite3.Connection) -> list[tuple[str, ...]]:
    return database.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"
    ).fetchall()


def _schema_of(version: int) -> list[tuple[str, ...]]:
    database = sqlite3.connect(":memory:", isolation_level=None)
    try:
        _migrate(database, version)
        return _schema(database)
    finally:
        database.close()


def _migrate(database: sqlite3.Connection, version: int | None = None) -> None:
    newest = len(MIGRATIONS) if version is None else version
    present = _version(database)
    if present < newest:
        database.execute("BEGIN IMMEDIATE")
        for statements in MIGRATIONS[present:newest]:
            for statement in statements:
                database.execute(statement)
        database.execute(f"PRAGMA user_version = {newest}")
        database.execute("COMMIT")
