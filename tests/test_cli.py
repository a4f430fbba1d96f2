"""The command line: what goes to which stream, and with which exit code it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import attrs
import pytest

from flipsnack_async import Collection, CollectionStats, NoAnswerError, UserStats, _retry
from flipsnack_async.cli import _session, run
from flipsnack_async.sandbox import Sandbox

KEY, SECRET = "sesame-key", "sesame-secret"
HASHES = Sandbox().hashes
SANDBOX = ("--sandbox", "--rates", "500/1s,5000/60s")


@attrs.frozen
class Outcome:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Flipsnack = Callable[..., Outcome]


# The fixtures have other names than their functions: files that share them import those.
@pytest.fixture(name="flipsnack")
def command_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Flipsnack]:
    """Run a command line in this process, with made-up credentials in its environment."""
    monkeypatch.setenv("FLIPSNACK_API_KEY", KEY)
    monkeypatch.setenv("FLIPSNACK_API_SECRET", SECRET)
    monkeypatch.setenv("FLIPSNACK_API_URL", "http://127.0.0.1:1/v1/")
    monkeypatch.setattr(_retry, "LONGEST_BACKOFF", 0.0)
    interrupt = signal.getsignal(signal.SIGINT)

    def call(*args: str) -> Outcome:
        code = run(args)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert KEY not in out + err
        assert SECRET not in out + err
        return Outcome(code, out, err)

    yield call
    signal.signal(signal.SIGINT, interrupt)


@pytest.fixture(name="served")
def served_sandbox(monkeypatch: pytest.MonkeyPatch, flipsnack: Flipsnack) -> Iterator[Sandbox]:
    """Serve a sandbox on loopback, and point the environment there, but for the credentials."""
    sandbox = Sandbox(convert_seconds=0.1)
    with anyio.from_thread.start_blocking_portal() as portal:
        with portal.wrap_async_context_manager(sandbox.serve()) as url:
            monkeypatch.setenv("FLIPSNACK_API_URL", url)
            monkeypatch.setenv("FLIPSNACK_UPLOAD_URL", url)
            yield sandbox


@pytest.fixture(name="known")
def known_sandbox(monkeypatch: pytest.MonkeyPatch, served: Sandbox) -> Sandbox:
    """Serve a sandbox that the credentials in the environment are right for."""
    monkeypatch.setenv("FLIPSNACK_API_KEY", served.api_key)
    monkeypatch.setenv("FLIPSNACK_API_SECRET", served.api_secret)
    return served


# --- results


def test_user_stats_are_one_line(flipsnack: Flipsnack) -> None:
    """
    A result is one JSON object with the library's field names, and no *extra* that is empty.
    """
    outcome = flipsnack(*SANDBOX, "user-stats")

    assert (0, "") == (outcome.code, outcome.err)
    (stats,) = outcome.lines
    assert {f.name for f in attrs.fields(UserStats)} - {"extra"} == stats.keys()


def test_stats_with_pages(flipsnack: Flipsnack) -> None:
    """
    Statistics tell the days that were asked for, and each page.
    """
    days = ("--start", "2026-01-01", "--end", "2026-01-31")

    (stats,) = flipsnack(*SANDBOX, "stats", HASHES[0], "--pages", *days).lines

    assert {f.name for f in attrs.fields(CollectionStats)} - {"extra"} == stats.keys()
    assert (HASHES[0], "2026-01-01", "2026-01-31") == (
        stats["collection_hash"],
        stats["start_date"],
        stats["end_date"],
    )
    assert {"page", "time_spent", "clicks", "views"} == stats["pages"][0].keys()


def test_list(flipsnack: Flipsnack) -> None:
    """
    A list is a line for each collection that is meant.
    """
    everything = flipsnack(*SANDBOX, "list").lines
    lists = flipsnack(*SANDBOX, "list", "--status", "public", "--query", "PRICE LIST").lines

    assert list(HASHES) == [one["collection_hash"] for one in everything]
    assert {f.name for f in attrs.fields(Collection)} - {"extra"} == everything[0].keys()
    assert lists == [
        one for one in everything if one["status"] == "public" and "price list" in one["title"]
    ]


def test_harvest_all(flipsnack: Flipsnack) -> None:
    """
    A harvest is a row for each collection, and a summary on stderr that --quiet leaves out.
    """
    outcome = flipsnack(*SANDBOX, "harvest", "--all", "--start", "2026-01-01")
    quiet = flipsnack(*SANDBOX, "harvest", "--all", "--quiet")

    assert 0 == outcome.code
    assert set(HASHES) == {row["collection_hash"] for row in outcome.lines}
    assert all(row["error"] is None and row["stats"]["views"] >= 0 for row in outcome.lines)
    assert re.fullmatch(r"40 collections, 0 failed, 42 calls, \d\.\d s\n", outcome.err)
    assert ("", 40) == (quiet.err, len(quiet.lines))


def test_harvest_of_a_file(flipsnack: Flipsnack, tmp_path: Path) -> None:
    """
    Hashes come from the line and from a file, without its blank lines and comments.
    """
    file = tmp_path / "hashes.txt"
    file.write_text(f"\ufeff# the good ones\n\n  {HASHES[1]}  # best\r\n{HASHES[2]}", "utf-8")

    rows = flipsnack(*SANDBOX, "harvest", HASHES[0], "--from-file", str(file)).lines

    assert set(HASHES[:3]) == {row["collection_hash"] for row in rows}


def test_partial_harvest(flipsnack: Flipsnack) -> None:
    """
    A harvest with some failed rows ends with 3, and the rows tell what failed.
    """
    outcome = flipsnack(*SANDBOX, "harvest", HASHES[0], "zzzzzzz")

    failed = {row["collection_hash"]: row for row in outcome.lines}["zzzzzzz"]
    assert 3 == outcome.code
    assert failed["stats"] is None
    assert ("CollectionUnavailableError", 43) == (failed["error"]["type"], failed["error"]["code"])
    assert "Forbidden" in failed["error"]["message"]
    assert "2 collections, 1 failed, 2 calls" in outcome.err


def test_failed_harvest(flipsnack: Flipsnack) -> None:
    """
    A harvest of which every row failed has failed.
    """
    assert 1 == flipsnack(*SANDBOX, "harvest", "zzzzzzz", "yyyyyyy").code


def test_empty_harvest(flipsnack: Flipsnack) -> None:
    """
    A file without hashes is a harvest that is done.
    """
    assert 0 == flipsnack(*SANDBOX, "harvest", "--from-file", os.devnull).code


def test_text_that_a_terminal_would_obey(flipsnack: Flipsnack, known: Sandbox) -> None:
    """
    JSON lines hold the vendor's text, but no character that drives a terminal or ends a line.
    """
    title = "\x1b[31m ä \x9b2J \x7f \u2028 \u202e \ud800 [red]"
    answer = {"collections": [{"collectionHash": "fxh4k89", "collectionTitle": title}]}
    known.fail("collection.getList", body=json.dumps({"code": 20, "data": answer}))
    known.fail("collection.getList", body='{"code": 20, "data": []}')

    outcome = flipsnack("list")

    assert title.replace("\ud800", "\ufffd") == outcome.lines[0]["title"]
    assert "ä" in outcome.out
    assert outcome.out.rstrip("\n").isprintable()


def test_options_after_the_command(flipsnack: Flipsnack) -> None:
    """
    The program's options work on either side of the command.
    """
    before = flipsnack("--sandbox", "--quiet", "harvest", HASHES[0])
    after = flipsnack("harvest", HASHES[0], "--sandbox", "--quiet")

    assert (0, "") == (after.code, after.err)
    assert before.out == after.out


# --- failures


@pytest.mark.parametrize(
    "args",
    [
        ["lst"],
        ["--nonsense"],
        ["stats"],
        ["harvest"],
        ["harvest", "--all", "fxh4k89"],
        ["harvest", "--all", "--from-file", os.devnull],
        ["harvest", "--from-file", "/nowhere/at/all"],
        ["harvest", "--from-file", sys.executable],
        ["harvest", "--all", "--at-once", "0"],
        ["harvest", "--all", "--start", "yesterday"],
        ["stats", "fxh4k89", "--start", "2026-02-30"],
        ["stats", "fxh4k89", "--start", "2026-02-02", "--end", "2026-02-01"],
        ["stats", " "],
        ["get"],
        ["get", " "],
        ["list", "--param", "limit"],
        ["list", "--param", "=5"],
        ["list", "--param", "limit=5", "--param", "limit=6"],
        ["list", "--param", "signature=0"],
        ["list", "--order", "a\nb"],
        ["update", "fxh4k89"],
        ["update", "fxh4k89", "--width", "0"],
        ["embed", "fxh4k89", "--start-page", "0"],
        ["delete"],
        ["delete", "fxh4k89"],
        ["delete", "fxh4k89", "", "--yes"],
        ["upload"],
        ["upload", "-"],
        ["upload", "x.pdf", "--wait", "--every", "0"],
        ["upload", "x.pdf", "--wait", "--within", "nan"],
        ["call"],
        ["call", "user.getStats", "views"],
        ["call", "user.getStats", "apiKey=0"],
        ["call", "user.getStats", "a=1", "a=2"],
        ["call", "collection.create", "--file", "-"],
        ["call", "collection.create", "--file", "/nowhere/at/all"],
        ["--rates", "5", "list"],
        ["list", "--rates", "0/1s"],
        ["sandbox", "--port", "65536"],
    ],
    ids=" ".join,
)
def test_wrong_usage(flipsnack: Flipsnack, args: list[str]) -> None:
    """
    A wrong command line ends with 2 and one line.
    """
    assert_one_error(2, flipsnack(*args))


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("FLIPSNACK_API_KEY", "", 4),
        ("FLIPSNACK_API_SECRET", "", 4),
        ("FLIPSNACK_API_SECRET", "sesame secret", 4),
        ("FLIPSNACK_API_URL", "http://flipsnack.test/v1/", 2),
        ("FLIPSNACK_RATES", "many", 2),
    ],
)
def test_wrong_setting(
    flipsnack: Flipsnack, monkeypatch: pytest.MonkeyPatch, name: str, value: str, code: int
) -> None:
    """
    A wrong setting ends with 2, or with 4 if it is the key or its secret.
    """
    monkeypatch.setenv(name, value)

    assert_one_error(code, flipsnack("user-stats"))


def test_wrong_key(flipsnack: Flipsnack, served: Sandbox) -> None:
    """
    Credentials that the API does not know end with 4, a harvest's too.
    """
    assert_one_error(4, flipsnack("-v", "user-stats"))
    assert_one_error(4, flipsnack("-v", "harvest", "--all"))


def test_wrong_secret(
    flipsnack: Flipsnack, served: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A secret that does not go with the key ends with 4.
    """
    monkeypatch.setenv("FLIPSNACK_API_KEY", served.api_key)

    assert_one_error(4, flipsnack("-v", "list"))


