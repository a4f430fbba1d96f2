"""Ask for the statistics of many collections at once, and hand them out as they come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from types import TracebackType

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream

from .errors import AuthenticationError, FlipsnackError, InvalidArgumentError
from .models import CollectionStats, HarvestProgress, HarvestRow

__all__ = ["Harvest"]


class Harvest:
    """
    Hold a harvest, which runs inside its ``async with`` block and nowhere else.

        async with flipsnack.harvest() as rows:
            async for row in rows:
                ...

    Yields a `HarvestRow` for each collection, in the order of completion. A
    failure is a row like any other; only wrong credentials, and what the
    caller's own iterator raises, end the harvest. A list that could not be
    read to its end is raised after the rows of what was listed. Leaving the block early
    cancels what is under way. No statistics are asked for long before their
    row is taken: a slow reader slows the harvest.
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
        if type(at_once) is not int or at_once < 1:
            raise InvalidArgumentError("at_once", "give a whole number of calls, at least 1")
        self._ask = ask
        self._hashes = hashes
        self._at_once = at_once
        self._ahead = ahead
        self._total = total
        self._calls = calls
        self._seconds_for = seconds_for
        self._started = self._done = self._failed = 0
        self._ended_by: Exception | None = None
        self._context = self._running()
        self._rows: ObjectReceiveStream[HarvestRow]
        self._workers = anyio.CancelScope()

    @property
    def progress(self) -> HarvestProgress:
        """Say how far the harvest is, counting the rows that were taken out."""
        unasked = None if self._total is None else max(0, self._total - self._started)
        return HarvestProgress(
            done=self._done,
            failed=self._failed,
            calls=self._calls(),
            total=self._total,
            seconds_left=None if unasked is None else self._seconds_for(unasked),
        )

    async def __aenter__(self) -> Harvest:
        return await self._context.__aenter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._context.__aexit__(exc_type, exc, traceback)

    def __aiter__(self) -> AsyncIterator[HarvestRow]:
        return self

    async def __anext__(self) -> HarvestRow:
        try:
            row = await self._rows.receive()
        except anyio.EndOfStream:
            raise self._ended_by or StopAsyncIteration from None
        self._done += 1
        self._failed += row.error is not None
        return row

    @asynccontextmanager
    async def _running(self) -> AsyncGenerator[Harvest]:
        raised = None
        rows, self._rows = anyio.create_memory_object_stream[HarvestRow]()
        async with anyio.create_task_group() as tasks, self._rows:
            tasks.start_soon(self._work_off, rows)
            try:
                yield self
            except Exception as error:  # kept, or the task group would wrap it in a group
                raised = error
            finally:
                tasks.cancel_scope.cancel()
        if raised is not None:
            raise raised

    async def _work_off(self, rows: ObjectSendStream[HarvestRow]) -> None:
        give, take = anyio.create_memory_object_stream[str](self._ahead)
        with self._workers:
            async with rows, give, take, anyio.create_task_group() as tasks:
                tasks.start_soon(self._feed, give)
                for _ in range(self._at_once):
                    tasks.start_soon(self._work, take, rows)

    async def _feed(self, give: ObjectSendStream[str]) -> None:
        seen: set[str] = set()
        try:
            async with aclosing(self._hashes):
                async for collection_hash in self._hashes:
                    if collection_hash not in seen:
                        seen.add(collection_hash)
                        await give.send(collection_hash)
        except AuthenticationError as error:
            self._end(error)
        except FlipsnackError as error:
            self._ended_by = error  # after the rows of those that were listed
        except Exception as error:  # the caller's iterator may raise what it likes
            self._end(error)
        self._total = len(seen)
        await give.aclose()

    async def _work(
        self, take: ObjectReceiveStream[str], rows: ObjectSendStream[HarvestRow]
    ) -> None:
        async for collection_hash in take:
            self._started += 1
            try:
                row = HarvestRow(collection_hash, stats=await self._ask(collection_hash))
            except AuthenticationError as error:
                self._end(error)
                return
            except FlipsnackError as error:
                # A row may be kept for hours: without the frames that its error came through.
                row = HarvestRow(collection_hash, error=error.with_traceback(None))
            await rows.send(row)

    def _end(self, error: Exception) -> None:
        self._ended_by = error
        self._workers.cancel()
