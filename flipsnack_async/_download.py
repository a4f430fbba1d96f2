"""
A package from its link to a file that is whole, or not there.

The link lives a minute. It is followed at once; when it is older than that,
expired, or the transfer broke off, it is asked for anew, and the transfer goes
on where it stopped if the host has the same file still. What arrives goes into
a neighbour of the target, is checked member by member, and then renamed.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import secrets
import shutil
import stat
import time
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from datetime import UTC, datetime
from glob import escape
from pathlib import Path
from threading import Lock
from typing import IO, Final, TypeAlias, cast

import anyio

from . import _blocking, _checks
from ._links import Answer, Follow, TransferBrokenError, UnsafeLinkError
from ._unpack import checking
from .errors import DownloadError, InvalidArgumentError
from .models import Package, SavedPackage

OnBytes: TypeAlias = Callable[[int, int | None], object]

# Seconds after which a link is not tried any more: it lives 60, and the answer took some of them.
STALE: Final = 45.0
ATTEMPTS: Final = 6
NEW_LINKS: Final = 3
MOST_BYTES: Final = 4 * 2**30
BATCH: Final = 256 * 1024  # written at a time
SUFFIX: Final = ".part"
LEFT_BEHIND: Final = 3600.0  # seconds without a write, after which nobody works on a neighbour
EXPIRED: Final = frozenset({403, 404, 410})
BUSY: Final = frozenset({408, 429})
OUT_OF_RANGE: Final = 416
OK: Final = 200
PARTIAL: Final = 206
# Others don't promise that the file is the same byte by byte, or cannot be sent back.
STRONG_ETAG: Final = re.compile('"[!#-~]*"')


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
        while True:
            async with turn:
                await transfer.carry_out()
            try:
                await _blocking.in_steps(checking(part.path, collection_hash))
            except DownloadError:
                if not transfer.begin_again():
                    raise
            else:
                return await _blocking.off_the_loop(part.publish)
    finally:
        part.give_up()
        await _blocking.surely_off_the_loop(part.close)


async def verified(path: Path, collection_hash: str) -> SavedPackage | None:
    """Describe a package that was saved before; None if it isn't there or is not whole."""
    try:
        return await _blocking.in_steps(_verifying(path, collection_hash))
    except (OSError, DownloadError):
        return None


def _verifying(path: Path, collection_hash: str) -> Generator[None, None, SavedPackage]:
    yield from checking(path, collection_hash)
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(BATCH):
            digest.update(chunk)
            yield
        return SavedPackage(collection_hash, path, file.tell(), digest.hexdigest())


