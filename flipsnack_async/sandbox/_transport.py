"""The sandbox as an httpx transport: no socket, no thread, any event loop."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ._breakdowns import CONNECTION, Connection


class SandboxTransport(httpx.AsyncBaseTransport):
    """
    Hand requests to the application as a server on a socket would.

    A body is taken as it comes, chunk by chunk, and to its end before the
    answer leaves. The request extension *target* (bytes: path and query)
    replaces those of the URL.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        line = _Line(self._app, request.extensions.get("target"))
        response = await httpx.ASGITransport(line).handle_async_request(request)
        if line.is_cut:
            response.stream = _TornBody(response.stream)
        return response


class _Line:
    """An application at the other end of a connection that can be cut."""

    def __init__(self, app: ASGIApp, target: bytes | None) -> None:
        self._app = app
        self._aim = {} if target is None else _aim(target)
        self.is_cut = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_all = has_answer = False

        async def hear() -> Message:
            nonlocal has_all
            if self.is_cut:
                return {"type": "http.disconnect"}
            message = await receive()
            has_all = not message.get("more_body")
            return message

        async def say(message: Message) -> None:
            nonlocal has_answer
            has_answer = True
            await send(message)

        state = {CONNECTION: Connection(close=self._cut, reset=self._cut)}
        await self._app({**scope, **self._aim, "state": state}, hear, say)
        while not has_all:
            await hear()
        if not self.is_cut:
            return
        if not has_answer:
            raise httpx.ReadError("the sandbox reset the connection")
        # ASGITransport wants an end: what is missing is missed by whoever reads the body.
        await send({"type": "http.response.body"})

    def _cut(self) -> None:
        self.is_cut = True


class _TornBody(httpx.AsyncByteStream):
    """Break off where *half* ends."""

    def __init__(self, half: Any) -> None:
        self._half = half

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._half:
            yield chunk
        raise httpx.RemoteProtocolError("the sandbox broke off its answer")


# Not through httpx.URL: that would quote what it finds odd, and the target is sent as it is.
def _aim(target: bytes) -> dict[str, Any]:
    raw_path, _, query_string = target.partition(b"?")
    path = unquote(raw_path.decode("ascii"))
    return {"path": path, "raw_path": raw_path, "query_string": query_string}
