"""Ask for the statistics of many collections at once, and hand them out as they come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from datetime import date
from typing import Protocol

import attrs

from ._crew import Crew, Rows, once_each
from ._pace import Pace
from .errors import FlipsnackError
from .models import Collection, CollectionStats, HarvestProgress, HarvestRow

__all__ = ["Harvest"]


class Listing(Protocol):
    """Yield collections, and say where in the list it is."""

    def __aiter__(self) -> AsyncIterator[Collection]: ...

    @property
    def is_ready(self) -> bool: ...

    @property
    def is_over(self) -> bool: ...


class GetStats(Protocol):
    """Ask for a collection's statistics."""

    def __call__(
        self,
        ref: str,
        /,
        *,
        start_date: date | None = None,
        end_date: date | None = None,
        pages: bool = False,
    ) -> Awaitable[CollectionStats]: ...


@attrs.frozen
class Account:
    """
    Hold what a harvest that is kept needs of a client; its calls queue in the bulk lane.

    *token_ends* and *recall* are the quota's, in the event loop's time.
    """

    get_stats: GetStats
    list_from: Callable[[int], Listing]
    calls: Callable[[], int]
    seconds_for: Callable[[int], float]
    token_ends: Callable[[], list[float]]
    recall: Callable[[Iterable[float]], None]
    key_fingerprint: Callable[[bytes], str]


class Harvest(Rows[HarvestRow]):
    """
    Hold a harvest, which runs inside its ``async with`` block and nowhere else.

        async with flipsnack.harvest() as rows:
            async for row in rows:
                ...

    Yields a `HarvestRow` for each collection, in the order of completion. A
    failure is a row like any other; only wrong credentials, a closed
    client, and what the caller's own iterator raises, end the harvest. A
    list that could not be read to its end is raised after the rows of what
    was listed. Leaving the block early cancels what is under way. No
    statistics are asked for long before their row is taken: a slow reader
    slows the harvest.
    """

    def __init__(
        self,
        ask: Callable[[str], Awaitable[CollectionStats]],
        hashes: AsyncGenerator[str],
        *,
        at_once: int,
        ahead: float,
        total: int | None,
        calls: Callable[[], int],
        seconds_for: Callable[[int], float],
    ) -> None:
        async def work(collection_hash: str) -> HarvestRow:
            return HarvestRow(collection_hash, stats=await ask(collection_hash))

        def excuse(collection_hash: str, error: FlipsnackError) -> HarvestRow:
            return HarvestRow(collection_hash, error=error)

        self._crew = Crew(
            work, excuse, once_each(hashes), at_once=at_once, ahead=ahead, total=total
        )
        super().__init__("harvest", self._crew.working)
        self._calls = calls
        self._pace = Pace(calls)
        self._seconds_for = seconds_for

    @property
    def progress(self) -> HarvestProgress:
        """Say how far the harvest is, counting the rows that were taken out."""
        crew = self._crew
        unasked = None if crew.total is None else max(0, crew.total - crew.started)
        return HarvestProgress(
            done=crew.done,
            failed=crew.failed,
            calls=self._calls(),
            calls_per_minute=self._pace.per_minute(),
            total=crew.total,
            calls_left=unasked,
            seconds_left=None if unasked is None else self._seconds_for(unasked),
        )

    async def __anext__(self) -> HarvestRow:
        return await self._crew.take()
