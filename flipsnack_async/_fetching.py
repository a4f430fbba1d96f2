"""Follow links to packages, on connections that never carry a key."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress

import anyio
import httpx

from ._links import TransferBrokenError, UnsafeLinkError, checked_link, redirected
from .transport import stream_of

REDIRECTS = 3


class Fetcher:
    """
    Open links, each with a transport that *connect* makes and that is closed after it.

    *timeout* is in seconds without progress.
    """

    def __init__(
        self,
        connect: Callable[[], httpx.AsyncBaseTransport],
        *,
        from_loopback: bool,
        timeout: float,
        user_agent: str,
    ) -> None:
        self._connect = connect
        self._from_loopback = from_loopback
        self._timeout = timeout
        self._headers = {"Accept-Encoding": "identity", "User-Agent": user_agent}

    @asynccontextmanager
    async def follow(self, link: str, headers: Mapping[str, str]) -> AsyncGenerator[Fetched]:
        """Open *link*, and close what it led to at the end of the block."""
        address = checked_link(link, from_loopback=self._from_loopback)
        transport = self._connect()
        try:
            response = await self._get(transport, address, headers)
            for _ in range(REDIRECTS):
                if not response.has_redirect_location:
                    break
                await response.aclose()
                location = response.headers["Location"]
                address = redirected(address, location, from_loopback=self._from_loopback)
                response = await self._get(transport, address, headers)
            if response.has_redirect_location:
                raise UnsafeLinkError("leads from one host to the next")
            async with aclosing(Fetched(response, self._timeout)) as fetched:
                yield fetched
        finally:
            with anyio.move_on_after(1, shield=True):
                await transport.aclose()

    async def _get(
        self, transport: httpx.AsyncBaseTransport, address: str, headers: Mapping[str, str]
    ) -> httpx.Response:
        request = httpx.Request("GET", address, headers={**self._headers, **headers})
        failure = f"no answer within {self._timeout:g} s"
        with anyio.move_on_after(self._timeout):
            try:
                return await transport.handle_async_request(request)
            except httpx.HTTPError as error:
                failure = f"its host did not answer ({type(error).__name__})"
        # Bare, like all that goes out of here: a traceback of the HTTP library's holds the link.
        raise TransferBrokenError(failure)


class Fetched(AsyncIterator[bytes]):
    """Hold what a link led to, and iterate over its body."""

    def __init__(self, response: httpx.Response, timeout: float) -> None:
        self.status = response.status_code
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self._timeout = timeout
        self._stream = stream_of(response)
        self._body = aiter(self._stream)

    async def __anext__(self) -> bytes:
        failure = f"nothing came for {self._timeout:g} s"
        with anyio.move_on_after(self._timeout):
            try:
                return await anext(self._body)
            except httpx.HTTPError as error:
                failure = f"the connection broke ({type(error).__name__})"
        raise TransferBrokenError(failure)

    async def aclose(self) -> None:
        # A body is generators within generators, which only an end from the innermost one closes
        # all; else the garbage collector finds them. So whatever they wait for next is cancelled.
        with anyio.CancelScope() as ending, suppress(httpx.HTTPError):
            ending.cancel()
            async for _ in self._body:
                pass
        await self._stream.aclose()
