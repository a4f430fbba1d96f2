"""
The objects that calls answer with.

Those that the vendor's answers fill have *extra*: what he sent beyond the
known names, as it came. A number he did not send is None, never 0.
His own examples show more views than impressions, and pages read for longer
than the whole: no sum or order among the numbers can be relied on.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import attrs

from .errors import FlipsnackError, InvalidAnswerError

__all__ = [
    "Collection",
    "CollectionStats",
    "Embed",
    "ExportProgress",
    "HarvestProgress",
    "HarvestRow",
    "Package",
    "PackageRow",
    "PageStats",
    "RunSummary",
    "SavedPackage",
    "SeriesPlan",
    "SeriesProgress",
    "SeriesRow",
    "UploadOutcome",
    "UserStats",
]

Extra = Mapping[str, Any]


@attrs.frozen
class UserStats:
    """
    Hold the account's totals; *time_spent* is in seconds.

    https://developers.flipsnack.com/api-reference/api-method-user.getstats
    """

    impressions: int | None = None
    views: int | None = None
    time_spent: float | None = None
    downloads: int | None = None
    api_uploads_left: int | None = None
    extra: Extra = attrs.field(factory=dict)


@attrs.frozen
class PageStats:
    """Hold one page's statistics; *time_spent* is in seconds, *page* as the vendor numbers it."""

    page: int | None = None
    time_spent: float | None = None
    clicks: int | None = None
    views: int | None = None
    extra: Extra = attrs.field(factory=dict)


@attrs.frozen
class CollectionStats:
    """
    Hold a collection's statistics; *time_spent* is in seconds.

    *pages* is None where the vendor sent none. The dates are those asked for.

    https://developers.flipsnack.com/api-reference/api-method-collection.getstats
    """

    collection_hash: str
    impressions: int | None = None
    views: int | None = None
    time_spent: float | None = None
    downloads: int | None = None
    likes: int | None = None
    shares: int | None = None
    pages: tuple[PageStats, ...] | None = None
    start_date: date | None = None
    end_date: date | None = None
    extra: Extra = attrs.field(factory=dict)


@attrs.frozen
class Collection:
    """
    Hold what the vendor tells of one flipbook, which his API calls a collection.

    *width* and *height* are the player's, in pixels. *status* says who may
    see it: public, unlisted or editable. *state* says how far its conversion
    is: processing, complete or failed. What the vendor calls the state and
    the thumbnail's address is not known. The state is looked for in whatever
    is called a status or a state, also inside other fields, and of several
    the least finished one counts; the address in whatever is called a thumb.
    All that he sends is in *extra* too.

    https://developers.flipsnack.com/api-reference/api-method-collection.getcollection
    """

    collection_hash: str
    title: str | None = None
    description: str | None = None
    status: str | None = None
    state: str | None = None
    width: int | None = None
    height: int | None = None
    thumbnail_url: str | None = None
    extra: Extra = attrs.field(factory=dict)


@attrs.frozen
class CollectionPage:
    """
    Hold one answer of collection.getList; *count* is of all collections, or of this page.

    *unreadable* says what is wrong with those that could not be read.
    """

    collections: tuple[Collection, ...]
    count: int | None = None
    unreadable: tuple[InvalidAnswerError, ...] = ()


@attrs.frozen
class Embed:
    """
    Hold the HTML that shows a collection in a page.

    https://developers.flipsnack.com/api-reference/api-method-collection.getembed
    """

    collection_hash: str
    embed_code: str
    extra: Extra = attrs.field(factory=dict)


@attrs.frozen
class Package:
    """
    Hold the state of a collection's HTML package.

    *status* is the vendor's word: PROCESSING, COMPLETE or FAILED. The link in
    *resource_url* comes with COMPLETE and lives one minute from *asked_at*, a
    time in UTC.

    https://developers.flipsnack.com/api-reference/api-method-collection.downloadhtml
    """

    collection_hash: str
    status: str
    # A link that needs no key is as good as the package: not for logs.
    resource_url: str | None = attrs.field(default=None, repr=False)
    asked_at: datetime | None = None
    extra: Extra = attrs.field(factory=dict)


