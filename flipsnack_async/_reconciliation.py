"""Find out what became of an upload that got no answer."""

from __future__ import annotations

import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from datetime import UTC, datetime, timedelta

import anyio

from .errors import UploadOutcomeUnknownError
from .models import Collection, UploadOutcome

# Nobody knows in which time zone the vendor's months begin.
ZONES = timedelta(hours=14)


async def reconcile(
    error: UploadOutcomeUnknownError,
    *,
    uploads_left: Callable[[], Awaitable[int | None]],
    titled: Callable[[str], AsyncIterator[Collection]],
    is_known: Container[str],
    settle: float,
) -> UploadOutcome:
    """
    Conclude from the count of uploads, and from the collections of that title.

    *is_known* holds the hashes of other uploads, and *settle* is how long a
    slow server gets before a no.
    """
    used = await _used(error, uploads_left)
    if used == 0 and error.body_complete is not False:
        # What the server has in full it may still be at work on.
        await anyio.sleep(settle)
        used = await _used(error, uploads_left)
    if used is None:
        return UploadOutcome(None, "how many uploads were left before is not known for sure")
    if used == 0:
        return UploadOutcome(False, "no upload was counted since")
    counted = "an upload was counted since" if used == 1 else f"{used} uploads were counted since"
    if error.body_complete is False:
        return UploadOutcome(None, f"{counted}, but the document had not left whole")
    if error.title is None:
        return UploadOutcome(None, f"{counted}, and without a title it cannot be told from others")
    found = [c async for c in titled(error.title) if c.collection_hash not in is_known]
    same = [c for c in found if _plain(c.title) == _plain(error.title)]
    if len(same) == 1:
        return UploadOutcome(True, f"{counted}, and one collection has its title", same[0])
    how_many = "several collections have" if same else "no collection has"
    return UploadOutcome(None, f"{counted}, and {how_many} its title")


async def _used(
    error: UploadOutcomeUnknownError, uploads_left: Callable[[], Awaitable[int | None]]
) -> int | None:
    """Say how many uploads succeeded since; None where the counts don't tell."""
    after = await uploads_left()
    before = error.uploads_left_before
    if before is None or after is None or after > before or _month_turned(error.sent_at):
        return None
    return before - after


def _month_turned(since: datetime | None) -> bool:
    """Say whether the count may have begun anew."""
    if since is None:
        return True
    then, now = since - ZONES, datetime.now(UTC) + ZONES
    return (then.year, then.month) != (now.year, now.month)


def _plain(title: str | None) -> str:
    return unicodedata.normalize("NFC", title or "").strip()
