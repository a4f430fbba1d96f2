"""
Keep native cancellation away from httpcore.

`asyncio.Task.cancel` strikes wherever a task waits, also in the clean-up of a
cancelled request, and httpcore 1.0 then loses the connection's slot for ever.
So on asyncio a request and its answer, read to the end, have a task of their
own, which is only ever cancelled through its scope: from that, clean-up can
shield itself. On trio all cancellation is like that, and nothing is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

import anyio
import httpx

from .transport import read_capped, stream_of

T = TypeVar("T")


class IsolatedTransport(httpx.AsyncBaseTransport):
    """Carry each request out in a task of its own, on asyncio."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport
        self._tasks: dict[asyncio.Task[None], anyio.CancelScope] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return await self._transport.handle_async_request(request)
        exchange = _Exchange(loop)
        task = loop.create_task(exchange.carry_out(self._transport, request))
        self._tasks[task] = exchange.scope
        task.add_done_callback(self._tasks.pop)
        return await exchange.wait_for(exchange.head)

    async def aclose(self) -> None:
        for scope in self._tasks.values():
            scope.cancel()
        while self._tasks:
            await asyncio.wait(list(self._tasks))
        await self._transport.aclose()


class _Exchange(httpx.AsyncByteStream):
    """Carry a request and its answer between a task of its own and whoever asked."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.scope = anyio.CancelScope()
        self.head: asyncio.Future[httpx.Response] = loop.create_future()
        self._body: asyncio.Future[bytes] = loop.create_future()

    async def carry_out(self, transport: httpx.AsyncBaseTransport, request: httpx.Request) -> None:
        failure: Exception = httpx.ReadError("the client was closed")
        try:
            with self.scope:
                response = await transport.handle_async_request(request)
                answer, response.stream = stream_of(response), self
                if not self.head.done():
                    self.head.set_result(response)
                body = await read_capped(answer)
                if not self._body.done():
                    self._body.set_result(body)
        except Exception as error:
            failure = error
        finally:
            # Whoever waits is told what went wrong; where nobody does, the future is cancelled.
            waited_for = self._body if self.head.done() else self.head
            if not waited_for.done():
                waited_for.set_exception(failure)

    async def wait_for(self, future: asyncio.Future[T]) -> T:
        try:
            return await future
        except asyncio.CancelledError:
            self.scope.cancel()
            self._body.cancel()
            raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield await self.wait_for(self._body)

    async def aclose(self) -> None:
        self.scope.cancel()