@attrs.frozen
class SavedPackage:
    """Hold where a package was saved; *size* is in bytes, *sha256* in hex digits."""

    collection_hash: str
    path: Path
    size: int
    sha256: str


@attrs.frozen
class PackageRow:
    """Hold where one collection's package is, or why it is not: exactly one of the two is set."""

    collection_hash: str
    package: SavedPackage | None = None
    error: FlipsnackError | None = None


@attrs.frozen
class ExportProgress:
    """
    Say how far an export of many packages is.

    *done* counts rows, *failed* those among them that hold an error, *calls*
    every call sent, *bytes* what was fetched. *total* is None until it is known
    how many packages there are. *seconds_left* goes by the calls that are
    still needed and by the time that most packages took, and is None where
    neither tells: while the last ones are being built.
    """

    done: int
    failed: int
    calls: int
    bytes: int
    total: int | None
    seconds_left: float | None


@attrs.frozen
class HarvestRow:
    """Hold one collection's statistics or why there are none: exactly one of the two is set."""

    collection_hash: str
    stats: CollectionStats | None = None
    error: FlipsnackError | None = None


@attrs.frozen
class HarvestProgress:
    """
    Say how far a harvest is.

    *done* counts rows, *failed* those among them that hold an error, *calls*
    every call sent, repeated and listing ones included. *calls_per_minute* is
    the pace of the last minute. *total*, *calls_left* and *seconds_left*, by
    the quota, are None until it is known how many collections there are.
    """

    done: int
    failed: int
    calls: int
    calls_per_minute: float
    total: int | None
    calls_left: int | None
    seconds_left: float | None


@attrs.frozen
class SeriesRow:
    """
    Hold a collection's statistics of one step, or why it has none of any.

    *stats* are of the days from their start_date to their end_date. What
    *is_inferred* was concluded from other answers, without a call of its own.
    """

    collection_hash: str
    stats: CollectionStats | None = None
    is_inferred: bool = False
    error: FlipsnackError | None = None


@attrs.frozen
class SeriesPlan:
    """
    Say what a series may cost before it starts.

    *steps* are those of all collections together, *steps_known* need no call.
    Calls and seconds, by the quota, are bounds: how many are read on how few
    days decides.
    """

    collections: int
    steps: int
    steps_known: int
    least_calls: int
    most_calls: int
    least_seconds: float
    most_seconds: float


@attrs.frozen
class SeriesProgress:
    """
    Say how far a series is.

    *done* and *failed* count collections, *steps_done* the steps whose
    numbers are known. *most_calls_left* and *most_seconds_left* are bounds;
    they and *total* are None until it is known how many collections there are.
    """

    done: int
    failed: int
    steps_done: int
    calls: int
    calls_per_minute: float
    total: int | None
    most_calls_left: int | None
    most_seconds_left: float | None


@attrs.frozen
class RunSummary:
    """
    Say what an archive holds of one harvest or series: its *kind*.

    *parameters* are what was asked for. *state* is listing, asking, complete
    or partial; the latter when some collections *failed*, beside those that
    are *gone*: deleted, or somebody else's, or when the list of them could not
    be read whole. Of *pending* ones nothing is known yet. Times are in UTC.
    """

    run: int
    kind: str
    parameters: Mapping[str, Any]
    state: str
    started_at: datetime
    written_at: datetime
    calls: int
    done: int
    failed: int
    gone: int
    pending: int


@attrs.frozen
class UploadOutcome:
    """
    Say what became of an upload that got no answer to go by.

    *created* is None where that cannot be told; *reason* says from what it
    was concluded, or why it was not. *collection* is what was created.
    """

    created: bool | None
    reason: str
    collection: Collection | None = None
