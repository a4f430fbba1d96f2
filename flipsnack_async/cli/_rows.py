"""The command that shows the rows of an archive, or writes them to a file."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import click

from flipsnack_async import ArchiveError, HarvestRow, RunSummary, SeriesRow
from flipsnack_async.archive import Archive

from ._failures import say
from ._json_lines import write_line
from ._kept_runs import archive_to_read
from ._readable import counted_of, size
from ._row_files import (
    OF_HARVEST,
    OF_PAGES,
    OF_SERIES,
    Put,
    csv_file,
    json_file,
    parquet_file,
)
from ._session import carry_out
from ._settings import Settings, shared_options
from ._tables import of_harvest, of_series, show


@click.command()
@click.argument("path", metavar="FILE", type=archive_to_read)
@click.option("--run", metavar="N", type=int, help="A run, by its number; else the newest harvest.")
@click.option("--series", is_flag=True, help="The newest series.")
@click.option("--csv", metavar="F", help="Write CSV, for spreadsheets; - is stdout.")
@click.option("--jsonl", metavar="F", help="Write JSON lines; - is stdout.")
@click.option("--parquet", metavar="F", help="Write Parquet, with typed columns.")
@click.option("--pages", is_flag=True, help="Write a line for each page, to CSV or Parquet.")
@click.option("--raw", is_flag=True, help="Leave text in CSV as it is, be it a formula.")
@shared_options()
@click.pass_obj
def rows(
    settings: Settings,
    path: Path,
    run: int | None,
    series: bool,
    csv: str | None,
    jsonl: str | None,
    parquet: str | None,
    pages: bool,
    raw: bool,
) -> None:
    """
    Show the rows of an archive, or write them to a file.

    Errors stand beside the statistics. Text in CSV that a spreadsheet would
    take for a formula gets a ' in front, unless --raw is given. A file is
    there whole, or as it was before.

    \b
    Examples:
      flipsnack rows stats.db
      flipsnack rows stats.db --csv january.csv
      flipsnack rows stats.db --csv - --pages --raw > pages.csv
      flipsnack rows stats.db --series --parquet days.parquet
    """
    files = [name for name in (csv, jsonl, parquet) if name is not None]
    if len(files) > 1:
        raise click.UsageError("give one of --csv, --jsonl and --parquet")
    if any(Path(name).resolve() == path.resolve() for name in files):
        raise click.UsageError("name another file than the archive")
    if parquet == "-":
        raise click.UsageError("name a file for --parquet; it cannot go to stdout")
    if raw and csv is None:
        raise click.UsageError("--raw goes with --csv")
    if pages and csv is None and parquet is None:
        raise click.UsageError("--pages goes with --csv or --parquet")

    def output(found: RunSummary) -> AbstractContextManager[Put]:
        is_series = found.kind == "series"
        if pages and is_series:
            raise click.UsageError("a series has no pages")
        if pages and not found.parameters.get("pages"):
            raise click.UsageError(f"run {found.run} was a harvest without --pages")
        columns = OF_SERIES if is_series else OF_PAGES if pages else OF_HARVEST
        if csv is not None:
            return csv_file(csv, columns, raw=raw)
        if parquet is not None:
            return parquet_file(parquet, columns)
        if jsonl is not None:
            return json_file(jsonl)
        return _stdout(settings)

    async def work() -> None:
        async with Archive.open(path) as archive:
            found = _find(await archive.contents(), path, run, series=series)
            with output(found) as put:
                async for row in _rows_of(archive, found):
                    put(row)
        if not settings.quiet:
            _sum_up(found, files)

    carry_out(settings, work)


@contextmanager
def _stdout(settings: Settings) -> Iterator[Put]:
    if not settings.as_table:
        yield write_line
        return
    kept: list[HarvestRow | SeriesRow] = []
    yield kept.append
    of_a_series = [row for row in kept if isinstance(row, SeriesRow)]
    of_a_harvest = [row for row in kept if isinstance(row, HarvestRow)]
    has_pages = any(row.stats and row.stats.pages for row in of_a_harvest)
    show(*of_series(of_a_series), *of_harvest(of_a_harvest, pages=has_pages))


def _find(
    runs: Sequence[RunSummary], path: Path, number: int | None, *, series: bool
) -> RunSummary:
    kinds = ("series",) if series else ("harvest",) if number is None else ("harvest", "series")
    found = [run for run in runs if run.kind in kinds and number in (None, run.run)]
    if not found:
        what = " or ".join(kinds) + ("" if number is None else f" that is run {number}")
        remedy = f"flipsnack archive {shlex.quote(str(path))} says what it holds"
        raise ArchiveError(str(path), f"holds no {what}", remedy)
    return found[-1]


def _rows_of(archive: Archive, run: RunSummary) -> AsyncIterator[HarvestRow | SeriesRow]:
    return archive.series_rows(run.run) if run.kind == "series" else archive.rows(run.run)


def _sum_up(run: RunSummary, files: Sequence[str]) -> None:
    for name in files:
        if name != "-":
            say(f"{name}: {size(Path(name).stat().st_size)}")
    if run.state == "listing":
        say(f"note: the {run.kind} is unfinished, and not all collections are listed yet")
    elif run.pending:
        total = run.done + run.failed + run.gone + run.pending
        pending = counted_of(run.pending, total, "collection")
        say(f"note: the {run.kind} is unfinished, {pending} still to be asked about")
