"""The command that says what is in an archive."""

from __future__ import annotations

from pathlib import Path

import click

from flipsnack_async import RunSummary
from flipsnack_async.archive import Archive

from ._json_lines import plain, write_line
from ._kept_runs import archive_to_read
from ._readable import counted, printable, size
from ._session import carry_out
from ._settings import Settings, shared_options
from ._tables import of_runs, show


@click.command()
@click.argument("path", metavar="FILE", type=archive_to_read)
@shared_options()
@click.pass_obj
def archive(settings: Settings, path: Path) -> None:
    """
    Say what is in an archive: its harvests and series.

    How many collections each is about, by what became of them: done, failed,
    gone (deleted, or somebody else's), and pending, which nothing is known of
    yet. The same command that began an unfinished one goes on with it.

    \b
    Example:
      flipsnack archive stats.db
    """

    async def work() -> tuple[RunSummary, ...]:
        async with Archive.open(path) as opened:
            return await opened.contents()

    runs = carry_out(settings, work)
    bytes_ = path.stat().st_size
    if settings.as_table:
        show(of_runs(runs))
        print(printable(f"{path}: {counted(len(runs), 'run')}, {size(bytes_)}"))
    else:
        for run in runs:
            write_line({**plain(run), "file_size": bytes_})
