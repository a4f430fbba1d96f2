"""What an archive holds, for spreadsheets and other programs: CSV, JSON lines and Parquet."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TextIO, TypeAlias

import click

from flipsnack_async import HarvestRow, SeriesRow

from ._extras import needing
from ._json_lines import line_of, plain
from ._whole_file import whole_file

Row: TypeAlias = HarvestRow | SeriesRow
Put: TypeAlias = Callable[[Row], object]
Columns: TypeAlias = Mapping[str, str]
Cell: TypeAlias = str | float | None

_RANGE: Final = {"collection_hash": "VARCHAR", "start_date": "DATE", "end_date": "DATE"}
_TOTALS: Final = {
    "impressions": "BIGINT",
    "views": "BIGINT",
    "time_spent": "DOUBLE",
    "downloads": "BIGINT",
    "likes": "BIGINT",
    "shares": "BIGINT",
}
_PAGE: Final = {"page": "BIGINT", "views": "BIGINT", "clicks": "BIGINT", "time_spent": "DOUBLE"}
_REST: Final = {
    "error": "VARCHAR",
    "error_code": "BIGINT",
    "error_message": "VARCHAR",
    "extra": "VARCHAR",  # JSON
}
# The columns and their types in SQL.
OF_HARVEST: Final[Columns] = {**_RANGE, **_TOTALS, **_REST}
OF_PAGES: Final[Columns] = {**_RANGE, **_PAGE, **_REST}
OF_SERIES: Final[Columns] = {**_RANGE, **_TOTALS, "is_inferred": "BOOLEAN", **_REST}

# What a cell begins with that spreadsheets take for a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


@contextmanager
def csv_file(name: str, columns: Columns, *, raw: bool) -> Iterator[Put]:
    """Write rows to a CSV file; text that would be a formula gets a ' in front, unless *raw*."""
    with _text_file(name) as file:
        writer = csv.writer(file)
        writer.writerow(columns)

        def put(row: Row) -> None:
            for line in _lines(row, columns):
                writer.writerow(line.values() if raw else map(_harmless, line.values()))

        yield put


@contextmanager
def json_file(name: str) -> Iterator[Put]:
    """Write rows to a file of JSON lines, as they come on stdout."""
    with _text_file(name) as file:
        yield lambda row: print(line_of(row, file.encoding), file=file)


@contextmanager
def parquet_file(name: str, columns: Columns) -> Iterator[Put]:
    """Write rows to a Parquet file of typed columns."""
    with needing("duckdb"):
        import duckdb

    # By way of a file that DuckDB reads itself: rows handed to it one by one take minutes.
    with whole_file(Path(name)) as target, TemporaryDirectory() as folder:
        path = Path(folder, "rows.jsonl")
        with path.open("w", encoding="ascii") as file:
            yield lambda row: file.writelines(
                f"{json.dumps(line)}\n" for line in _lines(row, columns)
            )
        # Each of its threads would take memory of its own.
        with duckdb.connect(config={"temp_directory": folder, "threads": 1}) as database:
            source = f"read_json({_quoted(escape(str(path)))}, format = 'newline_delimited'"
            form = "FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false"
            try:
                database.execute(
                    f"COPY (FROM {source}, columns = {dict(columns)}))"
                    f" TO {_quoted(str(target))} ({form})"
                )
            except duckdb.Error as error:  # a full disk, for one
                raise click.ClickException(f"{name}: {error}") from None


@contextmanager
def _text_file(name: str) -> Iterator[TextIO]:
    if name == "-":
        yield sys.stdout
        return
    with whole_file(Path(name)) as path, path.open("w", encoding="utf-8", newline="") as file:
        yield file


def _lines(row: Row, columns: Columns) -> Iterator[dict[str, Cell]]:
    """Lay a row out in one line, or in one for each of its pages."""
    stats, error = row.stats, row.error
    of_all = {
        "collection_hash": row.collection_hash,
        "start_date": plain(stats and stats.start_date),
        "end_date": plain(stats and stats.end_date),
        "error": error and type(error).__name__,
        "error_code": getattr(error, "code", None),
        "error_message": error and str(error),
        "is_inferred": getattr(row, "is_inferred", None) if stats else None,
    }
    parts: tuple[Any, ...] = (stats,)
    if columns is OF_PAGES:
        parts = (stats and stats.pages) or (None,)
    for part in parts:
        extra = getattr(part, "extra", None)
        of_part = {"extra": json.dumps(plain(extra)) if extra else None}
        yield {
            name: of_all[name] if name in of_all else of_part.get(name, getattr(part, name, None))
            for name in columns
        }


def _harmless(cell: Cell) -> Cell:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
