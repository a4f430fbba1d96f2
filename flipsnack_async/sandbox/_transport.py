"""The sandbox as an httpx transport: no socket, no thread, any event loop."""

from urllib.parse import unquote

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send


class SandboxTransport(httpx.AsyncBaseTransport):
    """
    Hand requests to the application as a server on a socket would.

    A body is read to its end before the application sees the call, and the
    request extension *target* (bytes: path and query) replaces those of the URL.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        # A copy: aread() would make the caller's request repeatable, which a socket never does.
        received = httpx.Request(
            request.method, request.url, headers=request.headers, stream=request.stream
        )
        await received.aread()
        target: bytes | None = request.extensions.get("target")
        app = self._app if target is None else _aimed(self._app, target)
        return await httpx.ASGITransport(app).handle_async_request(received)


# Not through httpx.URL: that would quote what it finds odd, and the target is sent as it is.
def _aimed(app: ASGIApp, target: bytes) -> ASGIApp:
    raw_path, _, query_string = target.partition(b"?")
    path = unquote(raw_path.decode("ascii"))

    async def aimed(scope: Scope, receive: Receive, send: Send) -> None:
        aim = {"path": path, "raw_path": raw_path, "query_string": query_string}
        await app({**scope, **aim}, receive, send)

    return aimed
