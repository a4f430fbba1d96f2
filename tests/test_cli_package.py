"""The command that saves a package: the file, what is said of it, and what is left on a failure."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import anyio
import pytest
from test_cli import HASHES, Flipsnack, Outcome, command_line, known_sandbox, served_sandbox

from flipsnack_async._part_file import PartFile
from flipsnack_async.cli import _packages
from flipsnack_async.cli._settings import Settings
from flipsnack_async.sandbox import Sandbox

__all__ = ["command_line", "known_sandbox", "served_sandbox"]  # fixtures


def package(flipsnack: Flipsnack, known: Sandbox, target: Path, *options: str) -> Outcome:
    every = ("--every", "0.05", "--within", "5")
    return flipsnack("package", known.hashes[0], str(target), *every, *options)


@pytest.fixture(autouse=True)
def quick(known: Sandbox, flipsnack: Flipsnack) -> None:
    known._account.exports._export_seconds = 0.0


def test_a_package_is_saved(flipsnack: Flipsnack, known: Sandbox, tmp_path: Path) -> None:
    """
    The file is a zip archive, and one line tells where it is, how long, and its digest.
    """
    target = tmp_path / "spring.zip"
    outcome = package(flipsnack, known, target)

    content = target.read_bytes()
    assert (0, "") == (outcome.code, outcome.err)
    assert [
        {
            "collection_hash": known.hashes[0],
            "path": str(target),
            "size": len(content),
            "sha256": sha256(content).hexdigest(),
        }
    ] == outcome.lines
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None


def test_an_existing_file_stays(flipsnack: Flipsnack, known: Sandbox, tmp_path: Path) -> None:
    """
    A file that is there is a bad argument, and no call is made, unless it may be overwritten.
    """
    target = tmp_path / "spring.zip"
    target.write_bytes(b"mine")
    outcome = package(flipsnack, known, target)
    assert 2 == outcome.code
    assert "exists; give --overwrite" in outcome.err
    assert [] == known.ledger
    assert b"mine" == target.read_bytes()

    assert 0 == package(flipsnack, known, target, "--overwrite").code
    assert b"mine" != target.read_bytes()


def test_a_package_that_takes_too_long(
    flipsnack: Flipsnack, known: Sandbox, tmp_path: Path
) -> None:
    """
    A package that is not ready in time is partly done: asking again goes on.
    """
    known._account.exports._export_seconds = 100.0
    outcome = package(flipsnack, known, tmp_path / "a.zip", "--within", "0.2")

    assert 3 == outcome.code
    assert "asking again later continues the same export" in outcome.err
    assert [] == os.listdir(tmp_path)


def test_a_failed_export(flipsnack: Flipsnack, known: Sandbox, tmp_path: Path) -> None:
    """
    A package that cannot be built is told in one line, and there is no file.
    """
    known.fail_export(known.hashes[0])
    outcome = package(flipsnack, known, tmp_path / "a.zip")

    assert 1 == outcome.code
    assert 1 == len(outcome.err.splitlines())
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize("moment", ["while", "after"])
def test_an_interrupted_save_says_what_is_true(
    flipsnack: Flipsnack,
    known: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    """
    Ctrl-C before the file is in its place leaves none, and says so; after that it says it is there.
    """
    operation = "fsync" if moment == "while" else "link"
    real, give_up = getattr(os, operation), PartFile.give_up
    was_heard = threading.Event()

    def interrupted(*args: Any) -> None:
        time.sleep(0.05)  # or the event loop misses it, on its way to its wait
        os.kill(os.getpid(), signal.SIGINT)
        was_heard.wait(5)
        real(*args)

    def hear(part: PartFile) -> None:
        give_up(part)
        was_heard.set()

    target = tmp_path / "a.zip"
    with monkeypatch.context() as patched:
        patched.setattr(os, operation, interrupted)
        patched.setattr(PartFile, "give_up", hear)
        outcome = package(flipsnack, known, target)
    until = time.monotonic() + 5
    while len(os.listdir(tmp_path)) != (moment == "after") and time.monotonic() < until:
        time.sleep(0.01)

    assert (130, "") == (outcome.code, outcome.out)
    if moment == "while":
        said = "interrupted: nothing was saved; asking again continues the export\n"
        assert [] == os.listdir(tmp_path)
    else:
        said = f"interrupted: {target} was saved all the same\n"
        assert [target.name] == os.listdir(tmp_path)
    assert said == outcome.err


def packages(flipsnack: Flipsnack, folder: Path, *refs: str) -> Outcome:
    return flipsnack("packages", *refs, "--into", str(folder), "--every", "0.05", "--within", "5")


def test_many_packages_are_saved(flipsnack: Flipsnack, known: Sandbox, tmp_path: Path) -> None:
    """
    Each package is a row and a file of its hash's name; a second run makes no call for them.
    """
    refs = known.hashes[:3]
    outcome = packages(flipsnack, tmp_path, *refs)
    assert 0 == outcome.code
    assert set(refs) == {row["collection_hash"] for row in outcome.lines}
    assert {f"{name}.zip" for name in refs} == set(os.listdir(tmp_path))
    assert outcome.err.startswith("3 packages, 0 failed, ")

    calls = len(known.ledger)
    again = packages(flipsnack, tmp_path, *refs, "--unpack")
    assert calls == len(known.ledger)
    assert [row["package"] for row in outcome.lines] == sorted(
        (row["package"] for row in again.lines),
        key=[row["package"] for row in outcome.lines].index,
    )
    assert all((tmp_path / name / "index.html").exists() for name in refs)
    assert 0 == packages(flipsnack, tmp_path, *refs, "--unpack").code


def test_one_that_fails_among_many(flipsnack: Flipsnack, known: Sandbox, tmp_path: Path) -> None:
    """
    Some that fail are partly done, all are a failure, and each says why.
    """
    good, bad = known.hashes[:2]
    known.fail_export(bad)
    outcome = packages(flipsnack, tmp_path, good, bad)
    assert 3 == outcome.code
    errors = {row["collection_hash"]: row["error"] for row in outcome.lines}
    assert errors[good] is None
    assert "ExportFailedError" == errors[bad]["type"]

    assert 1 == packages(flipsnack, tmp_path, bad).code


def test_the_choice_is_needed(flipsnack: Flipsnack, tmp_path: Path) -> None:
    """
    Without hashes, or with them and --all, it is a usage error, and no folder is made.
    """
    folder = tmp_path / "packages"
    assert 2 == packages(flipsnack, folder).code
    assert 2 == packages(flipsnack, folder, "--all", "fxh4k89").code
    assert not folder.exists()


def test_a_package_that_is_not_ready_is_partly_done(
    flipsnack: Flipsnack, known: Sandbox, tmp_path: Path
) -> None:
    """
    One of many that took too long, or the only one, is gone on with by the same command.
    """
    slow = known.hashes[0]
    known.stall_export(slow)
    options = ("--into", str(tmp_path), "--every", "0.05", "--within", "0.2")
    outcome = flipsnack("packages", slow, *options)

    assert 3 == outcome.code
    assert ["ExportTimeoutError"] == [row["error"]["type"] for row in outcome.lines]


def test_packages_have_hours(flipsnack: Flipsnack) -> None:
    """
    Many packages have the library's own time, one has ten minutes.
    """
    assert "[default: 3600.0]" in " ".join(flipsnack("packages", "--help").out.split())
    assert "[default: 600.0]" in " ".join(flipsnack("package", "--help").out.split())


def test_the_calls_that_list_the_account_are_counted(
    flipsnack: Flipsnack, known: Sandbox, tmp_path: Path
) -> None:
    """
    The summary tells all calls that were made, with those of the list.
    """
    for name in known.hashes[2:]:
        known.remove(name)
    outcome = packages(flipsnack, tmp_path, "--all")

    assert f"2 packages, 0 failed, {len(known.ledger)} calls, " in outcome.err


def retitle(flipsnack: Flipsnack, folder: Path, name: str) -> None:
    flipsnack("update", name, "--title", "A new edition")
    (folder / f"{name}.zip").unlink()


def put_a_file(flipsnack: Flipsnack, folder: Path, name: str) -> None:
    shutil.rmtree(folder / name)
    (folder / name).touch()


def add_a_file(flipsnack: Flipsnack, folder: Path, name: str) -> None:
    (folder / name / "notes.txt").touch()


@pytest.mark.parametrize("spoil", [retitle, put_a_file, add_a_file])
def test_only_what_is_unpacked_is_skipped(
    flipsnack: Flipsnack,
    known: Sandbox,
    tmp_path: Path,
    spoil: Callable[[Flipsnack, Path, str], None],
) -> None:
    """
    What is in the folder's place and is not the package fails the row, and is left alone.
    """
    name, other = known.hashes[:2]
    first = packages(flipsnack, tmp_path, name, other, "--unpack")
    assert {str(tmp_path / name), str(tmp_path / other)} == {row["folder"] for row in first.lines}
    spoil(flipsnack, tmp_path, name)
    before = sorted((tmp_path / name).rglob("*"))

    outcome = packages(flipsnack, tmp_path, name, other, "--unpack")

    assert 3 == outcome.code
    errors = {row["collection_hash"]: row["error"] for row in outcome.lines}
    assert errors[name]["message"].endswith(
        f"{tmp_path / name} is something else; remove or rename it"
    )
    assert errors[other] is None
    assert before == sorted((tmp_path / name).rglob("*"))


def test_an_empty_folder_is_unpacked_into(
    flipsnack: Flipsnack, known: Sandbox, tmp_path: Path
) -> None:
    """
    A folder that holds nothing is not taken for an unpacked package.
    """
    name = known.hashes[0]
    (tmp_path / name).mkdir()

    assert 0 == packages(flipsnack, tmp_path, name, "--unpack").code
    assert (tmp_path / name / "index.html").exists()


@pytest.mark.parametrize(
    ("stream", "said", "code"),
    [("stdout", "stdout is closed", 2), ("stdin", "stdin is closed", 2), ("stderr", "", 0)],
)
def test_a_closed_stream_is_told_in_words(
    flipsnack: Flipsnack,
    known: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stream: str,
    said: str,
    code: int,
) -> None:
    """
    Where a shell closed what a command reads or writes, it says so before any call.
    """
    choice = ("--from-file", "-") if stream == "stdin" else (known.hashes[0],)
    monkeypatch.setattr(sys, stream, None)
    outcome = packages(flipsnack, tmp_path, *choice)

    assert code == outcome.code
    assert said in outcome.err
    assert not code or not known.ledger


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), BaseExceptionGroup("", [KeyboardInterrupt()])]
)
def test_interrupts_in_a_group_are_one(
    flipsnack: Flipsnack, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """
    However an interrupt comes out, the exit code is that of one, and no traceback is shown.
    """

    def interrupted(*args: object) -> None:
        raise error

    monkeypatch.setattr(anyio, "run", interrupted)

    assert Outcome(130, "", "") == flipsnack("user-stats")


def interrupt(folder: Path, *, times: int) -> tuple[int, str]:
    """Start an export, press Ctrl-C as soon as the folder is there, and say how it ended."""
    command = [sys.executable, "-m", "flipsnack_async", "--sandbox", "packages", "--into"]
    with (
        subprocess.Popen(  # noqa: S603
            [*command, str(folder), *HASHES[:12]],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell without job control may have it ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process
    ):
        until = time.monotonic() + 20
        while not folder.exists() and time.monotonic() < until:
            time.sleep(0.05)
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(0.003)
        _, said = process.communicate(timeout=20)
    return process.returncode, said


def test_an_interrupted_export_says_what_is_missing(tmp_path: Path) -> None:
    """
    Ctrl-C leaves whole files only, names those that are missing, and says how to go on.
    """
    folder = tmp_path / "packages"
    code, said = interrupt(folder, times=1)

    assert 130 == code
    assert f"0 packages saved in {folder}, missing {' '.join(HASHES[:12])}; the same" in said
    assert [] == os.listdir(folder)


def test_more_interrupts_change_nothing(tmp_path: Path) -> None:
    """
    Ctrl-C again and again ends as once does: in words, without a traceback or half a file.
    """
    folder = tmp_path / "packages"
    code, said = interrupt(folder, times=60)

    assert 130 == code
    assert 1 == len(said.splitlines())
    assert [] == os.listdir(folder)


def test_what_is_saved_is_not_called_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    What is missing after Ctrl-C is what is not on the disk, whatever rows there were.
    """
    output = _packages._Output(Settings(), tmp_path, unpack=False)
    output.expect(["a", "b", "c"])
    (tmp_path / "b.zip").touch()
    output.say_missing()

    said = f"interrupted: 1 package saved in {tmp_path}, missing a c; the same command goes on"
    assert said == capsys.readouterr().err.strip()
