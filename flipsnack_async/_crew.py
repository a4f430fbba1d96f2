"""Work through many collections at once, and hand out a row for each as it comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from types import TracebackType
from typing import Generic, Self, TypeVar

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream

from .errors import (
    AuthenticationError,
    ClientClosedError,
    FlipsnackError,
    InvalidArgumentError,
)

Row = TypeVar("Row")


class StopError(Exception):
    """Say that the work on one collection found out why all work is to end: *error*."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


async def once_each(hashes: AsyncGenerator[str]) -> AsyncGenerator[str]:
    """Leave out what came before."""
    seen: set[str] = set()
    async with aclosing(hashes):
        async for collection_hash in hashes:
            if collection_hash not in seen:
                seen.add(collection_hash)
                yield collection_hash


class Rows(AsyncIterator[Row]):
    """Hold rows that come inside an ``async with`` block, which is entered once."""

    def __init__(self, what: str, working: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        self._what = what
        self._working = working
        self._context: AbstractAsyncContextManager[None] | None = None

    async def __aenter__(self) -> Self:
        if self._context is not None:
            raise ClientClosedError(f"the {self._what} has had its block; make another")
        self._context = self._working()
        await self._context.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if self._context is None:
            return None
        return await self._context.__aexit__(exc_type, exc, traceback)


class Crew(Generic[Row]):
    """
    Hold workers, who live inside an ``async with`` block and nowhere else.

    *work* makes the row of a hash, or none where the hash will come again;
    *excuse* makes that of one on which the work failed. Else no hash may come
    twice.
    """

    def __init__(
        self,
        work: Callable[[str], Awaitable[Row | None]],
        excuse: Callable[[str, FlipsnackError], Row],
        hashes: AsyncGenerator[str],
        *,
        at_once: int,
        ahead: float,
        total: int | None,
    ) -> None:
        if type(at_once) is not int or at_once < 1:
            raise InvalidArgumentError("at_once", "give a whole number, at least 1")
        self._do = work
        self._excuse = excuse
        self._hashes = hashes
        self._at_once = at_once
        self._ahead = ahead
        self.total = total
        self.started = self.done = self.failed = 0
        self._ended_by: Exception | None = None
        self._rows: ObjectReceiveStream[tuple[Row, bool]] | None = None
        self._workers = anyio.CancelScope()

    async def take(self) -> Row:
        """Take out the next row; raises `StopAsyncIteration` after the last one."""
        if self._rows is None:
            raise ClientClosedError("rows come inside the `async with` block only")
        try:
            row, is_good = await self._rows.receive()
        except anyio.EndOfStream:
            raise self._ended_by or StopAsyncIteration from None
        self.done += 1
        self.failed += not is_good
        return row

    @asynccontextmanager
    async def working(self) -> AsyncGenerator[None]:
        raised: BaseException | None = None
        give, take = anyio.create_memory_object_stream[tuple[Row, bool]]()
        self._rows = take
        async with anyio.create_task_group() as tasks, take:
            tasks.start_soon(self._work_off, give)
            try:
                yield
            # Kept, or the task group would wrap it in a group.
            except (Exception, KeyboardInterrupt, SystemExit) as error:
                raised = error
            finally:
                self._rows = None
                tasks.cancel_scope.cancel()
        if raised is not None:
            raise raised

    async def _work_off(self, rows: ObjectSendStream[tuple[Row, bool]]) -> None:
        give, take = anyio.create_memory_object_stream[str](self._ahead)
        with self._workers:
            async with rows, give, take, anyio.create_task_group() as tasks:
                tasks.start_soon(self._feed, give)
                for _ in range(self._at_once):
                    tasks.start_soon(self._work, take, rows)

    async def _feed(self, give: ObjectSendStream[str]) -> None:
        fed = 0
        try:
            async with aclosing(self._hashes):
                async for collection_hash in self._hashes:
                    fed += 1
                    await give.send(collection_hash)
        except (AuthenticationError, ClientClosedError) as error:
            self._end(error)
        except FlipsnackError as error:
            self._ended_by = error  # after the rows of those that were listed
        except Exception as error:  # the caller's iterator may raise what it likes
            self._end(error)
        self.total = fed
        await give.aclose()

    async def _work(
        self, take: ObjectReceiveStream[str], rows: ObjectSendStream[tuple[Row, bool]]
    ) -> None:
        async for collection_hash in take:
            self.started += 1
            try:
                row, is_good = await self._do(collection_hash), True
            except (AuthenticationError, ClientClosedError) as error:
                self._end(error)
                return
            except StopError as stop:
                self._end(stop.error)
                return
            except FlipsnackError as error:
                # A row may be kept for hours: without the frames that its error came through.
                row, is_good = self._excuse(collection_hash, error.with_traceback(None)), False
            except Exception as error:  # the caller's transport may raise what it likes
                self._end(error)
                return
            if row is not None:
                await rows.send((row, is_good))

    def _end(self, error: Exception) -> None:
        self._ended_by = error
        self._workers.cancel()
