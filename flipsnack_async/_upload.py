"""
Documents from disk or memory, on their way to the vendor.

A document is checked before anything is sent. It is read off the event loop,
a chunk at a time, and hashed as it is read. Each sending starts anew, and one
during which the file changes breaks off before its last byte.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from threading import Lock
from typing import IO, Final, TypeAlias
from urllib.parse import urlsplit

import anyio

from . import _blocking
from .errors import InvalidArgumentError, UploadOutcomeUnknownError

Source: TypeAlias = str | os.PathLike[str] | bytes | anyio.AsyncFile[bytes]
OnProgress: TypeAlias = Callable[[int], object]

logger = logging.getLogger("flipsnack_async")

# On a slow line each is a sign of progress, so they must not be large.
CHUNK: Final = 128 * 1024
# https://developers.flipsnack.com/api-limitations; it has been raised before, so it only warns.
LARGEST: Final = 500 * 10**6

# The name is the vendor's example's: a file's own may hold what breaks a header.
_KINDS: Final = (
    (b"%PDF-", "document.pdf", "application/pdf"),
    (b"\xff\xd8\xff", "document.jpg", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "document.png", "image/png"),
)
# As far into a file as readers of PDF look for its mark.
_BEGINNING: Final = 1024


class DocumentLostError(Exception):
    """Say that a document changed, or could not be read on, while it was sent."""


class OpenDocument:
    """Hold a document that is open: *size* bytes from where it stood when it was opened."""

    def __init__(self, file: IO[bytes], on_progress: OnProgress | None) -> None:
        self._file = file
        self._on_progress = on_progress
        self._start = file.tell()
        self.size = file.seek(0, os.SEEK_END) - self._start
        self._stamp = self._stamp_now()
        file.seek(self._start)
        self.name, self.media_type = _kind_of(file.read(_BEGINNING))
        self._read = 0
        self._digest = hashlib.sha256()
        self._reading = Lock()  # a sending that was given up may still be at it

    def chunks(self) -> AsyncIterator[bytes]:
        """Read from the beginning, and tell how far it is each time that a chunk has gone."""
        self._read = 0
        self._digest = hashlib.sha256()
        return _Chunks(self)

    async def next_chunk(self) -> bytes:
        """Read on; raises `DocumentLostError` where the file is not what it was."""
        return await _blocking.off_the_loop(self._next_chunk)

    async def sha256(self) -> str | None:
        """Tell the document's digest, reading on if need be; None where that fails."""
        with suppress(DocumentLostError):
            while self._read < self.size:
                await self.next_chunk()
            return self._digest.hexdigest()
        return None

    def tell_progress(self, sent: int) -> None:
        if self._on_progress is not None:
            self._on_progress(sent)

    def _next_chunk(self) -> bytes:
        with self._reading:
            try:
                self._file.seek(self._start + self._read)
                chunk = self._file.read(min(CHUNK, self.size - self._read))
                changed = not chunk or self._stamp_now() != self._stamp
            except (OSError, ValueError) as error:
                problem = getattr(error, "strerror", None) or "it is closed"
                raise DocumentLostError(f"the document could not be read on ({problem})") from None
            if changed:
                raise DocumentLostError("the document changed while it was sent")
            self._read += len(chunk)
            self._digest.update(chunk)
            return chunk

    def _stamp_now(self) -> object:
        try:
            now = os.fstat(self._file.fileno())
        except (AttributeError, io.UnsupportedOperation):
            return None  # not on disk
        return now.st_size, now.st_mtime_ns


class _Chunks(AsyncIterator[bytes]):
    """Read a document on; no generator, since a sending that breaks off closes none."""

    def __init__(self, document: OpenDocument) -> None:
        self._document = document
        self._sent = 0

    async def __anext__(self) -> bytes:
        if self._sent:
            self._document.tell_progress(self._sent)
        if self._sent == self._document.size:
            raise StopAsyncIteration
        chunk = await self._document.next_chunk()
        self._sent += len(chunk)
        return chunk


@asynccontextmanager
async def opened(
    field: str, source: Source, on_progress: OnProgress | None = None
) -> AsyncGenerator[OpenDocument | str]:
    """
    Open what *field* was given, for the length of a block; an open file is left open.

    An address, from which the vendor is to fetch the document, is passed on.
    An outcome that is unknown leaves the block with the document's size and
    digest. Raises `InvalidArgumentError`.
    """
    if isinstance(source, str) and _is_address(field, source):
        yield source
        return
    file, is_ours = await _open(field, source)
    try:
        document = await _examine(field, file, on_progress)
        try:
            yield document
        except UploadOutcomeUnknownError as error:
            error.size = document.size
            error.sha256 = await document.sha256()
            raise
    finally:
        if is_ours:
            # In a thread like all reading: closing waits for a read that is under way.
            with anyio.CancelScope(shield=True):
                await _blocking.off_the_loop(file.close)


async def _open(field: str, source: Source) -> tuple[IO[bytes], bool]:
    if isinstance(source, bytes):
        return io.BytesIO(source), True
    if isinstance(source, anyio.AsyncFile):
        return source.wrapped, False
    if isinstance(source, (str, os.PathLike)):
        problem = ""
        try:
            return await _blocking.off_the_loop(_open_file, source), True
        except FileNotFoundError:
            problem = "there is no such file"
        except OSError as error:
            problem = error.strerror or "cannot be opened"
        except ValueError:
            problem = "is no path"
        raise InvalidArgumentError(field, f"{os.fspath(source)!r}: {problem}")
    raise InvalidArgumentError(
        field, "give a path, bytes, a file opened by anyio.open_file, or an https address"
    )


def _open_file(path: str | os.PathLike[str]) -> IO[bytes]:
    # Looked at first: opening a pipe would wait for somebody to write to it.
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise OSError(0, "is a directory" if stat.S_ISDIR(mode) else "is no regular file")
    return open(path, "rb")


async def _examine(field: str, file: IO[bytes], on_progress: OnProgress | None) -> OpenDocument:
    try:
        document = await _blocking.off_the_loop(OpenDocument, file, on_progress)
    except (OSError, ValueError, TypeError):
        document = None
    if document is None:
        raise InvalidArgumentError(field, "give a file that is open in binary mode and can seek")
    if not document.size:
        raise InvalidArgumentError(field, "is empty, or was read to its end before")
    return document


def warn_of(document: OpenDocument) -> None:
    """Log what the vendor may refuse a document for. His limits vary, so he is the judge."""
    if document.media_type != "application/pdf":
        logger.warning("the document is no PDF by its content; Flipsnack may refuse it")
    if document.size > LARGEST:
        logger.warning("the document is larger than 500 MB; Flipsnack may refuse it")


def _kind_of(beginning: bytes) -> tuple[str, str]:
    for mark, name, media_type in _KINDS:
        if mark in beginning if mark == b"%PDF-" else beginning.startswith(mark):
            return name, media_type
    return "document", "application/octet-stream"


def _is_address(field: str, source: str) -> bool:
    if not re.match("[a-z][a-z0-9+.-]+://", source, re.IGNORECASE):
        return False
    try:
        address = urlsplit(source)
    except ValueError:
        address = urlsplit("")
    # The address itself stays out of the error: such links often need no password.
    if address.scheme.lower() != "https" or not address.hostname:
        raise InvalidArgumentError(field, "give an address that starts with https:// and a host")
    return True