def sweep(folder: Path, targets: str) -> None:
    """Remove the neighbours of *targets*, a pattern, that a kill left behind. Blocks."""
    for neighbour in folder.glob(f".{targets}.{'[0-9a-f]' * 16}{SUFFIX}"):
        with suppress(OSError):
            if time.time() - neighbour.stat().st_mtime > LEFT_BEHIND:
                neighbour.unlink()


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
        self._begun = 0  # times, from the first byte on
        self._is_second = False
        self._begin()

    def _begin(self) -> None:
        self._etag = ""
        self._total: int | None = None
        self._resumed_at: int | None = None
        self._is_pieced = False

    def begin_again(self) -> bool:
        """Forget what came, if it was pieced together or may have been cut off; once."""
        may_differ = self._is_pieced or self._total is None
        if self._is_second or not may_differ:
            return False
        self._is_second = True
        self._begin()
        return True

    async def wait_for_package(self) -> None:
        package = await self._ask()
        self._link = package.resource_url or ""
        self._asked_at = package.asked_at
        self._stale_at = anyio.current_time() + STALE

    async def carry_out(self) -> None:
        problem = ""
        failed = expired = 0  # times in a row, without anything new that stays
        while failed < ATTEMPTS and expired <= NEW_LINKS:
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
                expired += 1
            except TransferBrokenError as error:
                problem = f"was not fetched: {error}"
                if self._resumed_at is not None and self._part.size > self._resumed_at:
                    failed = expired = 0
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
        self._resumed_at = None
        if self._etag and self._part.size and await _blocking.off_the_loop(self._part.touch):
            headers = {"Range": f"bytes={self._part.size}-", "If-Range": self._etag}
        async with self._follow(self._link, headers) as answer:
            await self._start(answer, headers)
            await self._take_in(answer)
        if self._total is not None and self._part.size < self._total:
            raise TransferBrokenError("the transfer ended before its end")

    async def _start(self, answer: Answer, asked: Mapping[str, str]) -> None:
        """Find out where in the file an answer begins, and how long the file is."""
        if answer.status in EXPIRED:
            raise _ExpiredError
        if answer.status >= 500 or answer.status in BUSY or answer.status == OUT_OF_RANGE:
            if answer.status not in BUSY:
                self._etag = ""  # from the beginning
            raise TransferBrokenError(f"its host answered HTTP {answer.status}")
        if answer.headers.get("content-encoding", "").lower() not in ("", "identity"):
            raise DownloadError(self._hash, "came compressed, which was not asked for")
        if answer.status == PARTIAL and asked:
            self._go_on(answer.headers)
        elif answer.status == OK:
            await self._start_anew(answer.headers)
        else:
            raise DownloadError(self._hash, f"was not fetched: HTTP {answer.status}")

    def _go_on(self, headers: Mapping[str, str]) -> None:
        total = _total_of_range(headers.get("content-range", ""), self._part.size)
        is_same = headers.get("etag", self._etag) == self._etag
        if not is_same or total is None or self._total not in (None, total):
            self._etag = ""
            raise TransferBrokenError("its host went on at another place")
        self._total = total
        self._is_pieced = True
        self._resumed_at = self._part.size

    async def _start_anew(self, headers: Mapping[str, str]) -> None:
        self._begin()
        self._begun += 1
        if self._begun > ATTEMPTS:
            raise DownloadError(self._hash, "was not fetched: its host began it too often")
        etag, length = headers.get("etag", ""), headers.get("content-length", "")
        self._etag = etag if STRONG_ETAG.fullmatch(etag) else ""
        self._total = int(length) if re.fullmatch("[0-9]{1,18}", length) else None
        self._check_size(self._total or 0)
        await _blocking.off_the_loop(self._part.start_anew)
        await _blocking.off_the_loop(self._part.check_room, self._total or 0)

    def _check_size(self, size: int) -> None:
        if size > MOST_BYTES:
            raise DownloadError(self._hash, f"is longer than {MOST_BYTES} bytes")
        if self._total is not None and size > self._total:
            raise DownloadError(self._hash, "is longer than its host said")

    async def _take_in(self, answer: Answer) -> None:
        batch = bytearray()
        broken = None
        try:
            async for chunk in answer:
                batch += chunk
                if len(batch) >= BATCH:
                    await self._write(batch)
        except TransferBrokenError as error:
            broken = error
        await self._write(batch)  # what came before a break need not come again
        if broken is not None:
            raise broken

    async def _write(self, batch: bytearray) -> None:
        if batch:
            self._check_size(self._part.size + len(batch))
            await _blocking.off_the_loop(self._part.write, bytes(batch))
            batch.clear()
            if self._on_progress is not None:
                self._on_progress(self._part.size, self._total)


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
        self._target = _checks.path("target", target)
        if not self._target.name:
            raise InvalidArgumentError("target", "names no file")
        self._overwrite = overwrite
        # A name may have 255 bytes, however few characters these are.
        self._stem = os.fsencode(self._target.name)[:100].decode(errors="ignore")
        name = f".{self._stem}.{secrets.token_hex(8)}{SUFFIX}"
        self.path = self._target.with_name(name)
        self._in_use = Lock()
        self._decided = Lock()  # taken once, by who publishes or by who gives up
        self._given_up = False
        self._file: IO[bytes] | None = None
        self._digest = hashlib.sha256()
        self.size = 0

    def start_anew(self) -> None:
        """Make an empty neighbour, and remove those that were left behind by a kill."""
        with self._using():
            self._remove()
            sweep(self._target.parent, escape(self._stem))
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._file = os.fdopen(descriptor, "wb", buffering=0)
            self._digest = hashlib.sha256()
            self.size = 0

    def touch(self) -> bool:
        """Show that somebody works on the neighbour; False if it was taken for left behind."""
        with self._using(), suppress(FileNotFoundError):
            os.utime(self.path)
            return True
        return False

    def check_room(self, size: int) -> None:
        with suppress(OSError):  # not every disk tells
            if shutil.disk_usage(self._target.parent).free < size:
                raise DownloadError(self._hash, "could not be written: No space left on device")

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
        """Give what came the target's name, unless it was given up before."""
        with self._using() as file:
            os.fsync(file.fileno())
            if not self._decided.acquire(blocking=False):
                raise DownloadError(self._hash, "was given up")
            self._take_place()
            _sync_folder(self._target.parent)
        return SavedPackage(self._hash, self._target, self.size, self._digest.hexdigest())

    def give_up(self) -> None:
        """Publish nothing from now on, unless that has begun. Waits for nothing."""
        self._given_up = self._decided.acquire(blocking=False)

    def close(self) -> None:
        """Remove the neighbour: now, or where it was given up, when who works on it is done."""
        if self._in_use.acquire(blocking=not self._given_up):
            self._remove()
            self._in_use.release()

    def _take_place(self) -> None:
        if not self._overwrite:
            with suppress(OSError):  # not every disk has hard links
                os.link(self.path, self._target)
                return
        self.check_target()
        os.replace(self.path, self._target)

    def check_target(self) -> None:
        """Refuse a target that could not be written, or may not be."""
        if problem := _problem_of(self._target, overwrite=self._overwrite):
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
                self.close()

    def _remove(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            with suppress(OSError):
                self.path.unlink()
            self._file = None


def _problem_of(target: Path, *, overwrite: bool) -> str:
    """Say why a file could not be put there, as far as that can be known before."""
    if not os.path.isdir(target.parent):
        return "is in a folder that does not exist, or may not be entered"
    if not os.access(target.parent, os.W_OK | os.X_OK):
        return "is in a folder that may not be written to"
    try:
        mode = os.lstat(target).st_mode
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"cannot be written: {error.strerror}"
    if stat.S_ISDIR(mode):
        return "is a folder; name a file"
    if not overwrite:
        return "exists; allow to overwrite it, or name another"
    return "" if stat.S_ISREG(mode) else "is no regular file, which is not overwritten"


def _sync_folder(folder: Path) -> None:
    # So that the new name outlives a power cut; not every system can.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
