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
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias

import anyio

from . import _blocking, _checks
from ._links import Answer, Follow, TransferBrokenError, UnsafeLinkError
from ._part_file import PartFile
from ._unpack import checking
from .errors import DownloadError
from .models import Package, SavedPackage

OnBytes: TypeAlias = Callable[[int, int | None], object]

# Seconds after which a link is not tried any more: it lives 60, and the answer took some of them.
STALE: Final = 45.0
ATTEMPTS: Final = 6
NEW_LINKS: Final = 3
MOST_BYTES: Final = 4 * 2**30
BATCH: Final = 256 * 1024  # written at a time
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
    part = PartFile(collection_hash, target, overwrite=overwrite)
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


class _Transfer:
    """Fetch a package, over as many links and connections as it takes."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[Package]],
        follow: Follow,
        collection_hash: str,
        part: PartFile,
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
