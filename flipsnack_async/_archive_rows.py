"""
From what an archive keeps to the rows of its tables, and back: pure.

Each row ends with a checksum of what it says, and a run holds a digest of all
its rows: the sum of their checksums, so that one that is lost or comes twice
is noticed too, and no order has to be kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from hashlib import blake2b
from struct import pack, unpack
from typing import Any, Final, Literal, TypeAlias

import attrs

from . import errors
from .errors import CollectionUnavailableError, FlipsnackError
from .models import CollectionStats, PageStats

Outcome: TypeAlias = Literal["pending", "done", "failed", "gone"]
State: TypeAlias = Literal["listing", "asking", "complete", "partial"]
Kind: TypeAlias = Literal["harvest", "series"]

LENGTH: Final = 8  # bytes of a checksum, and of a digest
NOTHING: Final = bytes(LENGTH)
# Days after its end at which a date range is taken to have its last numbers, wherever
# the vendor's days begin.
CLOSING_DAYS: Final = 2
FORBIDDEN: Final = 43

COUNTERS: Final = ("impressions", "views", "time_spent", "downloads", "likes", "shares")
STATISTICS: Final = (
    *("run", "collection_hash", "start_date", "end_date", "asked_at", "is_inferred", "has_pages"),
    *COUNTERS,
    *("page_count", "extra"),
)
PAGE_STATISTICS: Final = (
    *("statistics", "place", "page", "time_spent", "clicks", "views"),
    "extra",
)
LISTING: Final = ("run", "place", "collection_hash", "known_since", "outcome")
FAILURES: Final = ("run", "collection_hash", "failed_at", "kind", "code", "message", "facts")
RUNS: Final = (
    *("run", "kind", "parameters", "key_fingerprint", "state", "started_at", "written_at"),
    *("calls", "under_way", "tokens", "digest"),
)


class DamageError(Exception):
    """Say that a row is not what was written."""


@attrs.frozen
class Spent:
    """
    Hold what a run has cost so far.

    *tokens* are the times, in seconds since 1970, at which the calls ended
    whose tokens are still out. Of *under_way* more it is not known.
    """

    calls: int = 0
    tokens: tuple[float, ...] = ()
    under_way: int = 0


@attrs.frozen
class Run:
    """Hold a row of the runs."""

    number: int
    kind: Kind
    parameters: Mapping[str, Any]
    key_fingerprint: str
    state: State
    started_at: datetime
    written_at: datetime
    spent: Spent = Spent()
    digest: bytes = NOTHING

    @property
    def is_unfinished(self) -> bool:
        return self.state in {"listing", "asking"}


@attrs.frozen
class Kept:
    """Hold statistics, when they were asked for, and whether they were concluded from others."""

    stats: CollectionStats
    asked_at: datetime
    is_inferred: bool = False
    has_pages: bool = False


def is_final(kept: Kept) -> bool:
    """Say whether the range had its last numbers when it was asked about."""
    end = kept.stats.end_date
    return end is not None and (kept.asked_at.date() - end).days >= CLOSING_DAYS


def checked(table: str, values: Sequence[Any]) -> tuple[Any, ...]:
    """Append its checksum to a row."""
    return (*values, _checksum(table, values))


def verified(table: str, row: Sequence[Any]) -> Sequence[Any]:
    """Take the checksum off a row that was read, or raise `DamageError`."""
    *values, checksum = row
    if checksum != _checksum(table, values):
        raise DamageError
    return values


def plus(digest: bytes, *rows: Sequence[Any], minus: Iterable[Sequence[Any]] = ()) -> bytes:
    """Count rows in whose last value is their checksum, and others out."""
    total = int.from_bytes(digest)
    total += sum(int.from_bytes(row[-1]) for row in rows)
    total -= sum(int.from_bytes(row[-1]) for row in minus)
    return (total % (1 << 8 * LENGTH)).to_bytes(LENGTH)


def _checksum(table: str, values: Sequence[Any]) -> bytes:
    # JSON in ASCII says everything that SQLite can hold in one way only.
    text: str = json.dumps([table, *values], default=bytes.hex)
    return blake2b(text.encode(), digest_size=LENGTH).digest()


# --- statistics


def of_statistics(run: int, kept: Kept) -> tuple[Any, ...]:
    stats = kept.stats
    return checked(
        "statistics",
        (
            run,
            stats.collection_hash,
            _day(stats.start_date),
            _day(stats.end_date),
            of_time(kept.asked_at),
            int(kept.is_inferred),
            int(kept.has_pages),
            *(getattr(stats, name) for name in COUNTERS),
            None if stats.pages is None else len(stats.pages),
            json.dumps(dict(stats.extra)),
        ),
    )


def of_pages(statistics: int, pages: Iterable[PageStats]) -> list[tuple[Any, ...]]:
    return [
        checked(
            "page_statistics",
            (
                *(statistics, place, page.page, page.time_spent, page.clicks, page.views),
                json.dumps(dict(page.extra)),
            ),
        )
        for place, page in enumerate(pages)
    ]


def to_kept(row: Sequence[Any], pages: Sequence[Sequence[Any]]) -> Kept:
    """Read a row of the statistics, and those of its pages."""
    named = dict(zip(STATISTICS, verified("statistics", row), strict=True))
    if len(pages) != (named["page_count"] or 0):
        raise DamageError
    stats = CollectionStats(
        named["collection_hash"],
        **{name: named[name] for name in COUNTERS},
        pages=None if named["page_count"] is None else tuple(map(_page, pages)),
        start_date=_to_day(named["start_date"]),
        end_date=_to_day(named["end_date"]),
        extra=json.loads(named["extra"]),
    )
    return Kept(
        stats, to_time(named["asked_at"]), bool(named["is_inferred"]), bool(named["has_pages"])
    )


def _page(row: Sequence[Any]) -> PageStats:
    named = dict(zip(PAGE_STATISTICS, verified("page_statistics", row), strict=True))
    del named["statistics"], named["place"]
    return PageStats(**{**named, "extra": json.loads(named["extra"])})


def _day(day: date | None) -> str | None:
    return None if day is None else day.isoformat()


def _to_day(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)


def of_time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds")


def to_time(text: str) -> datetime:
    return datetime.fromisoformat(text)


# --- failures


def outcome_of(error: FlipsnackError) -> Outcome:
    """Tell a flipbook that is gone, or somebody else's, from one that failed."""
    is_gone = isinstance(error, CollectionUnavailableError) and error.code == FORBIDDEN
    return "gone" if is_gone else "failed"


