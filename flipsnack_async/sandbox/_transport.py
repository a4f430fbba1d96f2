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
    answer leaves; a package leaves as it is read. The request extension
    *target* (bytes: path and query) replaces those of the URL.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        line = _Line(self._app, request.extensions.get("target"))
        response = await httpx.ASGITransport(line).handle_async_request(request)
        response.stream = _Body(line, response.stream)
        return response


class _Line:
    """An application at the other end of a connection that can be cut."""

    def __init__(self, app: ASGIApp, target: bytes | None) -> None:
        self._app = app
        self._aim = {} if target is None else _aim(target)
        self.error: httpx.TransportError | None = None
        self.carried: AsyncIterator[bytes] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_all = has_answer = False

        async def hear() -> Message:
            nonlocal has_all
            if self.error is not None:
                return {"type": "http.disconnect"}
            message = await receive()
            has_all = not message.get("more_body")
            return message

        async def say(message: Message) -> None:
            nonlocal has_answer
            has_answer = True
            await send(message)

        state = {CONNECTION: Connection(close=self._close, reset=self._reset, carry=self._carry)}
        await self._app({**scope, **self._aim, "state": state}, hear, say)
        while not has_all:
            await hear()
        if self.error is not None and not has_answer:
            raise self.error
        if self.error is not None or self.carried is not None:
            # ASGITransport wants an end: what it lacks is up to whoever reads the body.
            await send({"type": "http.response.body"})

    def _close(self) -> None:
        self.error = httpx.RemoteProtocolError("the sandbox broke off its answer")

    def _reset(self) -> None:
        self.error = httpx.ReadError("the sandbox reset the connection")

    def _carry(self, body: AsyncIterator[bytes]) -> None:
        self.carried = body


class _Body(httpx.AsyncByteStream):
    """What is carried over a line, or else was *said* on it, up to where that breaks."""

    def __init__(self, line: _Line, said: Any) -> None:
        self._line = line
        self._said = said

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._line.carried or self._said:
            yield chunk
        if self._line.error is not None:
            raise self._line.error


# Not through httpx.URL: that would quote what it finds odd, and the target is sent as it is.
def _aim(target: bytes) -> dict[str, Any]:
    raw_path, _, query_string = target.partition(b"?")
    path = unquote(raw_path.decode("ascii"))
    return {"path": path, "raw_path": raw_path, "query_string": query_string}
