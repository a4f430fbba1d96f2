"""The command line of the archive: harvests and series that are kept, and what is read from it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import anyio
import duckdb
import pytest
from scripted import client
from test_cli import (  # fixtures too
    HASHES,
    SANDBOX,
    Flipsnack,
    assert_one_error,
    command_line,  # noqa: F401
    known_sandbox,  # noqa: F401
    served_sandbox,  # noqa: F401
)
from test_cli_terminal import (
    ctrl_c_counts,  # noqa: F401
    serving,
    show,
    start,
)

from flipsnack_async import (
    CollectionStats,
    HarvestRow,
    PageStats,
    SeriesPlan,
    SeriesProgress,
    _archive_job,
    _archive_schema,
)
from flipsnack_async.archive import Archive
from flipsnack_async.cli._looks import look_of_series
from flipsnack_async.cli._progress_bar import Look, progress_bar
from flipsnack_async.cli._readable import size
from flipsnack_async.cli._row_files import OF_HARVEST, OF_PAGES, OF_SERIES, csv_file, parquet_file
from flipsnack_async.cli._series import _in_words
from flipsnack_async.cli._settings import Settings
from flipsnack_async.sandbox import Sandbox

GONE = "zzzzzzz"
JANUARY = ("--start", "2026-01-01", "--end", "2026-01-31")
BEFORE_ANY_READER = ("--start", "2019-01-01", "--end", "2019-01-31")
COUNTERS = ("impressions", "views", "time_spent", "downloads", "likes", "shares")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "stats.db")


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Make an archive of a harvest, two series and another harvest, all of them complete."""
    path = tmp_path_factory.mktemp("archive") / "stats.db"
    sandbox = Sandbox(rates=())

    async def fill() -> None:
        async with client(sandbox, rates=()) as flipsnack, Archive.open(path) as archive:
            for rows in (
                archive.harvest(flipsnack, HASHES[3:4]),
                archive.series(flipsnack, [HASHES[0], GONE], "2019-01-01", "2019-01-31"),
                archive.series(flipsnack, [HASHES[1], GONE], "2026-01-01", "2026-01-03"),
                archive.harvest(
                    flipsnack,
                    [*HASHES[:3], GONE],
                    start_date="2026-01-01",
                    end_date="2026-01-31",
                    pages=True,
                ),
            ):
                async with rows:
                    async for _ in rows:
                        pass

    anyio.run(fill)
    return path.read_bytes()


@pytest.fixture
def kept(path: str, content: bytes) -> str:
    Path(path).write_bytes(content)
    return path


def by_text(rows: Iterable[Any]) -> list[str]:
    return sorted(map(str, rows))


def csv_lines(text: str) -> list[dict[str, str]]:
    return [*csv.DictReader(io.StringIO(text, newline=""))]


# --- harvests


def test_a_harvest_is_kept(flipsnack: Flipsnack, path: str) -> None:
    """
    With --out rows come as ever, and from the archive afterwards, which the summary names.
    """
    outcome = flipsnack(*SANDBOX, "harvest", "--all", "--pages", *JANUARY, "--out", path)
    read = flipsnack("rows", path)

    assert (0, 0) == (outcome.code, read.code)
    assert 40 == len(outcome.lines)
    assert by_text(outcome.lines) == by_text(read.lines)
    assert re.fullmatch(
        r"40 of 40 collections, 0 failed, 0 gone, 42 calls, \d\.\d s; "
        rf"flipsnack rows {path} shows them\n",
        outcome.err,
    )


@pytest.mark.parametrize(("more", "calls"), [((), 2), (("--fresh",), 42)])
def test_what_is_known_is_not_asked_again(
    flipsnack: Flipsnack, path: str, more: tuple[str, ...], calls: int
) -> None:
    """
    The same days again cost the listing only, unless they are wanted fresh; the rows come anyway.
    """
    command = (*SANDBOX, "harvest", "--all", *JANUARY, "--out", path, *more)
    first, second = flipsnack(*command), flipsnack(*command)

    assert by_text(first.lines) == by_text(second.lines)
    assert f"0 gone, {calls} calls" in second.err


def test_a_harvest_on_a_terminal(path: str) -> None:
    """
    A terminal gets no rows of a harvest that is kept, which may be thousands, but where they are.
    """
    screen = show(*SANDBOX, "harvest", "--all", "--out", path)

    assert (0, "") == (screen.code, screen.text)
    assert f"flipsnack rows {path} shows them" in screen.piped


