"""The command that uploads: what is sent, awaited, and found out where no answer came."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from test_cli import (  # fixtures too
    Flipsnack,
    assert_one_error,
    command_line,  # noqa: F401
    known_sandbox,  # noqa: F401
    served_sandbox,  # noqa: F401
)

from flipsnack_async import Collection
from flipsnack_async.cli import _sandboxes
from flipsnack_async.cli._looks import ConversionWatch, UploadMeter
from flipsnack_async.cli._readable import size
from flipsnack_async.sandbox import Sandbox

PDF = b"%PDF-1.4 the whole of spring"


@pytest.fixture
def document(tmp_path: Path) -> str:
    file = tmp_path / "spring.pdf"
    file.write_bytes(PDF)
    return str(file)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody in this process sleep for long."""
    sleep = anyio.sleep

    async def nap(seconds: float) -> None:
        await sleep(min(seconds, 0.01))

    monkeypatch.setattr(anyio, "sleep", nap)


def creations(sandbox: Sandbox) -> int:
    return [call.action for call in sandbox.ledger].count("collection.create")


# --- uploads that are answered


def test_upload(flipsnack: Flipsnack, known: Sandbox, document: str) -> None:
    """
    A document becomes a collection with the details given; the count of uploads is asked first.
    """
    details = ("--title", "Spring", "--height", "500", "--status", "unlisted", "--param", "a=b")

    outcome = flipsnack("upload", document, *details)

    (collection,) = outcome.lines
    counted, created = known.ledger
    assert (0, "") == (outcome.code, outcome.err)
    assert ("Spring", 500, "unlisted", "processing") == tuple(
        collection[name] for name in ("title", "height", "status", "state")
    )
    assert known.hashes[0] == collection["collection_hash"]
    assert ("user.getStats", "b") == (counted.action, created.params["a"])


def test_upload_from_an_address(flipsnack: Flipsnack, known: Sandbox) -> None:
    """
    An address goes to the vendor, who fetches the document himself.
    """
    address = "https://example.com/spring.pdf"

    assert 0 == flipsnack("upload", address).code
    assert address == known.ledger[-1].params["fileUrl"]


