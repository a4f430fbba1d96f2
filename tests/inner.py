"""An innermost transport that does as it is told, and the credentials above it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx

from flipsnack_async._signing import Credentials
from flipsnack_async.transport import SigningTransport

API = "https://api.flipsnack.com/v1/"
KEY = "45FD-267-7SG7832"
SECRET = "123ABCDE-456-7890-FGH"

Handler = Callable[[httpx.Request], Awaitable[httpx.Response]]


class Inner(httpx.AsyncBaseTransport):
    """Be an innermost transport that does as its function says; it reads no body by itself."""

    def __init__(self, handle: Handler) -> None:
        self.handle = handle
        self.seen: list[httpx.Request] = []
        self.closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        return await self.handle(request)

    async def aclose(self) -> None:
        self.closed = True


async def ok(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200)


def signing(inner: httpx.AsyncBaseTransport) -> SigningTransport:
    return SigningTransport(inner, Credentials(KEY, SECRET))