def of_failure(
    run: int, collection_hash: str, error: FlipsnackError, now: datetime
) -> tuple[Any, ...]:
    more = {name: value for name, value in vars(error).items() if not name.startswith("_")}
    facts = json.dumps({"args": error.args, "more": more}, default=str)
    return checked(
        "failures",
        (
            *(run, collection_hash, of_time(now), type(error).__name__),
            *(getattr(error, "code", None), str(error), facts),
        ),
    )


def to_error(row: Sequence[Any]) -> FlipsnackError:
    """Make the error of a failure anew."""
    named = dict(zip(FAILURES, verified("failures", row), strict=True))
    kind = getattr(errors, named["kind"], None)
    if not isinstance(kind, type) or not issubclass(kind, FlipsnackError):
        raise DamageError
    facts = json.loads(named["facts"])
    error = kind.__new__(kind, *facts["args"])
    vars(error).update(facts["more"])
    return error


# --- runs


def of_run(run: Run) -> tuple[Any, ...]:
    spent = run.spent
    return checked(
        "runs",
        (
            run.number,
            run.kind,
            json.dumps(dict(run.parameters)),
            run.key_fingerprint,
            run.state,
            of_time(run.started_at),
            of_time(run.written_at),
            spent.calls,
            spent.under_way,
            pack(f"<{len(spent.tokens)}d", *spent.tokens),
            run.digest,
        ),
    )


def to_run(row: Sequence[Any]) -> Run:
    named = dict(zip(RUNS, verified("runs", row), strict=True))
    tokens = unpack(f"<{len(named['tokens']) // 8}d", named["tokens"])
    return Run(
        named["run"],
        named["kind"],
        json.loads(named["parameters"]),
        named["key_fingerprint"],
        named["state"],
        to_time(named["started_at"]),
        to_time(named["written_at"]),
        Spent(named["calls"], tokens, named["under_way"]),
        named["digest"],
    )
