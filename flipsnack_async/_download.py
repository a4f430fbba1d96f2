"""
A package from its link to a file that is whole, or not there.

The link lives a minute. It is followed at once; when it is older than that,
expired, or the transfer broke off, it is asked for anew, and the transfer goes
on where it stopped if the host has the same file still. What arrives goes into
a neighbour of the target, is checked member by member, and then renamed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import re
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from datetime import UTC, datetime
from glob import escape
from pathlib import Path
from threading import Lock
from typing import IO, Final, TypeAlias, cast

import anyio

from . import _blocking, _checks
from ._links import Answer, Follow, TransferBrokenError, UnsafeLinkError
from ._unpack import check_package
from .errors import DownloadError, InvalidArgumentError
from .models import Package, SavedPackage

OnBytes: TypeAlias = Callable[[int, int | None], object]

# Seconds after which a link is not tried any more: it lives 60, and the answer took some of them.
STALE: Final = 45.0
ATTEMPTS: Final = 6
BATCH: Final = 256 * 1024  # written at a time
SUFFIX: Final = ".part"
LEFT_BEHIND: Final = 3600.0  # seconds without a write, after which nobody works on a neighbour
EXPIRED: Final = frozenset({403, 404, 410})
OK: Final = 200
PARTIAL: Final = 206


class _ExpiredError(Exception):
    """Say that a link leads nowhere any more."""


async def save_package(
    ask: Callable[[], Awaitable[Package]],
    follow: Follow,
    collection_hash: str,
    target: str | os.PathLike[str],
    *,
    overwrite: bool,
    on_progress: OnBytes | None,
    turn: AbstractAsyncContextManager[object],
) -> SavedPackage:
    """
    Ask for a package until it is complete, and for its link as often as that is needed.

    It is fetched inside *turn*, which bounds how many are at once.
    """
    _checks.function("on_progress", on_progress)
    part = _PartFile(collection_hash, target, overwrite=overwrite)
    try:
        await _blocking.off_the_loop(part.check_target)
        transfer = _Transfer(ask, follow, collection_hash, part, on_progress)
        await transfer.wait_for_package()
        async with turn:
            # Not before: a neighbour that nobody writes to for an hour may be swept away.
            await _blocking.off_the_loop(part.open)
            await transfer.carry_out()
        return await _blocking.off_the_loop(part.publish)
    finally:
        part.close()


def verified(path: Path, collection_hash: str) -> SavedPackage | None:
    """Describe a package that was saved before; None if it isn't there or is not whole. Blocks."""
    try:
        check_package(path, subject=collection_hash)
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return SavedPackage(collection_hash, path, file.tell(), digest)
    except (OSError, DownloadError):
        return None


