"""Await the end of a document's conversion."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ._polling import poll
from .errors import ConversionFailedError, ConversionTimeoutError
from .models import Collection


async def await_conversion(
    ask: Callable[[str], Awaitable[Collection]],
    collection_hash: str,
    *,
    every: Callable[[], float],
    within: float,
    on_poll: Callable[[Collection], object] | None,
    state_of: Callable[[Collection], str | None],
) -> Collection:
    """Ask until the collection is complete, by its newest hash; an unknown state is unfinished."""

    async def ask_by_newest_hash() -> Collection:
        nonlocal collection_hash
        collection = await ask(collection_hash)
        collection_hash = collection.collection_hash
        return collection

    def is_converted(collection: Collection) -> bool:
        state = (state_of(collection) or "").casefold()
        if state == "failed":
            raise ConversionFailedError(collection_hash)
        return state in ("complete", "completed")

    return await poll(
        ask_by_newest_hash,
        every=every,
        within=within,
        on_poll=on_poll,
        is_finished=is_converted,
        too_late=lambda problem: ConversionTimeoutError(collection_hash, within, problem),
    )
