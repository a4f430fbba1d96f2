"""The command that saves the HTML packages of many collections."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import anyio
import attrs
import click

from flipsnack_async import (
    Exports,
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

# As many missing ones as a person would want to read.
NAMED = 10


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
@polling_options()
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
    interrupted goes on if it is started again.

    \b
    Examples:
      flipsnack packages --all --into packages
      flipsnack packages fxh4k89 fzz81kd --into packages --unpack
      flipsnack --sandbox packages --all --into packages
    """
    refs = chosen(hashes, everything=everything, file=file)
    output = _Output(settings, folder, unpack=unpack)

    async def work(flipsnack: Flipsnack) -> None:
        named = refs
        if named is None:
            named = [found.collection_hash async for found in flipsnack.collections.list()]
        output.missing = dict.fromkeys(named)
        rows = flipsnack.export_many(named, folder, every=every, within=within, at_once=at_once)
        async with rows:
            await _bring_in(rows, flipsnack.quota, output)

    converse(settings, work)
    if not output.failed:
        return 0
    return PARTLY if output.done else FAILED


class _Output:
    """Put rows out as they come, or keep them for a table, and know what is missing."""

    def __init__(self, settings: Settings, folder: Path, *, unpack: bool) -> None:
        self.settings = settings
        self.missing: dict[str, None] = {}
        self.done = self.failed = 0
        self._folder = folder
        self._unpack = unpack
        self._kept: list[PackageRow] = []

    async def put(self, row: PackageRow) -> None:
        if row.package is not None and self._unpack:
            row = await self._unpacked(row, row.package)
        if row.error is None:
            self.done += 1
            self.missing.pop(row.collection_hash, None)
        else:
            self.failed += 1
        if self.settings.as_table:
            self._kept.append(row)
        else:
            write_line(row)

    async def _unpacked(self, row: PackageRow, package: SavedPackage) -> PackageRow:
        folder = self._folder / row.collection_hash
        if await anyio.Path(folder).exists():
            return row  # by an earlier run: a folder is there whole, or not at all
        try:
            await unpack_package(package.path, folder)
        except FlipsnackError as error:
            return attrs.evolve(row, package=None, error=error)
        return row

    def show_kept(self) -> None:
        show(*of_packages(self._kept))

    def say_missing(self) -> None:
        names = list(self.missing)
        more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
        say(
            f"interrupted: {counted(self.done, 'package')} saved in {self._folder}, "
            f"missing {' '.join(names[:NAMED])}{more}; the same command goes on"
        )


async def _bring_in(rows: Exports, quota: Quota, output: _Output) -> None:
    started = anyio.current_time()

    def look() -> Look:
        return look_of_exports(rows.progress, quota.statistics())

    try:
        async with progress_bar(output.settings, look):
            async for row in rows:
                await output.put(row)
    except anyio.get_cancelled_exc_class():
        output.show_kept()
        output.say_missing()
        raise
    except FlipsnackError:
        output.show_kept()
        raise
    output.show_kept()
    if not output.settings.quiet:
        progress = rows.progress
        say(
            f"{counted(output.done, 'package')}, {output.failed:,} failed, "
            f"{counted(progress.calls, 'call')}, {size(progress.bytes)}, "
            f"{stopwatch(anyio.current_time() - started)}"
        )