class _Transfer:
    """Fetch a package, over as many links and connections as it takes."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[Package]],
        follow: Follow,
        collection_hash: str,
        part: _PartFile,
        on_progress: OnBytes | None,
    ) -> None:
        self._ask = ask
        self._follow = follow
        self._hash = collection_hash
        self._part = part
        self._on_progress = on_progress
        self._link = ""
        self._stale_at = -1.0
        self._asked_at: datetime | None = None
        self._etag = ""

    async def wait_for_package(self) -> None:
        package = await self._ask()
        self._link = package.resource_url or ""
        self._asked_at = package.asked_at
        self._stale_at = anyio.current_time() + STALE

    async def carry_out(self) -> None:
        problem = ""
        failed = 0  # times in a row, without anything new to show for it
        reached = 0
        while failed < ATTEMPTS:
            if failed:
                await anyio.sleep(random.uniform(0, 0.5 * 2**failed))  # noqa: S311 no secret
            if self._is_stale():
                await self.wait_for_package()
            try:
                await self._receive()
            except UnsafeLinkError as error:
                problem = f"was not fetched: its link {error}"
                break
            except _ExpiredError:
                problem = "was not fetched: its link expires too soon"
                self._asked_at = None
            except TransferBrokenError as error:
                problem = f"was not fetched: {error}"
                if self._part.size >= reached + BATCH:
                    failed, reached = 0, self._part.size
            else:
                return
            failed += 1
        raise DownloadError(self._hash, problem)

    def _is_stale(self) -> bool:
        if self._asked_at is None or anyio.current_time() >= self._stale_at:
            return True
        # The other clock, too: a laptop that slept may not have counted that time.
        return (datetime.now(UTC) - self._asked_at).total_seconds() >= STALE

    async def _receive(self) -> None:
        headers = {}
        if self._part.size and self._etag:
            headers = {"Range": f"bytes={self._part.size}-", "If-Range": self._etag}
        async with self._follow(self._link, headers) as answer:
            total = await self._start(answer, headers)
            await self._take_in(answer, total)
        if total is not None and self._part.size < total:
            raise TransferBrokenError("the transfer ended before its end")
        if total is not None and self._part.size > total:
            raise DownloadError(self._hash, "is longer than its host said")

    async def _start(self, answer: Answer, asked: Mapping[str, str]) -> int | None:
        """Find out where in the file an answer begins, and how long the file is."""
        if answer.status in EXPIRED:
            raise _ExpiredError
        if answer.status >= 500 or answer.status == 416:
            self._etag = ""  # from the beginning
            raise TransferBrokenError(f"its host answered HTTP {answer.status}")
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise DownloadError(self._hash, "came compressed, which was not asked for")
        if answer.status == PARTIAL and asked:
            total = _total_of_range(answer.headers.get("content-range", ""), self._part.size)
            if total is None or answer.headers.get("etag", self._etag) != self._etag:
                self._etag = ""
                raise TransferBrokenError("its host went on at another place")
            return total
        if answer.status != OK:
            raise DownloadError(self._hash, f"was not fetched: HTTP {answer.status}")
        await _blocking.off_the_loop(self._part.start_anew)
        etag = answer.headers.get("etag", "")
        self._etag = "" if etag.startswith("W/") else etag
        length = answer.headers.get("content-length", "")
        total = int(length) if re.fullmatch("[0-9]{1,18}", length) else None
        await _blocking.off_the_loop(self._part.check_room, total or 0)
        return total

    async def _take_in(self, answer: Answer, total: int | None) -> None:
        batch = bytearray()
        broken = None
        try:
            async for chunk in answer:
                batch += chunk
                if len(batch) >= BATCH:
                    await self._write(batch, total)
        except TransferBrokenError as error:
            broken = error
        await self._write(batch, total)  # what came before a break need not come again
        if broken is not None:
            raise broken

    async def _write(self, batch: bytearray, total: int | None) -> None:
        if batch:
            await _blocking.off_the_loop(self._part.write, bytes(batch))
            batch.clear()
            if self._on_progress is not None:
                self._on_progress(self._part.size, total)


def _total_of_range(content_range: str, start: int) -> int | None:
    """Say how long the whole file is of which a part comes, if that goes on at *start*."""
    found = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})", content_range)
    return int(found[2]) if found and int(found[1]) == start else None


class _PartFile:
    """
    Hold a neighbour of the target, until it is whole and takes the target's place.

    Threads do the work; one that nobody waits for any more removes the
    neighbour when it is done.
    """

    def __init__(
        self, collection_hash: str, target: str | os.PathLike[str], *, overwrite: bool
    ) -> None:
        self._hash = collection_hash
        self._target = Path(target)
        self._overwrite = overwrite
        # A name may have 255 bytes, however few characters these are.
        self._stem = os.fsencode(self._target.name)[:100].decode(errors="ignore")
        name = f".{self._stem}.{secrets.token_hex(8)}{SUFFIX}"
        self._path = self._target.with_name(name)
        self._in_use = Lock()
        self._given_up = False
        self._file: IO[bytes] | None = None
        self._digest = hashlib.sha256()
        self.size = 0

    def open(self) -> None:
        """Make the neighbour, and remove those that were left behind by a kill."""
        with self._using():
            theirs = f".{escape(self._stem)}.{'[0-9a-f]' * 16}{SUFFIX}"
            for other in self._target.parent.glob(theirs):
                with suppress(OSError):
                    if time.time() - other.stat().st_mtime > LEFT_BEHIND:
                        other.unlink()
            self._file = os.fdopen(
                os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0
            )

    def start_anew(self) -> None:
        with self._using() as file:
            file.seek(0)
            file.truncate()
            self._digest = hashlib.sha256()
            self.size = 0

    def check_room(self, size: int) -> None:
        with self._using():
            if shutil.disk_usage(self._path.parent).free < size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, data: bytes) -> None:
        with self._using() as file:
            if not self.size and not b"PK".startswith(data[:2]):
                raise DownloadError(self._hash, "is no zip archive")
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            self._digest.update(data)
            self.size += len(data)

    def publish(self) -> SavedPackage:
        """Check what came, and give it the target's name."""
        with self._using() as file:
            os.fsync(file.fileno())
            check_package(self._path, subject=self._hash)
            self._take_place()
            _sync_folder(self._target.parent)
        return SavedPackage(self._hash, self._target, self.size, self._digest.hexdigest())

    def close(self) -> None:
        """Close and remove the neighbour now, or when whoever writes to it is done."""
        self._given_up = True
        self._clear_away()

    def _take_place(self) -> None:
        if not self._overwrite:
            with suppress(OSError):  # not every disk has hard links
                os.link(self._path, self._target)
                return
        self.check_target()
        os.replace(self._path, self._target)

    def check_target(self) -> None:
        """Refuse a target that could not be written, or may not be."""
        problem = ""
        if not self._target.parent.is_dir():
            problem = "is in a folder that does not exist"
        elif self._target.is_dir():
            problem = "is a folder; name a file"
        elif not self._overwrite and os.path.lexists(self._target):
            problem = "exists; allow to overwrite it, or name another"
        if problem:
            raise InvalidArgumentError("target", f"{str(self._target)!r} {problem}")

    @contextmanager
    def _using(self) -> Iterator[IO[bytes]]:
        try:
            with self._in_use:
                yield cast(IO[bytes], self._file)
        except OSError as error:
            raise DownloadError(
                self._hash, f"could not be written: {error.strerror or 'disk error'}"
            ) from None
        finally:
            if self._given_up:
                self._clear_away()

    def _clear_away(self) -> None:
        if self._in_use.acquire(blocking=False):
            if self._file is not None:
                self._file.close()
                with suppress(OSError):
                    self._path.unlink()
            self._in_use.release()


def _sync_folder(folder: Path) -> None:
    # So that the new name outlives a power cut; not every system can.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