def test_upload_and_wait(
    flipsnack: Flipsnack, document: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    With --wait the result is the converted collection, in a sandbox too.
    """
    monkeypatch.setattr(_sandboxes, "CONVERSION", 0.1)
    monkeypatch.setattr(_sandboxes, "LATENCY", 0.0)

    outcome = flipsnack("--sandbox", "upload", document, "--wait", "--every", "0.05")

    assert (0, "") == (outcome.code, outcome.err)
    assert ["complete"] == [one["state"] for one in outcome.lines]


def test_conversion_that_takes_longer(flipsnack: Flipsnack, known: Sandbox, document: str) -> None:
    """
    When the time is over that is partly done: the collection is told, and how to go on.
    """
    outcome = flipsnack("upload", document, "--wait", "--within", "0.05")

    (collection,) = outcome.lines
    name = collection["collection_hash"]
    error, note = outcome.err.splitlines()
    assert (3, "processing") == (outcome.code, collection["state"])
    assert f"error: the conversion of {name} was not done within 0.05 s" in error
    assert f"{name} is uploaded; flipsnack get {name} says how far its conversion is" == note


def test_conversion_that_is_lost_sight_of(
    flipsnack: Flipsnack, known: Sandbox, document: str
) -> None:
    """
    What stops the waiting undoes no upload.
    """
    known.fail("collection.getCollection", code=43)

    outcome = flipsnack("upload", document, "--wait")

    assert (3, known.hashes[0]) == (outcome.code, outcome.lines[0]["collection_hash"])
    assert "Forbidden (code 43)" in outcome.err
    assert f"{known.hashes[0]} is uploaded" in outcome.err


def test_failed_conversion(flipsnack: Flipsnack, known: Sandbox, document: str) -> None:
    """
    A document that cannot be converted ends with 1.
    """
    known.fail_conversion()

    outcome = flipsnack("upload", document, "--wait", "--every", "0.05")

    assert_one_error(1, outcome)
    assert f"{known.hashes[0]} could not be converted" in outcome.err


# --- uploads that are not sent, or refused


def test_no_upload_left(flipsnack: Flipsnack, known: Sandbox, document: str) -> None:
    """
    Where the month's uploads are used up, nothing is sent.
    """
    known.uploads_left = 0

    outcome = flipsnack("upload", document)

    assert_one_error(1, outcome)
    assert "no upload is left this month" in outcome.err
    assert 0 == creations(known)


def test_upload_refused_for_the_month(flipsnack: Flipsnack, known: Sandbox, document: str) -> None:
    """
    Where the vendor finds them used up, the line names the command that counts them.
    """
    known.fail("collection.create", code=33)

    outcome = flipsnack("upload", document)

    assert_one_error(1, outcome)
    assert outcome.err.endswith("; flipsnack user-stats says how many are left\n")


def test_count_that_cannot_be_had(flipsnack: Flipsnack, known: Sandbox, document: str) -> None:
    """
    Without the count of uploads the document goes out all the same.
    """
    known.fail("user.getStats", code=40)

    assert 0 == flipsnack("upload", document).code


def test_upload_with_a_wrong_key(flipsnack: Flipsnack, served: Sandbox, document: str) -> None:
    """
    With a wrong key, no document is sent.
    """
    assert_one_error(4, flipsnack("upload", document))
    assert 0 == creations(served)


def test_file_that_is_not_there(flipsnack: Flipsnack, known: Sandbox) -> None:
    """
    A file that cannot be read is a bad argument.
    """
    assert_one_error(2, flipsnack("upload", "/nowhere/at/all.pdf"))
    assert_one_error(2, flipsnack("upload", "http://example.com/spring.pdf"))


# --- uploads that get no answer


def test_upload_that_was_carried_out(flipsnack: Flipsnack, known: Sandbox, document: str) -> None:
    """
    An upload whose answer broke off is looked for, and if found counts as answered.
    """
    known.fail("collection.create", torn=True)

    outcome = flipsnack("upload", document, "--title", "Spring", "--wait", "--every", "0.05")

    (collection,) = outcome.lines
    broken, found = outcome.err.splitlines()
    assert (0, known.hashes[0]) == (outcome.code, collection["collection_hash"])
    assert "complete" == collection["state"]
    assert broken.startswith("note: collection.create: ")
    assert broken.endswith("; finding out whether the upload was carried out")
    assert found.startswith("note: the upload was carried out: an upload was counted since")
    assert 1 == creations(known)


@pytest.mark.usefixtures("hasty")
def test_upload_that_was_not_carried_out(
    flipsnack: Flipsnack, known: Sandbox, document: str
) -> None:
    """
    Where no upload was counted it is safe to send it again, but that is left to the caller.
    """
    known.fail("collection.create", reset=True)

    outcome = flipsnack("upload", document, "--quiet")

    assert_one_error(1, outcome)
    assert "error: the upload was not carried out: collection.create: " in outcome.err
    assert outcome.err.endswith("no upload was counted since; it is safe to send it again\n")
    assert 1 == creations(known)


@pytest.mark.parametrize("reachable", [True, False])
def test_upload_that_nobody_knows_of(
    flipsnack: Flipsnack, known: Sandbox, document: str, reachable: bool
) -> None:
    """
    Where nothing tells, one line has the evidence that a person can look by.
    """
    known.fail("collection.create", torn=True)
    if not reachable:
        known.fail("collection.getList", code=40)
    title = () if reachable else ("--title", "It's spring")

    outcome = flipsnack("upload", document, "--quiet", *title)

    assert_one_error(1, outcome)
    assert "may or may not have been carried out: collection.create: " in outcome.err
    evidence = outcome.err.partition("; look before you send it again: ")[2]
    assert f"{len(PDF)} bytes, sha256 " in evidence
    assert ('title "It\'s spring", ' in evidence) is not reachable
    assert evidence.rstrip().endswith(" UTC")


# --- what stands next to the bar


def test_words_of_an_upload(document: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An upload shows what is gone, how fast, and how long it takes; a second sending starts anew.
    """
    now = 100.0
    monkeypatch.setattr(anyio, "current_time", lambda: now)
    Path(document).write_bytes(bytes(5_000_000))
    meter = UploadMeter(document)
    words = [meter.look().words]
    for sent in (1_000_000, 3_000_000, 1_000_000, 5_000_000):
        meter.moved(sent)
        words.append(meter.look().words)
        now += 4

    assert [
        "0 B of 5.0 MB",
        "1.0 MB of 5.0 MB",
        "3.0 MB of 5.0 MB  500.0 kB/s  4 s left",
        "1.0 MB of 5.0 MB",
        "5.0 MB sent  waiting for the answer",
    ] == words


def test_words_of_a_fetched_document() -> None:
    """
    Of what the vendor fetches nothing is known until he answers.
    """
    look = UploadMeter("https://example.com/spring.pdf").look()

    assert ("waiting for the answer", None) == (look.words, look.total)


def test_words_of_a_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A conversion shows the state, which is only text, and the time gone by.
    """
    now = 100.0
    monkeypatch.setattr(anyio, "current_time", lambda: now)
    watch = ConversionWatch(Collection("fxh4k89"))
    before = watch.look().words
    watch.polled(Collection("fxh4k89", state="\x1bWORKING"))
    now += 75

    assert ("converting  0 s", " WORKING  1 min 15 s") == (before, watch.look().words)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_960, "1.0 MB"),
        (500_000_000, "500.0 MB"),
        (12_345_000_000_000, "12,345.0 GB"),
    ],
)
def test_sizes(count: int, words: str) -> None:
    """
    A size is told in the unit that it fills.
    """
    assert words == size(count)
