"""Find out what became of an upload that got no answer."""

from __future__ import annotations

import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Container

import anyio

from .errors import UploadOutcomeUnknownError
from .models import Collection, UploadOutcome


async def reconcile(
    error: UploadOutcomeUnknownError,
    *,
    uploads_left: Callable[[], Awaitable[int | None]],
    titled: Callable[[str], AsyncIterator[Collection]],
    get: Callable[[Collection], Awaitable[Collection]],
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
    if used == 0:
        return UploadOutcome(False, "no upload was counted since")
    counted = "uploads were counted since" if used else "the count of uploads before is not known"
    if error.title is None:
        return UploadOutcome(None, f"{counted}, and without a title it cannot be told from others")
    found = [c async for c in titled(error.title) if c.collection_hash not in is_known]
    same = [c for c in found if _plain(c.title) == _plain(error.title)]
    if len(same) != 1:
        how_many = "several collections have" if same else "no collection has"
        return UploadOutcome(None, f"{counted}, and {how_many} its title")
    if used:
        return UploadOutcome(True, f"{counted}, and one collection has its title", same[0])
    # Without the count it could be an older one; but what is being converted is new.
    found_now = await get(same[0])
    if (found_now.state or "").casefold() == "processing":
        return UploadOutcome(True, "the one collection of its title is being converted", found_now)
    return UploadOutcome(None, f"{counted}, and the collection of its title may be older")


async def _used(
    error: UploadOutcomeUnknownError, uploads_left: Callable[[], Awaitable[int | None]]
) -> int | None:
    """Say how many uploads succeeded since; None where the counts don't tell."""
    after = await uploads_left()
    before = error.uploads_left_before
    if before is None or after is None or after > before:  # a new month has begun
        return None
    return before - after


def _plain(title: str | None) -> str:
    return unicodedata.normalize("NFC", title or "").strip()
