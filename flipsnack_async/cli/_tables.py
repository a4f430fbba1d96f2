"""Results for people: tables on a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

import attrs
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flipsnack_async import (
    Collection,
    CollectionStats,
    HarvestRow,
    PackageRow,
    PageStats,
    RunSummary,
    SeriesRow,
    UserStats,
)

from ._json_lines import plain
from ._readable import duration, number, printable, size

_SWITCHES = ("pages", "fresh", "exact")


def show(*tables: Table) -> None:
    """Print *tables* on stdout."""
    console = Console(highlight=False)
    for table in tables:
        console.print(table)


def of_user(stats: UserStats) -> Table:
    return _two_columns(stats)


def of_stats(stats: CollectionStats) -> list[Table]:
    """Make a table of the totals, and one of the pages if there are any."""
    totals = _two_columns(attrs.evolve(stats, pages=None))
    return [totals, _of_pages(stats.pages)] if stats.pages else [totals]


def of_collection(collection: Collection) -> Table:
    return _two_columns(collection)


def of_collections(collections: Iterable[Collection]) -> Table:
    table = _table("hash", "title", "status", right=("size",))
    for one in collections:
        size = f"{number(one.width)} x {number(one.height)}"
        table.add_row(*map(_text, (one.collection_hash, one.title, one.status, size)))
    return table


def of_harvest(rows: Iterable[HarvestRow], *, pages: bool) -> list[Table]:
    """Make a table of the rows that have statistics, and one of those that failed."""
    of_each_page = ("pages", "top page") if pages else ()
    numbers = ("impressions", "views", "time spent", "downloads", *of_each_page)
    good, failed = _table("hash", right=numbers), _table("hash", "error")
    for row in rows:
        if row.stats:
            good.add_row(_text(row.collection_hash), *_numbers(row.stats, pages=pages))
        else:
            failed.add_row(_text(row.collection_hash), _text(str(row.error)), style="red")
    return [table for table in (good, failed) if table.row_count]


def of_series(rows: Iterable[SeriesRow]) -> list[Table]:
    """Make a table of the steps, and one of the collections that failed."""
    numbers = ("impressions", "views", "time spent", "downloads")
    good, failed = _table("hash", "days", right=numbers), _table("hash", "error")
    for row in rows:
        name = _text(row.collection_hash)
        if row.stats:
            first, last = str(row.stats.start_date), str(row.stats.end_date)
            days = first if first == last else f"{first} to {last}"
            if row.is_inferred:
                days, good.caption = f"{days} *", "* inferred, not asked for"
            good.add_row(name, days, *_numbers(row.stats, pages=False))
        else:
            failed.add_row(name, _text(str(row.error)), style="red")
    return [table for table in (good, failed) if table.row_count]


def of_runs(runs: Iterable[RunSummary]) -> Table:
    table = _table("run", "what", "collections", "state", "begun (UTC)", right=("calls",))
    now = datetime.now(UTC)
    for run in runs:
        outcomes = ((name, getattr(run, name)) for name in ("done", "failed", "gone", "pending"))
        age = duration((now - run.started_at).total_seconds())
        table.add_row(
            str(run.run),
            _text(f"{run.kind} of {_asked_for(run.parameters)}"),
            ", ".join(f"{count:,} {name}" for name, count in outcomes if count) or "none",
            run.state,
            f"{run.started_at:%Y-%m-%d %H:%M}\n{age} ago",
            number(run.calls),
        )
    return table


def _asked_for(parameters: Mapping[str, Any]) -> str:
    """Write the parameters of a run as one would say them."""
    parts = ["all" if parameters["refs"] == "all" else "some"]
    if "start_date" in parameters:
        parts.append(f"from {parameters['start_date']}")
    if "end_date" in parameters:
        parts[-1] += f" to {parameters['end_date']}"
    if "step" in parameters:
        parts.append(f"by {parameters['step']}")
    return ", ".join([*parts, *(name for name in _SWITCHES if parameters.get(name))])


def of_packages(rows: Iterable[PackageRow]) -> list[Table]:
    """Make a table of the packages that were saved, and one of those that failed."""
    good, failed = _table("hash", "saved as", right=("size",)), _table("hash", "error")
    for row in rows:
        name = _text(row.collection_hash)
        if row.package:
            place = getattr(row, "folder", None) or row.package.path
            good.add_row(name, _text(str(place)), size(row.package.size))
        else:
            failed.add_row(name, _text(str(row.error)), style="red")
    return [table for table in (good, failed) if table.row_count]


def _of_pages(pages: Iterable[PageStats]) -> Table:
    table = _table(right=("page", "views", "clicks", "time spent"))
    for page in pages:
        table.add_row(
            number(page.page), number(page.views), number(page.clicks), duration(page.time_spent)
        )
    return table


def _numbers(stats: CollectionStats, *, pages: bool) -> list[str]:
    totals = [
        number(stats.impressions),
        number(stats.views),
        duration(stats.time_spent),
        number(stats.downloads),
    ]
    if not pages:
        return totals
    return [*totals, number(len(stats.pages or ())), _most_viewed(stats.pages or ())]


def _most_viewed(pages: Sequence[PageStats]) -> str:
    counted = [page for page in pages if page.views is not None]
    return number(max(counted, key=attrgetter("views")).page) if counted else "-"


def _two_columns(result: Any) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for field in attrs.fields(type(result)):
        value = getattr(result, field.name)
        if field.name == "extra":
            for name, more in value.items():
                table.add_row(_text(name), _text(json.dumps(plain(more), ensure_ascii=False)))
        elif field.name == "time_spent":
            table.add_row("time spent", duration(value))
        elif value is not None:
            shown = number(value) if isinstance(value, (int, float)) else str(value)
            table.add_row(field.name.replace("_", " "), _text(shown))
    return table


def _table(*left: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in left:
        # A hash that is broken over two lines cannot be copied.
        table.add_column(heading, overflow="fold", no_wrap=heading == "hash")
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _text(value: str | None) -> Text:
    # A Text is shown as it is; a str could hold markup.
    return Text("-" if value is None else printable(value))
