"""Actions as requests of httpx: a GET with its parameters unsigned, or a multipart POST."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx

from ._actions import Action, Document

EMPTY = httpx.ByteStream(b"")


class Requests:
    """Describe actions to the two hosts of the vendor's."""

    def __init__(self, api_url: httpx.URL, upload_url: httpx.URL, user_agent: str) -> None:
        self.api_url = api_url
        self._upload_url = upload_url
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": user_agent,
        }
        self._headers = httpx.Headers({"Host": _host(api_url), **headers})
        self._upload_headers = {"Host": _host(upload_url), **headers}

    def describe(self, action: Action[Any], timeout: float) -> httpx.Request:
        fields = {"action": action.name, **action.params}
        # The attempt as a whole has its deadline. Half of it for the connection tells a host that
        # cannot be reached, where not a byte left, from one that does not answer.
        timeouts = {"connect": timeout / 2, "read": None, "write": None, "pool": timeout / 2}
        extensions = {"timeout": timeouts, "flipsnack_fields": fields}
        if action.upload:
            body = MultipartBody(fields, action.file)
            headers = {
                **self._upload_headers,
                "Content-Type": body.content_type,
                "Content-Length": str(body.length),
            }
            return httpx.Request(
                "POST", self._upload_url, headers=headers, stream=body, extensions=extensions
            )
        # With a stream of its own, httpx adds no header: those of a read are always the same.
        return httpx.Request(
            "GET", self.api_url, headers=self._headers, stream=EMPTY, extensions=extensions
        )


def _host(url: httpx.URL) -> str:
    return url.netloc.decode("ascii")


class MultipartBody(httpx.AsyncByteStream, AsyncIterator[bytes]):
    """
    Be fields and then a document, of a length that is known beforehand; is sent once.

    *on_written* is called whenever a chunk has been written to the
    connection. *started* says that a byte may have left, *complete* that the
    last one was written. It is no generator, since whoever sends closes none
    when the connection breaks.
    """

    on_written: Callable[[], object]

    def __init__(self, fields: Mapping[str, str], file: Document | None) -> None:
        boundary = secrets.token_hex(16)
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self.started = False
        self.complete = False
        head = "".join(_field(boundary, name, value) for name, value in fields.items())
        tail = f"--{boundary}--\r\n"
        self._document: AsyncIterator[bytes] | None = None
        size = 0
        if file is not None:
            head += (
                f'--{boundary}\r\nContent-Disposition: form-data; name="file"; '
                f'filename="{file.name}"\r\nContent-Type: {file.media_type}\r\n\r\n'
            )
            tail = f"\r\n{tail}"
            size = file.size
            self._document = file.chunks()
        self._head = head.encode()
        self._tail = tail.encode()
        self.length = len(self._head) + size + len(self._tail)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        # Asked for again, whoever sends has written the chunk before.
        if self.started:
            self.on_written()
        self.started = True
        if self._head:
            chunk, self._head = self._head, b""
            return chunk
        if self._document is not None:
            async for chunk in self._document:
                return chunk
            self._document = None
        if self._tail:
            chunk, self._tail = self._tail, b""
            return chunk
        if not self.complete:
            self.complete = True
            self.on_written()
        raise StopAsyncIteration


def _field(boundary: str, name: str, value: str) -> str:
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