def test_what_is_gone_is_no_failure(flipsnack: Flipsnack, path: str) -> None:
    """
    A collection that was deleted is a row with its error, and the harvest is complete.
    """
    outcome = flipsnack(*SANDBOX, "harvest", HASHES[0], GONE, "--out", path)

    assert 0 == outcome.code
    assert {None, 43} == {row["error"] and row["error"]["code"] for row in outcome.lines}
    assert outcome.err.startswith("2 of 2 collections, 0 failed, 1 gone, 2 calls")


@pytest.mark.parametrize(("times", "code"), [(1, 3), (2, 1)])
def test_failures(flipsnack: Flipsnack, known: Sandbox, path: str, times: int, code: int) -> None:
    """
    Where some collections failed it ends with 3, where all of them did with 1.
    """
    known.fail("collection.getStats", code=40, times=times)

    outcome = flipsnack("harvest", *HASHES[:2], "--out", path)

    assert code == outcome.code
    assert f"2 of 2 collections, {times} failed, 0 gone" in outcome.err


def test_an_outage(
    flipsnack: Flipsnack, known: Sandbox, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A harvest that an outage stops ends with 3, says why, and goes on with the same command.
    """
    monkeypatch.setattr(_archive_job, "PAUSES", (0.0, 0.0))
    command = ("harvest", *HASHES[:5], "--at-once", "2", "--out", path)
    address = os.environ["FLIPSNACK_API_URL"]
    monkeypatch.setenv("FLIPSNACK_API_URL", "http://127.0.0.1:1/v1/")
    stopped = flipsnack(*command)
    unfinished = flipsnack("rows", path)
    monkeypatch.setenv("FLIPSNACK_API_URL", address)
    finished = flipsnack(*command)

    assert 3 == stopped.code
    assert re.fullmatch(
        r"error: no connection.*\n\d of 5 collections, \d failed, .*; the same command goes on\n",
        stopped.err,
    )
    assert "note: the harvest is unfinished" in unfinished.err
    assert finished.code in {0, 3}
    assert 5 == len(flipsnack("rows", path).lines)


@pytest.mark.parametrize("command", [("harvest",), ("series", *JANUARY)], ids=lambda c: c[0])
def test_wrong_credentials(
    flipsnack: Flipsnack, served: Sandbox, path: str, command: tuple[str, ...]
) -> None:
    """
    Credentials that the API does not know end with 4, with an archive too.
    """
    outcome = flipsnack("--quiet", *command, HASHES[0], "--out", path)

    assert_one_error(4, outcome)


# --- series


def test_a_series_is_kept(flipsnack: Flipsnack, path: str) -> None:
    """
    A series is a row for each step, says which are inferred, and comes from the archive as it was.
    """
    command = (*SANDBOX, "series", *HASHES[:2], *BEFORE_ANY_READER, "--out", path)
    outcome = flipsnack(*command)
    read = flipsnack("rows", path, "--series")

    assert 0 == outcome.code
    assert 2 * 31 == len(outcome.lines)
    assert {True} == {row["is_inferred"] for row in outcome.lines}
    assert by_text(outcome.lines) == by_text(read.lines)
    plan, summary = outcome.err.splitlines()
    assert "2 collections, 31 days each: 62 steps, 0 known; 2 to 65 calls, 0 s" == plan
    assert re.fullmatch(
        r"2 of 2 collections, 0 failed, 0 gone, 2 calls, \d\.\d s; "
        rf"flipsnack rows --series {path} shows them",
        summary,
    )


def test_an_exact_series(flipsnack: Flipsnack, path: str) -> None:
    """
    With --exact each step is asked for, and the numbers are those that were inferred.
    """
    command = (*SANDBOX, "series", HASHES[0], *JANUARY, "--step", "week", "--out", path)
    inferred, exact = flipsnack(*command), flipsnack(*command, "--exact")

    assert "1 collection, 5 weeks each: 5 steps" in exact.err
    assert {False} == {row["is_inferred"] for row in exact.lines}
    assert [row["stats"] for row in inferred.lines] == [row["stats"] for row in exact.lines]


def test_a_plan_in_words() -> None:
    """
    The plan says how many steps there are and are known, and the bounds of calls and time.
    """
    plan = SeriesPlan(
        collections=1000,
        steps=365_000,
        steps_known=1200,
        least_calls=1000,
        most_calls=383_250,
        least_seconds=1020.0,
        most_seconds=381_600.0,
    )

    assert (
        "1,000 collections, 365 days each: 365,000 steps, 1,200 known; "
        "1,000 to 383,250 calls, 17 min 00 s to 4 d 10 h"
    ) == _in_words(plan, "day")


# --- interrupted


COMMANDS = {
    "harvest": ("harvest", "--all", "--at-once", "4"),
    "series": (
        *("series", *HASHES[:8], "--at-once", "2"),
        *("--start", "2026-01-01", "--end", "2026-01-04"),
    ),
}
ROWS = {"harvest": 40, "series": 32}
SHOW = {"harvest": ("rows",), "series": ("rows", "--series")}


class SlowSandbox(Sandbox):
    """Take *seconds* each way, until they are set to something else."""

    def __init__(self) -> None:
        self.seconds = 0.05
        super().__init__(latency=lambda: self.seconds, rates=())


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, flipsnack: Flipsnack) -> Iterator[SlowSandbox]:
    """Serve a sandbox whose answers take a while, to this process and to those it starts."""
    monkeypatch.setenv("FLIPSNACK_RATES", "500/1s")
    sandbox = SlowSandbox()
    with serving(sandbox) as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        yield sandbox


def asked(sandbox: Sandbox) -> list[str]:
    calls = [call for call in sandbox.ledger if call.action == "collection.getStats"]
    return [str(call.params) for call in calls]


@pytest.mark.parametrize(
    ("kind", "rows_before"),
    [("harvest", 0), ("harvest", 20), ("series", 1), ("series", 20)],
)
def test_ctrl_c(
    flipsnack: Flipsnack, slow: SlowSandbox, path: str, kind: str, rows_before: int
) -> None:
    """
    Ctrl-C stops within two seconds, with 130, and the same command goes on where it was.
    """
    command = (*COMMANDS[kind], "--out", path)
    process = start(*command)
    assert process.stdout
    first = [process.stdout.readline() for _ in range(rows_before)]
    while process.poll() is None and not asked(slow):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    more, said = process.communicate(timeout=10)
    seconds = time.monotonic() - sent
    slow.seconds = 0.0
    again = flipsnack(*command)
    read = flipsnack(*SHOW[kind], path).out.splitlines(keepends=True)

    assert (130, 0) == (process.returncode, again.code)
    assert seconds < 2
    assert re.search(r"^interrupted: .* collections? done; the same command goes on\n", said, re.M)
    assert "Traceback" not in said
    handed_out = {*first, *more.splitlines(keepends=True)}
    assert handed_out <= {*read}
    assert handed_out.isdisjoint(again.out.splitlines(keepends=True))
    assert not first or again.err.startswith("going on: ")
    assert ROWS[kind] == len(read)
    assert len(asked(slow)) - len({*asked(slow)}) <= 8


@pytest.mark.parametrize(("kind", "pause"), [("harvest", 0.0), ("harvest", 0.02), ("series", 0.1)])
def test_ctrl_c_twice(
    flipsnack: Flipsnack, slow: SlowSandbox, path: str, kind: str, pause: float
) -> None:
    """
    A second Ctrl-C ends it at once, and what was handed out is in the archive all the same.
    """
    command = (*COMMANDS[kind], "--out", path)
    process = start(*command)
    assert process.stdout
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    time.sleep(pause)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    more, said = process.communicate(timeout=10)
    seconds = time.monotonic() - sent
    slow.seconds = 0.0
    again = flipsnack(*command)
    read = flipsnack(*SHOW[kind], path).out.splitlines(keepends=True)

    assert (130, 0) == (process.returncode, again.code)
    assert seconds < 1
    assert "Traceback" not in said
    assert {first, *more.splitlines(keepends=True)} <= {*read}
    assert ROWS[kind] == len(read)


# --- what is read


def test_rows_as_csv(flipsnack: Flipsnack, kept: str, tmp_path: Path) -> None:
    """
    CSV has a line for each row with the numbers as they are, and errors in columns of their own.
    """
    target = tmp_path / "january.csv"
    outcome = flipsnack("rows", kept, "--csv", str(target))
    good, *_, gone = csv_lines(target.read_bytes().decode())
    stats = flipsnack("rows", kept).lines[0]["stats"]

    assert (0, "") == (outcome.code, outcome.out)
    assert re.fullmatch(rf"{target}: \d+ B\n", outcome.err)
    assert [*OF_HARVEST] == [*good]
    assert {name: str(stats[name] or "") for name in COUNTERS} == {n: good[n] for n in COUNTERS}
    assert ("2026-01-01", "2026-01-31") == (good["start_date"], good["end_date"])
    assert "" == good["error"] + good["error_code"] + good["error_message"] + good["extra"]
    assert (GONE, "CollectionUnavailableError", "43") == (
        gone["collection_hash"],
        gone["error"],
        gone["error_code"],
    )
    assert "" == gone["views"]


def test_pages_as_csv(flipsnack: Flipsnack, kept: str) -> None:
    """
    With --pages each page has its line.
    """
    lines = csv_lines(flipsnack("rows", kept, "--csv", "-", "--pages").out)
    pages = [page for row in flipsnack("rows", kept).lines[:-1] for page in row["stats"]["pages"]]

    assert [*OF_PAGES] == [*lines[0]]
    assert [{name: str(value) for name, value in page.items()} for page in pages] == [
        {name: line[name] for name in pages[0]} for line in lines[:-1]
    ]
    assert (GONE, "", "43") == tuple(
        lines[-1][name] for name in ("collection_hash", "page", "error_code")
    )


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=1,"\n2'])
def test_formulas(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """
    Text that a spreadsheet would take for a formula is only text, but for --raw; numbers stay.
    """
    row = HarvestRow(text, CollectionStats(text, views=-5, time_spent=-0.5))
    for raw in (False, True):
        with csv_file("-", OF_HARVEST, raw=raw) as put:
            put(row)
    safe, _, raw_line = csv_lines(capsys.readouterr().out)

    assert (f"'{text}", text) == (safe["collection_hash"], raw_line["collection_hash"])
    assert ("-5", "-0.5") == (safe["views"], safe["time_spent"])


def test_rows_as_json_lines(flipsnack: Flipsnack, kept: str, tmp_path: Path) -> None:
    """
    A file of JSON lines holds what stdout gets.
    """
    target = tmp_path / "rows.jsonl"
    outcome = flipsnack("rows", kept, "--jsonl", str(target), "--quiet")

    assert (0, "", "") == (outcome.code, outcome.out, outcome.err)
    assert flipsnack("rows", kept).out == target.read_text("utf-8")
    assert flipsnack("rows", kept).out == flipsnack("rows", kept, "--jsonl", "-").out


def test_rows_as_parquet(flipsnack: Flipsnack, kept: str, tmp_path: Path) -> None:
    """
    Parquet has typed columns, which hold what the rows say, in a file of whatever name.
    """
    target = tmp_path / "it's [a] 'place'*.parquet"
    outcome = flipsnack("rows", kept, "--series", "--parquet", str(target))
    typed, read = parquet(target)
    rows = flipsnack("rows", kept, "--series").lines

    assert 0 == outcome.code
    assert OF_SERIES == typed
    for row, line in zip(rows, read, strict=True):
        stats = row["stats"] or dict.fromkeys(["start_date", *COUNTERS])
        assert {name: stats[name] for name in COUNTERS} == {name: line[name] for name in COUNTERS}
        assert stats["start_date"] == (line["start_date"] and str(line["start_date"]))
    assert [False, False, False, None] == [line["is_inferred"] for line in read]
    assert ("CollectionUnavailableError", 43) == (read[-1]["error"], read[-1]["error_code"])


def parquet(target: Path) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Read a Parquet file: its columns with their types, and its lines."""
    with duckdb.connect() as database, target.open("rb") as file:
        copy = target.with_name("copy.parquet")
        copy.write_bytes(file.read())
        found = database.execute(f"FROM read_parquet('{copy}')")
        names = [column[0] for column in found.description or ()]
        types = [str(column[1]) for column in found.description or ()]
        lines = [dict(zip(names, line, strict=True)) for line in found.fetchall()]
    return dict(zip(names, types, strict=True)), lines


def test_whatever_a_row_holds_is_in_parquet(tmp_path: Path) -> None:
    """
    Numbers of 64 bits, fractions, text with quotes and NULs, and fields unheard of come through.
    """
    extra = {"nested": [1, {"ä": "\x00\u2028'\""}]}
    stats = CollectionStats(
        "h", impressions=2**63 - 1, views=-(2**63), time_spent=0.1 + 0.2, extra=extra
    )
    target = tmp_path / "a.parquet"
    with parquet_file(str(target), OF_HARVEST) as put:
        put(HarvestRow("h\x00'\"\n😀", stats))
    _, (line,) = parquet(target)

    assert "h\x00'\"\n😀" == line["collection_hash"]
    assert (2**63 - 1, -(2**63)) == (line["impressions"], line["views"])
    assert 0.1 + 0.2 == line["time_spent"]
    assert extra == json.loads(line["extra"])


def test_no_rows(tmp_path: Path) -> None:
    """
    A file of no rows has its columns all the same.
    """
    names = tmp_path / "a.csv", tmp_path / "a.parquet"
    with csv_file(str(names[0]), OF_PAGES, raw=False), parquet_file(str(names[1]), OF_PAGES):
        pass

    assert ",".join(OF_PAGES) == names[0].read_text().strip()
    assert (OF_PAGES, []) == parquet(names[1])


def test_pages_that_did_not_come(tmp_path: Path) -> None:
    """
    A collection without pages has one line without a page, and what a page has more is kept.
    """
    target = tmp_path / "a.csv"
    pages = (PageStats(page=1, views=2, extra={"zoom": 3}),)
    with csv_file(str(target), OF_PAGES, raw=False) as put:
        for stats in (CollectionStats("h", views=9), CollectionStats("h", views=9, pages=pages)):
            put(HarvestRow("h", stats))
    none, one = csv_lines(target.read_bytes().decode())

    assert ("", "", "") == (none["page"], none["views"], none["extra"])
    assert ("1", "2", '{"zoom": 3}') == (one["page"], one["views"], one["extra"])


def test_parquet_without_its_extra(
    flipsnack: Flipsnack, kept: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    Where DuckDB is missing, one line says how to install it.
    """
    monkeypatch.setitem(sys.modules, "duckdb", None)

    outcome = flipsnack("rows", kept, "--parquet", str(tmp_path / "a.parquet"))

    assert_one_error(2, outcome)
    assert "pip install 'flipsnack-async[duckdb]'" in outcome.err
    assert ["stats.db"] == os.listdir(tmp_path)


KILLED = """
import os, signal, sys
from pathlib import Path
from flipsnack_async.cli import _whole_file, run

def killed(*args):
    os.kill(os.getpid(), signal.SIGKILL)

where = sys.argv.pop(1)
if where == "writing":
    from flipsnack_async import archive
    archive._row_of_settled = archive.rows_of_settled = killed
elif where == "syncing":
    _whole_file.os.fsync = killed
else:
    Path.replace = killed
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("form", "where"),
    [
        ("csv", "writing"),
        ("csv", "renaming"),
        ("jsonl", "syncing"),
        ("parquet", "renaming"),
    ],
)
def test_g14_a_killed_export_leaves_the_old_file(
    flipsnack: Flipsnack, kept: str, tmp_path: Path, where: str, form: str
) -> None:
    """
    A file that is written anew is as it was until all of it is on the disk, whatever happens.
    """
    target = tmp_path / f"a.{form}"
    target.write_text("the old file")
    command = ["rows", kept, f"--{form}", str(target)]
    killed = subprocess.run([sys.executable, "-c", KILLED, where, *command], check=False)  # noqa: S603
    after = target.read_text()

    assert -signal.SIGKILL == killed.returncode
    assert "the old file" == after
    assert 0 == flipsnack(*command).code
    assert b"the old file" != target.read_bytes()


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_g14_a_failed_export_leaves_the_old_file_and_nothing_else(
    flipsnack: Flipsnack, kept: str, tmp_path: Path, form: str
) -> None:
    """
    Where the archive turns out to be damaged, the file is as it was and nothing lies beside it.
    """
    with sqlite3.connect(kept) as database:
        database.execute("UPDATE statistics SET views = views + 1 WHERE id = 2")
    database.close()
    target = tmp_path / f"a.{form}"
    target.write_text("the old file")

    outcome = flipsnack("rows", kept, f"--{form}", str(target))

    assert_one_error(1, outcome)
    assert "is damaged" in outcome.err
    assert "the old file" == target.read_text()
    assert {"stats.db", target.name} == {*os.listdir(tmp_path)}


@pytest.mark.parametrize(
    ("target", "code"), [("/dev/null", 2), ("/dev/full", 2), (".", 2), ("nowhere/a.csv", 1)]
)
def test_files_that_cannot_be_written(
    flipsnack: Flipsnack, kept: str, target: str, code: int
) -> None:
    """
    What is no file is not replaced by one, and a folder that is not there is one line.
    """

    assert_one_error(code, flipsnack("rows", kept, "--csv", target))


def test_a_link_stays_a_link(flipsnack: Flipsnack, kept: str, tmp_path: Path) -> None:
    """
    A file is written where a link leads.
    """
    link, target = tmp_path / "link.csv", tmp_path / "target.csv"
    link.symlink_to(target)

    assert 0 == flipsnack("rows", kept, "--csv", str(link)).code
    assert link.is_symlink()
    assert HASHES[0] in target.read_text()


def test_runs_are_chosen(flipsnack: Flipsnack, kept: str) -> None:
    """
    Without a word the newest harvest is shown, or a run by its number, of whatever kind.
    """

    def first_shown(*more: str) -> str:
        name: str = flipsnack("rows", kept, *more).lines[0]["collection_hash"]
        return name

    assert HASHES[0] == first_shown()
    assert HASHES[3] == first_shown("--run", "1")
    assert HASHES[0] == first_shown("--run", "2")
    assert HASHES[1] == first_shown("--series")
    assert_one_error(2, flipsnack("rows", kept, "--run", "5"))
    assert_one_error(2, flipsnack("rows", kept, "--series", "--csv", "-", "--pages"))


def test_a_series_is_a_table(flipsnack: Flipsnack, kept: str) -> None:
    """
    On a terminal of 80 columns steps are a table, with a mark where they were inferred.
    """

    screen = show("rows", kept, "--run", "2")

    assert f" {HASHES[0]}   2019-01-31 *   " in screen.text
    assert "* inferred" in screen.text
    assert "Forbidden" in screen.text
    assert max(map(len, screen.text.splitlines())) <= 80


def test_what_is_in_an_archive(flipsnack: Flipsnack, kept: str) -> None:
    """
    Each run is a line with its parameters, its state and what became of its collections.
    """
    *_, series, harvest = flipsnack("archive", kept).lines
    screen = show("archive", kept, columns=80)

    assert ("complete", 3, 0, 1, 0) == tuple(
        harvest[name] for name in ("state", "done", "failed", "gone", "pending")
    )
    assert ("2026-01-01", "2026-01-31") == (
        harvest["parameters"]["start_date"],
        harvest["parameters"]["end_date"],
    )
    assert ("series", "day") == (series["kind"], series["parameters"]["step"])
    assert Path(kept).stat().st_size == series["file_size"]
    *table, last = screen.text.splitlines()
    assert re.search(
        r"\n 1 +harvest of some +1 done +complete +20..-..-.. ..:.. +1 *\n", screen.text
    )
    assert max(map(len, table)) <= 80
    assert f"{kept}: 4 runs, {size(len(Path(kept).read_bytes()))}" == last


# --- what is refused


def test_other_parameters(flipsnack: Flipsnack, path: str, known: Sandbox) -> None:
    """
    An archive that is about something else, or another key, ends with 2 and stays as it is.
    """
    known.fail("collection.getStats", code=41)
    flipsnack("harvest", *HASHES[:2], "--at-once", "1", "--out", path)
    before = Path(path).read_bytes()

    for command in (
        ("harvest", "--all", "--out", path),
        ("harvest", *HASHES[:2], "--pages", "--out", path),
        ("series", *HASHES[:2], *JANUARY, "--out", path),
    ):
        assert_one_error(2, flipsnack(*command))
    assert before == Path(path).read_bytes()


def test_another_key(flipsnack: Flipsnack, kept: str, known: Sandbox) -> None:
    """
    An archive of another key ends with 2.
    """
    outcome = flipsnack("harvest", HASHES[0], "--out", kept)

    assert_one_error(2, outcome)
    assert "is about another key" in outcome.err


def test_an_archive_in_use(
    flipsnack: Flipsnack, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    An archive that somebody else has open ends with 2.
    """
    monkeypatch.setattr(_archive_schema, "BUSY", 0.0)
    other = sqlite3.connect(kept, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")

    outcome = flipsnack("rows", kept)
    other.close()

    assert_one_error(2, outcome)
    assert "is in use" in outcome.err


def test_a_damaged_archive(flipsnack: Flipsnack, kept: str) -> None:
    """
    A damaged archive ends with 1, whatever is wanted of it, and stays as it is.
    """
    content = bytearray(Path(kept).read_bytes())
    content[4096] ^= 0xFF  # the kind of the first table's page
    Path(kept).write_bytes(content)

    for command in (("rows", kept), ("archive", kept), (*SANDBOX, "harvest", "x", "--out", kept)):
        assert_one_error(1, flipsnack(*command))
    assert content == Path(kept).read_bytes()


@pytest.mark.parametrize(
    "args",
    [
        ["harvest", "--all", "--fresh"],
        ["harvest", "--all", "--start", "yesterday", "--out", "new.db"],
        ["harvest", "--all", "--out", "."],
        ["harvest", "--all", "--out", "text"],
        ["harvest", "--all", "--out", "nowhere/new.db"],
        ["series", "--all", "--start", "2026-01-01", "--out", "new.db"],
        ["series", "--all", *JANUARY],
        ["series", "--all", *JANUARY, "--step", "year", "--out", "new.db"],
        ["series", *JANUARY, "--out", "new.db"],
        ["rows", "nowhere.db"],
        ["rows", "text"],
        ["rows", "text", "--csv", "a", "--jsonl", "b"],
        ["rows", "text", "--csv", "./text"],
        ["rows", "text", "--raw"],
        ["rows", "text", "--pages"],
        ["rows", "text", "--parquet", "-"],
        ["archive"],
        ["archive", "nowhere.db"],
    ],
    ids=" ".join,
)
def test_wrong_usage(
    flipsnack: Flipsnack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str]
) -> None:
    """
    A wrong command line ends with 2 and one line, and no file is made or changed.
    """
    monkeypatch.chdir(tmp_path)
    Path("text").write_text("no archive")

    assert_one_error(2, flipsnack(*args))
    assert ["text"] == os.listdir()


# --- progress


def test_the_progress_of_a_series() -> None:
    """
    A series shows what it has cost, its pace, and at most how much is left.
    """
    progress = SeriesProgress(
        done=12,
        failed=1,
        steps_done=4015,
        calls=310,
        calls_per_minute=59.8,
        total=1000,
        most_calls_left=12_000,
        most_seconds_left=12_060.0,
    )

    look = look_of_series(progress)

    words = "12/1,000  1 failed  310 calls  59.8/min  at most 12,000 calls, 3 h 21 min left"
    assert words == look.words
    assert (310, 12_310) == (look.completed, look.total)


@pytest.mark.anyio
@pytest.mark.parametrize(("quiet", "lines"), [(False, ["60", "120"]), (True, [])])
async def test_progress_without_a_terminal(
    capsys: pytest.CaptureFixture[str], quiet: bool, lines: list[str]
) -> None:
    """
    Where stderr is no terminal a line a minute says how far it is, unless it is to be quiet.
    """
    started = anyio.current_time()

    def look() -> Look:
        return Look(f"{anyio.current_time() - started:.0f}")

    async with progress_bar(Settings(quiet=quiet), look):
        await anyio.sleep(150)

    assert lines == capsys.readouterr().err.splitlines()


@pytest.mark.anyio
async def test_what_is_left_of_a_series_falls_with_each_call(path: str) -> None:
    """
    Also while one collection takes long, its calls are counted out of what is left.
    """
    box = Sandbox(collections=1, latency=1.0)
    left = []
    async with client(box) as flipsnack, Archive.open(path) as archive:
        async with archive.series(flipsnack, box.hashes, "2026-01-01", "2026-01-31") as rows:
            plan = await rows.plan()
            await anyio.sleep(1)  # between two answers, which come every two seconds
            for _ in range(5):
                await anyio.sleep(4)
                left.append((rows.progress.calls, rows.progress.most_calls_left))

    assert [*range(3, 13, 2)] == [calls for calls, _ in left]
    assert {plan.most_calls + 1} == {calls + (most or 0) for calls, most in left}
