"""Packages on their way, as far as they come."""

from collections.abc import AsyncIterator

import anyio
import attrs
from anyio.lowlevel import checkpoint
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ._breakdowns import Connection, breakable, connection_of, disconnected
from ._ledger import SandboxDownload
from ._packages import Package
from ._ranges import Part


@attrs.frozen
class Mishap:
    """What becomes of a transfer: cut after some bytes, or told to be of another length."""

    cut_at: int | None = None
    length: int | None = None


class Transfer(Response):
    """Send a part of a package piece by piece, and note how far it comes."""

    media_type = "application/zip"

    def __init__(
        self, package: Package, part: Part, note: SandboxDownload, mishap: Mishap, *, ranges: bool
    ) -> None:
        size = len(part.span)
        promised = size if mishap.length is None else mishap.length
        headers = {"content-length": str(promised), "etag": package.etag}
        if ranges:
            headers["accept-ranges"] = "bytes"
        if part.content_range is not None:
            headers["content-range"] = part.content_range
        super().__init__(status_code=part.status, headers=headers)
        # Of a package that is longer than promised, a client takes what was promised.
        kept = min(size, promised if mishap.cut_at is None else mishap.cut_at)
        self._package = package
        self._span = part.span[:kept]
        self._note = note
        self._is_whole = kept == promised
        self._resets = mishap.cut_at is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = connection_of(scope) if self._is_whole else breakable(scope)
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body"})
        elif connection is not None and connection.carry is not None:
            connection.carry(self._chunks(connection))
        else:
            await self._send(connection, receive, send)

    async def _chunks(self, connection: Connection | None) -> AsyncIterator[bytes]:
        for chunk in self._package.read(self._span):
            await checkpoint()
            self._note.sent += len(chunk)
            yield chunk
        if connection is not None and not self._is_whole:
            end = connection.reset if self._resets else connection.close
            end()

    async def _send(self, connection: Connection | None, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_watch, receive, tasks.cancel_scope)
            async for chunk in self._chunks(connection):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if self._is_whole:
                await send({"type": "http.response.body"})
                tasks.cancel_scope.cancel()


async def _watch(receive: Receive, sending: anyio.CancelScope) -> None:
    await disconnected(receive)
    sending.cancel()
