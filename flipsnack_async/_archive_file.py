"""What an archive writes and reads, one transaction each. Blocks, and may be called by threads."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from threading import Lock
from typing import Any, Final

import attrs

from . import _archive_rows as rows
from ._archive_rows import CLOSING_DAYS, DamageError, Kept, Outcome, Run, Spent
from ._archive_schema import connect, damaged, trouble
from .errors import ArchiveError, FlipsnackError

LISTING: Final = ""  # in the place of a hash: what failed is the listing

_STATISTICS: Final = ", ".join((*rows.STATISTICS, "checksum"))
_PAGES: Final = ", ".join((*rows.PAGE_STATISTICS, "checksum"))
_FAILURES: Final = ", ".join((*rows.FAILURES, "checksum"))
_LISTING: Final = ", ".join((*rows.LISTING, "checksum"))
_RUNS: Final = ", ".join((*rows.RUNS, "checksum"))
_OF_A_RUN: Final = (
    ("listing", _LISTING),
    ("statistics", _STATISTICS),
    ("failures", _FAILURES),
)
_IS_FINAL: Final = f"asked_at >= date(end_date, '+{CLOSING_DAYS} days')"
_IS_KNOWN: Final = (
    "start_date IS ? AND end_date IS ? AND has_pages >= ? AND NOT is_inferred"
    f" AND asked_at >= date(?, '+{CLOSING_DAYS} days')"
)


@attrs.frozen
class Settled:
    """Hold what became of one collection of a run."""

    place: int
    collection_hash: str
    kept: tuple[Kept, ...] = ()
    error: FlipsnackError | None = None


class Draft:
    """Hold a transaction, and the run as it will be once that is through."""

    def __init__(self, database: sqlite3.Connection, run: Run) -> None:
        self.database = database
        self.run = run

    def update(self, **changes: Any) -> None:
        self.run = attrs.evolve(self.run, **changes)

    def count(self, *rows_in: Sequence[Any], minus: Iterable[Sequence[Any]] = ()) -> None:
        self.update(digest=rows.plus(self.run.digest, *rows_in, minus=minus))


class ArchiveFile:
    """
    Hold the file open, for nobody else, and the run that is under way.

    What a run looks like is read anew before it is changed: a thread whose
    caller was cancelled may have changed it meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run: Run | None = None
        self.is_wanted: bool = False  # open
        self.is_taken: bool = False  # by whoever works on a run
        self._database: sqlite3.Connection | None = None
        # A thread whose caller was cancelled may still be at work when the next one comes.
        self._turn = Lock()

    def open(self) -> None:
        with self._turn:
            if self.is_wanted:
                self._database = connect(self.path)

    def close(self) -> None:
        with self._turn:
            self.is_wanted = False
            database, self._database = self._database, None
            if database is not None:
                database.close()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._turn, trouble(self.path):
            if self._database is None:
                raise ArchiveError(str(self.path), "is not open", "use it inside `async with`")
            try:
                yield self._database
            except (DamageError, ValueError, TypeError, KeyError):
                failure = damaged(self.path)
            else:
                return
            raise failure

    @contextmanager
    def _writing(self, run: Run | None = None) -> Iterator[Draft]:
        """Change the run that is under way, or begin another one."""
        with self._reading() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                draft = Draft(database, run or _stored(database, self.under_way))
                yield draft
                row = rows.of_run(draft.run)
                database.execute(f"REPLACE INTO runs VALUES ({_marks(row)})", row)
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:  # some errors have rolled it back already
                    database.execute("ROLLBACK")
                raise
            self.run = draft.run

    @property
    def under_way(self) -> Run:
        if self.run is None:
            raise ArchiveError(str(self.path), "has no run under way", "begin one")
        return self.run

    # --- runs

    def runs(self) -> list[Run]:
        with self._reading() as database:
            return [*map(rows.to_run, database.execute(f"SELECT {_RUNS} FROM runs ORDER BY run"))]

    def forget_all_unanswered(self) -> bool:
        """Empty an archive that holds nothing a key was told, and say whether this is one."""
        with self._reading() as database:
            (is_told,) = database.execute(
                "SELECT EXISTS (SELECT 1 FROM statistics) OR EXISTS (SELECT 1 FROM failures)"
                # What was listed, or found to be nothing, was told; what made no call may be right.
                " OR EXISTS (SELECT 1 FROM runs WHERE calls = 0 OR state = 'complete')"
                " OR EXISTS (SELECT 1 FROM listing JOIN runs USING (run)"
                """ WHERE parameters LIKE '%"refs": "all"%')"""
            ).fetchone()
            if not is_told:
                with database:
                    database.execute("BEGIN IMMEDIATE")
                    database.execute("DELETE FROM listing")
                    database.execute("DELETE FROM runs")
            return not is_told

    def begin(self, run: Run) -> None:
        """Start a run, whose listing is empty still."""
        with self._writing(run):
            pass

    def take_up(self, run: Run, spent: Spent, now: datetime) -> None:
        """Go on with a run that was broken off."""
        self.run = run
        self.note(spent, now)

    def note(self, spent: Spent, now: datetime) -> None:
        """Write down what the run has cost, and that it is over if nothing is left to do."""
        with self._writing() as draft:
            draft.update(spent=spent, written_at=now)
            _complete(draft)

    def check(self, run: Run) -> None:
        """Raise `ArchiveError` where a row of the run was lost, added or changed."""
        with self._reading() as database:
            digest, run = rows.NOTHING, _stored(database, run)
            for table, columns in _OF_A_RUN:
                for row in database.execute(
                    f"SELECT {columns} FROM {table} WHERE run = ?", [run.number]
                ):
                    rows.verified(table, row)
                    digest = rows.plus(digest, row)
            if digest != run.digest:
                raise DamageError

    # --- the listing

    def want_nothing(self) -> None:
        """Forget what was gathered."""
        with self._reading() as database:
            database.execute("DROP TABLE IF EXISTS temp.wanted")
            database.execute(
                "CREATE TEMP TABLE wanted (place INTEGER PRIMARY KEY, hash TEXT UNIQUE)"
            )

    def want(self, hashes: Iterable[str]) -> None:
        """Gather what the caller wants, beside the archive: it may be too much to remember."""
        with self._reading() as database:
            database.execute("BEGIN")
            database.executemany(
                "INSERT OR IGNORE INTO wanted (hash) VALUES (?)", ((name,) for name in hashes)
            )
            database.execute("COMMIT")

    def wants_the_same(self, run: Run) -> bool:
        """Say whether what was gathered is what the run is about."""
        listed = "SELECT collection_hash FROM listing WHERE run = :run"
        with self._reading() as database:
            found = database.execute(
                f"SELECT EXISTS (SELECT hash FROM wanted EXCEPT {listed})"
                f" OR EXISTS ({listed} EXCEPT SELECT hash FROM wanted)",
                {"run": run.number},
            )
            return not found.fetchone()[0]

    def list_wanted(self, now: datetime) -> None:
        """Make what was gathered the listing of the run, all of it at once."""
        with self._writing() as draft:
            wanted = draft.database.execute("SELECT hash FROM wanted ORDER BY place")
            _add(draft, (name for (name,) in wanted))
            draft.update(state="asking", written_at=now)

    def add(self, hashes: Iterable[str], spent: Spent, now: datetime) -> int:
        """Add to the listing of the run, and say how many were not in it."""
        with self._writing() as draft:
            draft.update(spent=spent, written_at=now)
            return _add(draft, hashes)

    def listed(self, now: datetime, failure: FlipsnackError | None = None) -> None:
        """Note that the listing is over, and what part of it could not be read."""
        with self._writing() as draft:
            draft.update(state="asking", written_at=now)
            if failure is not None:
                _fail(draft, LISTING, failure, now)

    def listing_failure(self) -> FlipsnackError | None:
        """Say what part of the listing could not be read."""
        with self._reading() as database:
            row = _failure(database, self.under_way.number, LISTING)
            return None if row is None else rows.to_error(row)

    def counts(self, run: Run) -> dict[Outcome, int]:
        """Count the collections of a run by what became of them."""
        with self._reading() as database:
            found = database.execute(
                "SELECT outcome, count(*) FROM listing WHERE run = ? GROUP BY outcome",
                [run.number],
            )
            return dict(found.fetchall())

    def pending(self, after: tuple[str, int], most: int) -> list[tuple[str, tuple[str, int]]]:
        """Name collections that are still to be asked about, the stalest first, and their place."""
        with self._reading() as database:
            found = database.execute(
                f"SELECT {_LISTING} FROM listing INDEXED BY pending"
                " WHERE run = ? AND outcome = 'pending' AND (known_since, place) > (?, ?)"
                " ORDER BY known_since, place LIMIT ?",
                [self.under_way.number, *after, most],
            ).fetchall()
            listed = [rows.verified("listing", row) for row in found]
        return [(name, (since, place)) for _, place, name, since, _ in listed]

    # --- statistics

    def keep(self, kept: Kept, spent: Spent, now: datetime) -> None:
        """Write down an answer, when there will be more on the same collection."""
        with self._writing() as draft:
            _insert(draft, kept)
            draft.update(spent=spent, written_at=now)

    def settle(
        self,
        collection_hash: str,
        result: Iterable[Kept] | FlipsnackError,
        spent: Spent,
        now: datetime,
    ) -> None:
        """
        Write down what became of a collection, and what more is known of it.

        The last one completes the run. What is written down already stays.
        """
        failure = result if isinstance(result, FlipsnackError) else None
        with self._writing() as draft:
            draft.update(spent=spent, written_at=now)
            if not _move(draft, collection_hash, rows.outcome_of(failure) if failure else "done"):
                return  # whoever wrote it was cancelled, and did not hear of it
            if isinstance(result, FlipsnackError):
                _fail(draft, collection_hash, result, now)
            else:
                for kept in result:
                    _insert(draft, kept)
            _complete(draft)

    def known(
        self, collection_hash: str, start: date | None, end: date, *, pages: bool
    ) -> Kept | None:
        """Look for what an earlier run was told of a date range that had its last numbers then."""
        with self._reading() as database:
            found = database.execute(
                f"SELECT id, {_STATISTICS} FROM statistics WHERE collection_hash = ?"
                f" AND {_IS_KNOWN} ORDER BY asked_at DESC LIMIT 1",
                [collection_hash, *_range(start, end, pages=pages)],
            ).fetchone()
            if found is None:
                return None
            kept = rows.to_kept(found[1:], _pages_of(database, found[0]))
        if not pages and kept.has_pages:
            kept = attrs.evolve(kept, stats=attrs.evolve(kept.stats, pages=None), has_pages=False)
        return kept

    def answered_last(self) -> str | None:
        """Name the collection whose answer was the last one."""
        with self._reading() as database:
            found = database.execute(
                "SELECT collection_hash FROM statistics ORDER BY id DESC LIMIT 1"
            ).fetchone()
            return None if found is None else found[0]

    def count_known(self, start: date | None, end: date, *, pages: bool) -> int:
        """Count the collections still to be asked about of which the range is known."""
        with self._reading() as database:
            found = database.execute(
                "SELECT count(*) FROM listing WHERE run = ? AND outcome = 'pending' AND EXISTS"
                " (SELECT 1 FROM statistics WHERE collection_hash = listing.collection_hash"
                f" AND {_IS_KNOWN})",
                [self.under_way.number, *_range(start, end, pages=pages)],
            )
            return int(found.fetchone()[0])

    def known_within(self, collection_hash: str, start: date, end: date) -> list[tuple[bool, Kept]]:
        """List what is known of ranges between two days: the run's own, True, and what is final."""
        run = self.under_way.number
        with self._reading() as database:
            found = database.execute(
                f"SELECT run = ?, id, {_STATISTICS} FROM statistics WHERE collection_hash = ?"
                f" AND start_date >= ? AND end_date <= ? AND (run = ? OR {_IS_FINAL})"
                " ORDER BY is_inferred DESC, asked_at",
                [run, collection_hash, start.isoformat(), end.isoformat(), run],
            ).fetchall()
            return [
                (bool(is_own), rows.to_kept(row, _pages_of(database, number)))
                for is_own, number, *row in found
            ]

    def count_known_steps(self, steps: Iterable[tuple[date, date]], exact: bool) -> list[int]:
        """Count for each collection still to be asked about how many steps are known."""
        with self._reading() as database:
            database.execute("DROP TABLE IF EXISTS temp.steps")
            database.execute("CREATE TEMP TABLE steps (first TEXT PRIMARY KEY, last TEXT)")
            database.execute("BEGIN")
            database.executemany(
                "INSERT INTO steps VALUES (?, ?)",
                ((first.isoformat(), last.isoformat()) for first, last in steps),
            )
            database.execute("COMMIT")
            found = database.execute(
                "SELECT (SELECT count(DISTINCT start_date) FROM statistics"
                " WHERE collection_hash = listing.collection_hash AND run <> listing.run"
                " AND (start_date, end_date) IN (SELECT first, last FROM steps)"
                f" AND is_inferred <= ? AND {_IS_FINAL})"
                " FROM listing WHERE run = ? AND outcome = 'pending'",
                [not exact, self.under_way.number],
            )
            return [number for (number,) in found]

    # --- what is in it

    def settled(self, run: Run, after: int, most: int) -> list[Settled]:
        """Read what became of collections, in the order of the listing."""
        with self._reading() as database:
            found = database.execute(
                f"SELECT {_LISTING} FROM listing WHERE run = ? AND place > ?"
                " AND outcome <> 'pending' ORDER BY place LIMIT ?",
                [run.number, after, most],
            ).fetchall()
            return [_settled(database, *rows.verified("listing", row)) for row in found]


