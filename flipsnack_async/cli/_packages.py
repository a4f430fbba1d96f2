"""The command that saves the HTML packages of many collections."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

import anyio
import anyio.to_thread
import attrs
import click

from flipsnack_async import (
    ExportProgress,
    Exports,
    ExportTimeoutError,
    Flipsnack,
    FlipsnackError,
    PackageRow,
    Quota,
    SavedPackage,
    unpack_package,
)

from ._choice import choice_options, chosen
from ._failures import FAILED, PARTLY, say
from ._json_lines import write_line
from ._looks import look_of_exports
from ._polling import polling_options
from ._progress_bar import Look, progress_bar
from ._readable import counted, size, stopwatch
from ._session import converse
from ._settings import Settings, shared_options
from ._tables import of_packages, show
from ._unpacked import is_unpacked

# As many missing ones as a person would want to read.
NAMED = 60


@click.command()
@choice_options
@click.option(
    "--into",
    "folder",
    metavar="FOLDER",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to save them, as HASH.zip; the folder is made if need be.",
)
@click.option("--unpack", is_flag=True, help="Unpack each into a folder of its own, too.")
@polling_options(within=3600.0)
@click.option(
    "--at-once",
    type=click.IntRange(min=1),
    metavar="N",
    default=150,
    show_default=True,
    help="How many packages may be under way.",
)
@shared_options()
@click.pass_obj
def packages(
    settings: Settings,
    hashes: tuple[str, ...],
    everything: bool,
    file: TextIO | None,
    folder: Path,
    unpack: bool,
    every: float,
    within: float,
    at_once: int,
) -> int:
    """
    Save the HTML packages of many collections.

    What is in the folder already, and whole, is skipped: an export that was
    interrupted, or failed in part, goes on if it is started again.

    \b
    Examples:
      flipsnack packages --all --into packages
      flipsnack packages fxh4k89 fzz81kd --into packages --unpack
      flipsnack --sandbox packages --all --into packages
    """
    refs = chosen(hashes, everything=everything, file=file)
    output = _Output(settings, folder, unpack=unpack)

    async def work(flipsnack: Flipsnack) -> None:
        try:
            named = refs
            if named is None:
                named = [found.collection_hash async for found in flipsnack.collections.list()]
            output.expect(named)
            rows = flipsnack.export_many(named, folder, every=every, within=within, at_once=at_once)
            async with rows:
                await _bring_in(rows, flipsnack.quota, output)
        except anyio.get_cancelled_exc_class():
            output.show_kept()
            output.say_missing()
            raise
        except FlipsnackError:
            output.show_kept()
            raise

    converse(settings, work)
    if not output.failed:
        return 0
    return PARTLY if output.done or output.goes_on else FAILED


@attrs.frozen
class UnpackedRow(PackageRow):
    """Say where a package was unpacked to, too."""

    folder: Path | None = None


class _Output:
    """Put rows out as they come, or keep them for a table, and know what is missing."""

    def __init__(self, settings: Settings, folder: Path, *, unpack: bool) -> None:
        self.settings = settings
        self.done = self.failed = 0
        self.goes_on = False  # some of what failed, if it is asked for again
        self._expected: dict[str, None] = {}
        self._folder = folder
        self._unpack = unpack
        self._kept: list[PackageRow] = []

    def expect(self, hashes: Iterable[str]) -> None:
        self._expected = dict.fromkeys(hashes)

    async def put(self, row: PackageRow) -> None:
        if row.package is not None and self._unpack:
            row = await self._unpacked(row.package)
        if row.error is None:
            self.done += 1
        else:
            self.failed += 1
            self.goes_on |= isinstance(row.error, ExportTimeoutError)
        if self.settings.as_table:
            self._kept.append(row)
        else:
            write_line(row)

    async def _unpacked(self, package: SavedPackage) -> UnpackedRow:
        folder = self._folder / package.collection_hash
        try:
            if not await anyio.to_thread.run_sync(is_unpacked, package, folder):
                await unpack_package(package.path, folder)
        except FlipsnackError as error:
            return UnpackedRow(package.collection_hash, error=error)
        return UnpackedRow(package.collection_hash, package, folder=folder)

    def show_kept(self) -> None:
        show(*of_packages(self._kept))

    def say_missing(self) -> None:
        # Some may have been saved whose rows nobody took any more.
        missing = [name for name in self._expected if not (self._folder / f"{name}.zip").is_file()]
        saved = counted(len(self._expected) - len(missing), "package")
        names = " ".join(missing[:NAMED]) or "none"
        more = f" and {len(missing) - NAMED:,} more" if len(missing) > NAMED else ""
        say(
            f"interrupted: {saved} saved in {self._folder}, missing {names}{more}; "
            "the same command goes on"
        )


async def _bring_in(rows: Exports, quota: Quota, output: _Output) -> None:
    started = anyio.current_time()

    def progress() -> ExportProgress:
        # Those that listed the account are calls, too.
        return attrs.evolve(rows.progress, calls=quota.statistics().admitted)

    def look() -> Look:
        return look_of_exports(progress(), quota.statistics())

    async with progress_bar(output.settings, look):
        async for row in rows:
            await output.put(row)
    output.show_kept()
    if not output.settings.quiet:
        say(
            f"{counted(output.done, 'package')}, {output.failed:,} failed, "
            f"{counted(progress().calls, 'call')}, {size(rows.progress.bytes)}, "
            f"{stopwatch(anyio.current_time() - started)}"
        )