def test_unknown_hash(flipsnack: Flipsnack) -> None:
    """
    A collection that is not there ends with 1.
    """
    outcome = flipsnack(*SANDBOX, "stats", "zzzzzzz")

    assert_one_error(1, outcome)
    assert "code 43" in outcome.err


def test_unreachable_host(flipsnack: Flipsnack) -> None:
    """
    A host that nobody listens on ends with 1, and -v shows no key.
    """
    silent, verbose = flipsnack("user-stats"), flipsnack("-vv", "user-stats")

    assert_one_error(1, silent)
    assert 1 == verbose.code
    assert verbose.err.endswith(silent.err)
    assert verbose.err.startswith("info: no connection")


def test_page_instead_of_an_answer(flipsnack: Flipsnack, known: Sandbox) -> None:
    """
    A proxy's page ends with 1 and none of its text.
    """
    known.fail("*", body="<html>please log in</html>", http_status=502, times=None)

    assert_one_error(1, flipsnack("user-stats"))
    assert "log in" not in flipsnack("-v", "user-stats").err


def test_endless_maintenance(
    flipsnack: Flipsnack, known: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A single call does not wait for the end of maintenance.
    """
    monkeypatch.setattr(_session, "PATIENCE", 1.0)
    known.fail("*", code=22, times=None)

    outcome = flipsnack("list")

    assert_one_error(1, outcome)
    assert "Maintenance" in outcome.err


def test_silence(flipsnack: Flipsnack, known: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A single call whose answer does not come is given up.
    """
    monkeypatch.setattr(_session, "PATIENCE", 0.2)
    known.fail("*", lost=True, times=None)

    outcome = flipsnack("user-stats")

    assert_one_error(1, outcome)
    assert "no answer within 0.2 s" in outcome.err


def test_bug(flipsnack: Flipsnack, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What nobody thought of is one line too, that asks to be reported.
    """

    def broken(*args: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(anyio, "run", broken)

    outcome = flipsnack("user-stats")

    assert_one_error(1, outcome)
    assert "RuntimeError" in outcome.err
    assert "report" in outcome.err


def test_causes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """
    With -v an error's causes are told, and a bug's traceback, which shows no values.
    """

    def broken(conversation: object) -> None:
        password = "sesame".upper()
        if next(bugs):
            raise LookupError(len(password))
        raise NoAnswerError("nothing came") from OSError("a\x1bbreak")

    monkeypatch.setattr(anyio, "run", broken)
    bugs = iter([False, True])
    codes = [run(["-v", "list"]), run(["-v", "list"])]
    err = capsys.readouterr().err

    assert [1, 1] == codes
    assert err.startswith("error: nothing came\ncaused by OSError: a break\nerror: unexpected")
    assert "Traceback" in err
    assert "SESAME" not in err


def assert_one_error(code: int, outcome: Outcome) -> None:
    assert (code, "") == (outcome.code, outcome.out), outcome.err
    assert re.fullmatch("error: .+\n", outcome.err)


# --- help


def test_no_arguments(flipsnack: Flipsnack) -> None:
    """
    The program alone shows its help, with what the exit codes mean.
    """
    outcome = flipsnack()

    assert outcome.err.startswith("Usage: flipsnack")
    assert "130 interrupted" in " ".join(outcome.err.split())


def test_version(flipsnack: Flipsnack) -> None:
    """
    The program knows its version.
    """
    assert re.fullmatch(r"flipsnack \d+\.\d+\.\d+\n", flipsnack("--version").out)