def _stored(database: sqlite3.Connection, run: Run) -> Run:
    """Read how a run is by now."""
    row = database.execute(f"SELECT {_RUNS} FROM runs WHERE run = ?", [run.number]).fetchone()
    if row is None:
        raise DamageError
    return rows.to_run(row)


def _settled(
    database: sqlite3.Connection, run: int, place: int, name: str, _: str, outcome: Outcome
) -> Settled:
    if outcome == "done":
        found = database.execute(
            f"SELECT id, {_STATISTICS} FROM statistics WHERE run = ? AND collection_hash = ?"
            " ORDER BY id",
            [run, name],
        ).fetchall()
        kept = tuple(rows.to_kept(row, _pages_of(database, number)) for number, *row in found)
        return Settled(place, name, kept)
    row = _failure(database, run, name)
    if row is None:
        raise DamageError
    return Settled(place, name, error=rows.to_error(row))


def _failure(database: sqlite3.Connection, run: int, name: str) -> tuple[Any, ...] | None:
    found: tuple[Any, ...] | None = database.execute(
        f"SELECT {_FAILURES} FROM failures WHERE run = ? AND collection_hash = ?", [run, name]
    ).fetchone()
    return found


def _pages_of(database: sqlite3.Connection, statistics: int) -> list[tuple[Any, ...]]:
    return database.execute(
        f"SELECT {_PAGES} FROM page_statistics WHERE statistics = ? ORDER BY place", [statistics]
    ).fetchall()


