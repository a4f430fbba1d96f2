"""Save the packages of many collections, as few calls as it takes, and hand out a row for each."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from statistics import median_low
from tempfile import TemporaryFile
from typing import Protocol

import anyio

from . import _blocking
from ._crew import Crew, Rows, once_each
from .errors import DownloadError, FlipsnackError, InvalidArgumentError
from .models import ExportProgress, Package, PackageRow, SavedPackage

__all__ = ["Exports", "unpack_package"]

DOWNLOADS = 4
# Others want threads, too.
VERIFICATIONS = 4


class Save(Protocol):
    """
    Save one package, asking *every* so many seconds, and fetching it in its *turn*.

    *on_poll* is called with each answer.
    """

    def __call__(
        self,
        collection_hash: str,
        target: Path,
        *,
        every: Callable[[], float],
        on_poll: Callable[[Package], object],
        on_progress: Callable[[int, int | None], object],
        turn: AbstractAsyncContextManager[object],
    ) -> Awaitable[SavedPackage]: ...


class Exports(Rows[PackageRow]):
    """
    Hold an export of many packages, which runs inside its ``async with`` block and nowhere else.

        async with flipsnack.export_many(refs, "packages") as rows:
            async for row in rows:
                ...

    Yields a `PackageRow` for each collection, in the order of completion. A
    failure is a row like any other; only wrong credentials, a closed
    client, and what the caller's own iterator raises, end the export. A
    package that is in the folder already, and whole, costs no call: an
    export that was broken off is taken up by starting it again. Leaving the
    block early cancels what is under way, and leaves whole files only.
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
        most: float,
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
        self._finished = 0
        self._answered: dict[str, float] = {}  # when first, of the packages under way
        self._took: list[float] = []  # from then on, of those that are saved
        self._bytes = 0
        self._verifications = anyio.CapacityLimiter(VERIFICATIONS)
        self._under_way = anyio.CapacityLimiter(most)
        self._downloads = anyio.CapacityLimiter(DOWNLOADS)
        hashes = once_each(hashes)
        self._crew = Crew(self._work, _excuse, hashes, at_once=at_once, ahead=at_once, total=total)
        self._at_once = min(at_once, most)
        super().__init__("export", self._working_into_folder)

    @property
    def progress(self) -> ExportProgress:
        """Say how far the export is, counting the rows that were taken out."""
        crew = self._crew
        return ExportProgress(
            done=crew.done,
            failed=crew.failed,
            calls=self._calls(),
            bytes=self._bytes,
            total=crew.total,
            seconds_left=None if crew.total is None else self._seconds_left(crew.total),
        )

    def _seconds_left(self, total: int) -> float | None:
        building = len(self._answered)
        unasked = total - self._finished - building
        # A start, and an end that has to be noticed.
        for_calls = self._seconds_for(2 * unasked + building)
        if not building and not unasked:
            return for_calls
        built = 0.0
        if self._took:
            typical = median_low(self._took)
            built = typical * (1 + unasked / self._at_once)
            if not unasked:
                built = max(self._answered.values()) + typical - anyio.current_time()
        # What takes longer than is known of others, or of none, takes nobody knows how long.
        is_known = built > 0 or for_calls > max(self._every, self._rounds(building + unasked))
        return max(for_calls, built) if is_known else None

    @asynccontextmanager
    async def _working_into_folder(self) -> AsyncGenerator[None]:
        await _blocking.off_the_loop(_make, self._folder)
        async with self._crew.working():
            yield

    async def __anext__(self) -> PackageRow:
        return await self._crew.take()

    async def _work(self, collection_hash: str) -> PackageRow:
        try:
            return PackageRow(collection_hash, await self._have(collection_hash))
        finally:
            self._finished += 1

    async def _have(self, collection_hash: str) -> SavedPackage:
        if not re.fullmatch("[A-Za-z0-9_-]{1,100}", collection_hash):
            raise DownloadError(collection_hash[:100], "cannot be named after such a hash")
        from ._download import verified

        target = self._folder / f"{collection_hash}.zip"
        async with self._verifications:
            saved = await verified(target, collection_hash)
        if saved is None:
            async with self._under_way:
                saved = await self._fetch(collection_hash, target)
        return saved

    async def _fetch(self, collection_hash: str, target: Path) -> SavedPackage:
        before = 0

        def note(_: Package) -> None:
            self._answered.setdefault(collection_hash, anyio.current_time())

        def count(received: int, _: int | None) -> None:
            nonlocal before
            self._bytes += max(0, received - before)
            before = received

        try:
            saved = await self._save(
                collection_hash,
                target,
                every=self._pause,
                on_poll=note,
                on_progress=count,
                turn=self._downloads,
            )
            self._took.append(anyio.current_time() - self._answered[collection_hash])
        finally:
            self._answered.pop(collection_hash, None)
        return saved

    def _pause(self) -> float:
        # The calls of a minute go round all packages under way. To ask for some of them more often
        # would be to ask for others later, and mostly for nothing.
        return max(self._every, self._rounds(self._under_way.borrowed_tokens))


async def unpack_package(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    most_members: float = 10_000,
    most_bytes: float = 4 * 2**30,
    most_ratio: float = 200,
) -> Path:
    """
    Unpack a downloaded package into a folder that is empty or not there yet.

    Raises `DownloadError` for an archive that is broken, ambiguous, or not
    safe on any system, as one that was saved may be: nothing is skipped or
    renamed. *most_members* counts files and folders, *most_bytes* is what they
    may come to when unpacked. A file larger than 1 MiB may not be over
    *most_ratio* times what it is packed, nor may more than 16 MiB in all.

    The folder appears when all of it is on the disk. An empty one is replaced,
    which the current folder and a mount point cannot be. A failure, or being
    cancelled, leaves nothing behind, unless the folder was just about to
    appear. What a kill leaves beside it is removed by a call an hour later.
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
    from ._part_file import sweep

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass  # it can be written
        sweep(folder, "*.zip")
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or "it cannot be made"
    else:
        return
    raise InvalidArgumentError("folder", f"{str(folder)!r}: {problem}")
