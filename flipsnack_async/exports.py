"""Save the packages of many collections, as few calls as it takes, and hand out a row for each."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Protocol

import anyio

from . import _blocking
from ._crew import Crew, once_each
from .errors import DownloadError, FlipsnackError, InvalidArgumentError
from .models import ExportProgress, PackageRow, SavedPackage

__all__ = ["Exports", "unpack_package"]

DOWNLOADS = 4
# A start, and an end that has to be noticed.
CALLS_EACH = 2


class Save(Protocol):
    """Save one package, asking *every* so many seconds, and fetching it in its *turn*."""

    def __call__(
        self,
        collection_hash: str,
        target: Path,
        *,
        every: Callable[[], float],
        on_progress: Callable[[int, int | None], object],
        turn: AbstractAsyncContextManager[object],
    ) -> Awaitable[SavedPackage]: ...


class Exports:
    """
    Hold an export of many packages, which runs inside its ``async with`` block and nowhere else.

        async with flipsnack.export_many(refs, "packages") as rows:
            async for row in rows:
                ...

    Yields a `PackageRow` for each collection, in the order of completion. A
    failure is a row like any other; only wrong credentials, and what the
    caller's own iterator raises, end the export. A package that is in the
    folder already, and whole, costs no call: an export that was broken off
    is taken up by starting it again. Leaving the block early cancels what is
    under way, and leaves whole files only.
    """

    def __init__(
        self,
        save: Save,
        hashes: AsyncGenerator[str],
        folder: Path,
        *,
        every: float,
        rounds: Callable[[int], float],
        at_once: int,
        total: int | None,
        calls: Callable[[], int],
        seconds_for: Callable[[int], float],
    ) -> None:
        self._save = save
        self._folder = folder
        self._every = every
        self._rounds = rounds
        self._calls = calls
        self._seconds_for = seconds_for
        self._in_progress = 0
        self._bytes = 0
        self._downloads = anyio.CapacityLimiter(DOWNLOADS)
        self._crew = Crew(
            self._work, _excuse, once_each(hashes), at_once=at_once, ahead=at_once, total=total
        )
        self._context = self._crew.working()

    @property
    def progress(self) -> ExportProgress:
        """Say how far the export is, counting the rows that were taken out."""
        crew = self._crew
        left = None
        if crew.total is not None:
            unasked = max(0, crew.total - crew.started)
            left = self._seconds_for(CALLS_EACH * unasked + self._in_progress)
        return ExportProgress(
            done=crew.done,
            failed=crew.failed,
            calls=self._calls(),
            bytes=self._bytes,
            total=crew.total,
            seconds_left=left,
        )

    async def __aenter__(self) -> Exports:
        await _blocking.off_the_loop(_make, self._folder)
        await self._context.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._context.__aexit__(exc_type, exc, traceback)

    def __aiter__(self) -> AsyncIterator[PackageRow]:
        return self

    async def __anext__(self) -> PackageRow:
        return await self._crew.take()

    async def _work(self, collection_hash: str) -> PackageRow:
        if not re.fullmatch("[A-Za-z0-9_-]{1,100}", collection_hash):
            raise DownloadError(collection_hash[:100], "cannot be named after such a hash")
        from ._download import verified

        target = self._folder / f"{collection_hash}.zip"
        saved = await _blocking.off_the_loop(verified, target, collection_hash)
        return PackageRow(collection_hash, saved or await self._fetch(collection_hash, target))

    async def _fetch(self, collection_hash: str, target: Path) -> SavedPackage:
        self._in_progress += 1
        before = 0

        def count(received: int, _: int | None) -> None:
            nonlocal before
            self._bytes += max(0, received - before)
            before = received

        try:
            return await self._save(
                collection_hash,
                target,
                every=self._pace,
                on_progress=count,
                turn=self._downloads,
            )
        finally:
            self._in_progress -= 1

    def _pace(self) -> float:
        # The calls of a minute go round all packages under way. To ask for some of them more often
        # would be to ask for others later, and mostly for nothing.
        return max(self._every, self._rounds(self._in_progress))


async def unpack_package(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    most_members: int = 10_000,
    most_bytes: int = 4 * 2**30,
    most_ratio: float = 200.0,
) -> Path:
    """
    Unpack a downloaded package into a folder that is empty or not there yet.

    Raises `DownloadError` for an archive that is broken, ambiguous, or not
    safe on any system: nothing is skipped or renamed. *most_members* counts
    files and folders, *most_bytes* is what they may come to when unpacked, and
    no file larger than 1 MiB may be over *most_ratio* times what it is packed.

    The folder appears when all of it is on the disk. A failure, or being
    cancelled, leaves nothing behind.
    """
    from ._unpack import unpack

    return await unpack(
        path,
        folder,
        most_members=most_members,
        most_bytes=most_bytes,
        most_ratio=most_ratio,
    )


def _excuse(collection_hash: str, error: FlipsnackError) -> PackageRow:
    return PackageRow(collection_hash, error=error)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = error.strerror or "it cannot be made"
    else:
        return
    raise InvalidArgumentError("folder", f"{str(folder)!r}: {problem}")