def _insert(draft: Draft, kept: Kept) -> None:
    row = rows.of_statistics(draft.run.number, kept)
    number = draft.database.execute(
        f"INSERT INTO statistics ({_STATISTICS}) VALUES ({_marks(row)})", row
    ).lastrowid
    for page in rows.of_pages(number or 0, kept.stats.pages or ()):
        draft.database.execute(f"INSERT INTO page_statistics VALUES ({_marks(page)})", page)
    draft.count(row)


def _fail(draft: Draft, collection_hash: str, error: FlipsnackError, now: datetime) -> None:
    row = rows.of_failure(draft.run.number, collection_hash, error, now)
    draft.database.execute(f"INSERT INTO failures VALUES ({_marks(row)})", row)
    draft.count(row)


def _add(draft: Draft, hashes: Iterable[str]) -> int:
    (place,) = draft.database.execute(
        "SELECT ifnull(max(place), 0) FROM listing WHERE run = ?", [draft.run.number]
    ).fetchone()
    added = 0
    for name in hashes:
        (since,) = draft.database.execute(
            "SELECT ifnull(max(asked_at), '') FROM statistics WHERE collection_hash = ?", [name]
        ).fetchone()
        row = rows.checked("listing", (draft.run.number, place + added + 1, name, since, "pending"))
        new = draft.database.execute(f"INSERT OR IGNORE INTO listing VALUES ({_marks(row)})", row)
        if new.rowcount:
            draft.count(row)
            added += 1
    return added


