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
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from threading import Lock
from typing import IO, Final, TypeAlias
from urllib.parse import urlsplit

import anyio

from . import _blocking, _checks
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


# What was opened by callers and is on its way: it has one place only to be read from.
_being_sent: Final[set[int]] = set()


class DocumentLostError(Exception):
    """Say that a document changed, or could not be read on, while it was sent."""


class OpenDocument:
    """
    Hold a document from its opening to its closing.

    It has *size* bytes, from where the file stood. Threads read it; one that
    nobody waits for any more closes it when it is done.
    """

    def __init__(
        self, source: str | os.PathLike[str] | IO[bytes], on_progress: OnProgress | None
    ) -> None:
        self._source = source
        self._on_progress = on_progress
        self._in_use = Lock()
        self._given_up = False
        self._file: IO[bytes]
        self._digest = hashlib.sha256()
        self._read = 0
        self.size = 0
        self.name = self.media_type = ""

    async def open(self) -> None:
        await _blocking.off_the_loop(self._open)

    def close(self) -> None:
        """Close the file now, or when whoever reads it is done; one that was given stays open."""
        self._given_up = True
        self._close_if_idle()

    def chunks(self) -> AsyncIterator[bytes]:
        """Read from the beginning, and tell how far it is each time that a chunk has gone."""
        self._digest = hashlib.sha256()
        self._read = 0
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

    def _open(self) -> None:
        with self._using():
            if isinstance(self._source, (str, os.PathLike)):
                # Looked at first: opening a pipe would wait for somebody to write to it.
                mode = os.stat(self._source).st_mode
                if not stat.S_ISREG(mode):
                    is_folder = stat.S_ISDIR(mode)
                    raise OSError(0, "is a directory" if is_folder else "is no regular file")
                self._file = open(self._source, "rb")  # noqa: SIM115  until close
            else:
                self._file = self._source
            self._start = self._file.tell()
            self.size = self._file.seek(0, os.SEEK_END) - self._start
            self._stamp = self._stamp_now()
            self._file.seek(self._start)
            self.name, self.media_type = _kind_of(self._file.read(_BEGINNING))

    def _next_chunk(self) -> bytes:
        with self._using():
            if self._read == self.size:
                return b""  # a sending that was given up has read the rest
            try:
                self._file.seek(self._start + self._read)
                chunk = self._file.read(min(CHUNK, self.size - self._read))
                read = self._file.tell() - self._start
                changed = not chunk or self._stamp_now() != self._stamp
            except (OSError, ValueError) as error:
                problem = getattr(error, "strerror", None) or "it is closed"
                raise DocumentLostError(f"the document could not be read on ({problem})") from None
            if changed or read != self._read + len(chunk):
                raise DocumentLostError("the document changed while it was sent")
            self._read += len(chunk)
            self._digest.update(chunk)
            return chunk

    @contextmanager
    def _using(self) -> Iterator[None]:
        try:
            with self._in_use:
                yield
        finally:
            if self._given_up:
                self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._in_use.acquire(blocking=False):
            if hasattr(self, "_file") and self._file is not self._source:
                self._file.close()
            self._in_use.release()

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
    _checks.function("on_progress", on_progress)
    document = OpenDocument(_readable(field, source), on_progress)
    given = source.wrapped if isinstance(source, anyio.AsyncFile) else document
    if id(given) in _being_sent:
        raise InvalidArgumentError(field, "is being uploaded already; open the file once more")
    _being_sent.add(id(given))
    try:
        await _open(field, source, document)
        try:
            yield document
        except UploadOutcomeUnknownError as error:
            error.size = document.size
            error.sha256 = await document.sha256()
            raise
    finally:
        _being_sent.discard(id(given))
        document.close()


def _readable(field: str, source: Source) -> str | os.PathLike[str] | IO[bytes]:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, anyio.AsyncFile):
        return source.wrapped
    if isinstance(source, (str, os.PathLike)):
        return source
    raise InvalidArgumentError(
        field, "give a path, bytes, a file opened by anyio.open_file, or an https address"
    )


async def _open(field: str, source: Source, document: OpenDocument) -> None:
    is_path = isinstance(source, (str, os.PathLike))
    problem = "is empty, or was read to its end before"
    try:
        await document.open()
    except FileNotFoundError:
        problem = "there is no such file"
    except OSError as error:
        problem = error.strerror or "give a file that can seek"
    except (ValueError, TypeError):
        problem = "is no path" if is_path else "give a file that is open in binary mode"
    if not document.size:
        named = f"{str(source)!r}: " if is_path else ""
        raise InvalidArgumentError(field, f"{named}{problem}")


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
    if not source.isprintable():
        raise InvalidArgumentError(field, "holds a control character")
    return True
