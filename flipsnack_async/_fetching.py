"""Follow links to packages, on connections that never carry a key."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TypeAlias, TypeVar

import anyio
import httpx

from ._links import TransferBrokenError, UnsafeLinkError, checked_link, redirected
from ._redaction import reticence
from ._signing import Hidden
from .transport import aim, break_off, stream_of

T = TypeVar("T")

REDIRECTS = 3
_Wait: TypeAlias = Callable[[Callable[[], Awaitable[bytes]], str], Awaitable[bytes]]


class Fetcher:
    """
    Open links over a *transport* that somebody else closes.

    *check_open* raises when nothing is to be fetched any more; `stop` lets
    whoever waits for a host find that out.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        check_open: Callable[[], None],
        *,
        from_loopback: bool,
        user_agent: str,
    ) -> None:
        self._transport = transport
        self._check_open = check_open
        self._from_loopback = from_loopback
        self._headers = {"Accept-Encoding": "identity", "User-Agent": user_agent}
        self._waits: set[anyio.CancelScope] = set()

    @asynccontextmanager
    async def follow(
        self, link: str, headers: Mapping[str, str], *, patience: float
    ) -> AsyncGenerator[Fetched]:
        """
        Open *link*, and close what it led to at the end of the block.

        *patience* is in seconds without progress.
        """
        address = checked_link(link, from_loopback=self._from_loopback)
        with reticence():  # where a host sends its reader is a link as good as the first
            for _ in range(1 + REDIRECTS):
                response = await self._get(address, headers, patience)
                async with aclosing(Fetched(response, partial(self._wait, patience))) as fetched:
                    if not response.has_redirect_location:
                        yield fetched
                        return
                location = response.headers["Location"]
                address = redirected(address, location, from_loopback=self._from_loopback)
        raise UnsafeLinkError("redirects more than three times")

    def stop(self) -> None:
        for wait in self._waits:
            wait.cancel()

    async def _get(
        self, address: httpx.URL, headers: Mapping[str, str], patience: float
    ) -> httpx.Response:
        # Whatever traces requests is shown an address that leads nowhere.
        shown = address.copy_with(query=None)
        request = httpx.Request("GET", shown, headers={**self._headers, **headers})
        aimed = aim(request, Hidden(address.raw_path))
        send = partial(self._transport.handle_async_request, aimed)
        return await self._wait(patience, send, "its host did not answer")

    async def _wait(self, patience: float, what: Callable[[], Awaitable[T]], failure: str) -> T:
        self._check_open()
        problem: Exception = TransferBrokenError(f"nothing came for {patience:g} s")
        with anyio.move_on_after(patience) as wait:
            self._waits.add(wait)
            try:
                return await what()
            except httpx.HTTPError as error:
                problem = TransferBrokenError(f"{failure} ({type(error).__name__})")
            except UnicodeError:  # only those who look a host up know which names there can be
                problem = UnsafeLinkError("names no host that there can be")
            finally:
                self._waits.remove(wait)
        self._check_open()
        # Bare, like all that goes out of here: a traceback of the HTTP library's holds the link.
        raise problem


class Fetched(AsyncIterator[bytes]):
    """Hold what a link led to, and iterate over its body."""

    def __init__(self, response: httpx.Response, wait: _Wait) -> None:
        self.status = response.status_code
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self._wait = wait
        self._stream = stream_of(response)
        self._body = aiter(self._stream)

    async def __anext__(self) -> bytes:
        return await self._wait(partial(anext, self._body), "the connection broke")

    async def aclose(self) -> None:
        try:
            await break_off(self._body)
        finally:
            await self._stream.aclose()