def _move(draft: Draft, collection_hash: str, outcome: Outcome) -> bool:
    """Say what became of a collection, unless that was said before."""
    old = draft.database.execute(
        f"SELECT {_LISTING} FROM listing WHERE run = ? AND collection_hash = ?",
        [draft.run.number, collection_hash],
    ).fetchone()
    if old is None:
        raise DamageError
    *place, before = rows.verified("listing", old)
    if before != "pending":
        return False
    new = rows.checked("listing", (*place, outcome))
    draft.database.execute(f"REPLACE INTO listing VALUES ({_marks(new)})", new)
    draft.count(new, minus=[old])
    return True


def _complete(draft: Draft) -> None:
    def has(outcome: Outcome, index: str = "") -> bool:
        found = draft.database.execute(
            f"SELECT EXISTS (SELECT 1 FROM listing {index}"
            f" WHERE run = ? AND outcome = '{outcome}')",
            [draft.run.number],
        )
        return bool(found.fetchone()[0])

    # Left to itself, SQLite would look through all that is settled.
    if draft.run.state == "asking" and not has("pending", "INDEXED BY pending"):
        is_partial = has("failed") or _failure(draft.database, draft.run.number, LISTING)
        draft.update(
            state="partial" if is_partial else "complete",
            spent=attrs.evolve(draft.run.spent, under_way=0),
        )


def _range(start: date | None, end: date, *, pages: bool) -> list[Any]:
    first = None if start is None else start.isoformat()
    return [first, end.isoformat(), int(pages), end.isoformat()]


def _marks(row: Sequence[Any]) -> str:
    return ", ".join("?" * len(row))
