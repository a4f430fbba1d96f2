"""The command that saves a collection's HTML package."""

from __future__ import annotations

import os

import anyio
import click

from flipsnack_async import ExportTimeoutError, Flipsnack, SavedPackage

from ._failures import PARTLY, say, tell
from ._json_lines import write_line
from ._looks import DownloadMeter
from ._polling import polling_options
from ._progress_bar import progress_bar
from ._readable import printable, size
from ._session import converse
from ._settings import Settings, shared_options


@click.command()
@click.argument("collection_hash", metavar="HASH")
@click.argument("target", type=click.Path(dir_okay=False))
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
@polling_options()
@shared_options()
@click.pass_obj
def package(
    settings: Settings,
    collection_hash: str,
    target: str,
    overwrite: bool,
    every: float,
    within: float,
) -> int:
    """
    Save a collection's HTML package as the file TARGET.

    Awaits the package first, which can take minutes. The file is there whole,
    or not at all; a transfer that breaks off is taken up again.

    \b
    Example:
      flipsnack package fxh4k89 spring.zip
    """

    async def work(flipsnack: Flipsnack) -> SavedPackage | None:
        meter = DownloadMeter()
        before = _file_at(target)
        try:
            async with progress_bar(settings, meter.look):
                return await flipsnack.collections.save_package(
                    collection_hash,
                    target,
                    every=every,
                    within=within,
                    overwrite=overwrite,
                    on_progress=meter.moved,
                )
        except ExportTimeoutError as error:
            tell(error, verbose=settings.verbose > 0)
        except anyio.get_cancelled_exc_class():
            if _file_at(target) == before:
                say("interrupted: nothing was saved; asking again continues the export")
            else:
                say(f"interrupted: {target} was saved all the same")
            raise
        return None

    saved = converse(settings, work)
    if saved is None:
        return PARTLY
    if settings.as_table:
        print(printable(f"saved {saved.path}  {size(saved.size)}  sha256 {saved.sha256}"))
    else:
        write_line(saved)
    return 0


def _file_at(target: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(target)
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_mtime_ns
