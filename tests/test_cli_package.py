"""The command that saves a package: the file, what is said of it, and what is left on a failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
from test_cli import HASHES, Flipsnack, Outcome, command_line, known_sandbox, served_sandbox

from flipsnack_async.sandbox import Sandbox

__all__ = ["command_line", "known_sandbox", "served_sandbox"]  # fixtures


def package(flipsnack: Flipsnack, known: Sandbox, target: Path, *options: str) -> Outcome:
    every = ("--every", "0.05", "--within", "5")
    return flipsnack("package", known.hashes[0], str(target), *every, *options)


@pytest.fixture(autouse=True)
def quick(known: Sandbox, flipsnack: Flipsnack) -> None:
    known._account.exports._export_seconds = 0.1


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
    assert "exists; allow to overwrite" in outcome.err
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


def test_an_interrupted_export_says_what_is_missing(tmp_path: Path) -> None:
    """
    Ctrl-C leaves whole files only, names those that are missing, and says how to go on.
    """
    folder = tmp_path / "packages"
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
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)

    assert 130 == process.returncode
    assert f"0 packages saved in {folder}, missing {' '.join(HASHES[:10])} and 2 more" in said
    assert "the same command goes on" in said
    assert [] == os.listdir(folder)
