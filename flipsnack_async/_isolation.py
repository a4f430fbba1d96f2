"""
Keep native cancellation away from httpcore.

`asyncio.Task.cancel` strikes wherever a task waits, also in the clean-up of a
cancelled request, and httpcore 1.0 then loses the connection's slot for ever.
So on asyncio a request and its answer, until that is closed, have a task of
their own, which is only ever cancelled through its scope: from that, clean-up
can shield itself. On trio all cancellation is like that, and nothing is done.

On both, httpcore leaves the socket of a handshake open that is cancelled; it
is closed here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from ssl import SSLError
from typing import Any

import anyio
import httpx
from anyio.abc import AsyncResource

from .transport import break_off, stream_of


class IsolatedTransport(httpx.AsyncBaseTransport):
    """Carry each request out in a task of its own, on asyncio; each answer must be closed."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport
        self._tasks: dict[asyncio.Task[None], anyio.CancelScope] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["trace"] = _Handshake()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return await self._transport.handle_async_request(request)
        exchange = _Exchange(loop)
        task = loop.create_task(exchange.carry_out(self._transport, request))
        self._tasks[task] = exchange.scope
        task.add_done_callback(self._tasks.pop)
        return await exchange.answer()

    async def aclose(self) -> None:
        for scope in self._tasks.values():
            scope.cancel()
        while self._tasks:
            await asyncio.wait(list(self._tasks))
        await self._transport.aclose()


class _Handshake:
    """Be told how a connection comes about, and close it if its encryption does not."""

    def __init__(self) -> None:
        self._connection: AsyncResource | None = None

    async def __call__(self, event: str, told: Mapping[str, Any]) -> None:
        # With the host, with a proxy, or with the host through a proxy.
        if event.endswith(".connect_tcp.complete"):
            self._connection = told["return_value"]
        elif event.endswith(".start_tls.failed") and self._connection is not None:
            with anyio.CancelScope(shield=True):
                await self._connection.aclose()


class _Exchange(AsyncIterator[bytes], httpx.AsyncByteStream):
    """Carry a request and its answer between a task of its own and whoever asked."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.scope = anyio.CancelScope()
        self._head: asyncio.Future[httpx.Response] = loop.create_future()
        # One ahead: an answer of a single chunk waits for nobody.
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._is_over = False
        self._failure: Exception | None = httpx.ReadError("the client was closed")

    async def carry_out(self, transport: httpx.AsyncBaseTransport, request: httpx.Request) -> None:
        try:
            with self.scope:
                response = await transport.handle_async_request(request)
                body, response.stream = stream_of(response), self
                if not self._head.done():
                    self._head.set_result(response)
                await self._pass_on(body)
                self._failure = None
        except SSLError:  # which httpcore lets through as it is, and nobody above expects
            self._failure = httpx.ReadError("the encryption broke")
        except Exception as error:
            self._failure = error
        finally:
            self._is_over = True
            with suppress(asyncio.QueueFull):  # then nobody waits for more
                self._chunks.put_nowait(None)
            # Whoever waits is told what went wrong; where nobody does, the future is cancelled.
            if self._failure is not None and not self._head.done():
                self._head.set_exception(self._failure)

    async def _pass_on(self, body: httpx.AsyncByteStream) -> None:
        chunks = aiter(body)
        try:
            async for chunk in chunks:
                await self._chunks.put(chunk)
        except BaseException:
            await break_off(chunks)
            raise
        finally:
            await body.aclose()

    async def answer(self) -> httpx.Response:
        try:
            return await self._head
        except BaseException:
            await self.aclose()
            raise

    async def __anext__(self) -> bytes:
        has_more = not self._is_over or not self._chunks.empty()
        chunk = await self._chunks.get() if has_more else None
        if chunk is None:
            raise self._failure or StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        self.scope.cancel()  # and waits for nothing, so that no cancellation can come between
