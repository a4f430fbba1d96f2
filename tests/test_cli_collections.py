"""The commands that show and change collections, and the one for any other action."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from test_cli import (  # fixtures too
    HASHES,
    SANDBOX,
    Flipsnack,
    assert_one_error,
    command_line,  # noqa: F401
    known_sandbox,  # noqa: F401
    served_sandbox,  # noqa: F401
)

from flipsnack_async import Collection
from flipsnack_async.sandbox import Sandbox

EDITABLE = "lqffdikxov"
FIELDS = {field.name for field in attrs.fields(Collection)}


def actions(sandbox: Sandbox) -> list[str]:
    return [call.action for call in sandbox.ledger]


# --- get, list, embed


def test_get(flipsnack: Flipsnack) -> None:
    """
    A collection is one object, with its state, and with what the vendor sent beyond the fields.
    """
    outcome = flipsnack(*SANDBOX, "get", HASHES[0])

    (collection,) = outcome.lines
    assert (0, "") == (outcome.code, outcome.err)
    assert collection.keys() == FIELDS
    assert (HASHES[0], "complete") == (collection["collection_hash"], collection["state"])


def test_list_in_order(flipsnack: Flipsnack, known: Sandbox) -> None:
    """
    A list comes in the order asked for, and further parameters go out by their own names.
    """
    args = ("--order-by", "name", "--order", "desc", "--param", "limit=20", "--param", "a=b=c")

    titles = [one["title"] for one in flipsnack("list", *args).lines]

    assert sorted(titles, reverse=True) == titles
    first = known.ledger[0].params
    assert ("name", "desc", "20", "b=c") == (
        first["orderBy"],
        first["orderMode"],
        first["limit"],
        first["a"],
    )


def test_embed(flipsnack: Flipsnack, known: Sandbox) -> None:
    """
    The HTML is that of the options given, and no others go out.
    """
    outcome = flipsnack("embed", HASHES[0], "--width", "800", "--height", "500")
    flipsnack("embed", HASHES[0], "--responsive", "--start-page", "3")

    (embed,) = outcome.lines
    assert {"collection_hash", "embed_code"} == embed.keys()
    assert 'width="800" height="500"' in embed["embed_code"]
    plain, page = (call.params for call in known.ledger)
    assert {"startPage", "responsive"}.isdisjoint(plain)
    assert ("true", "3") == (page["responsive"], page["startPage"])


# --- update


def test_update(flipsnack: Flipsnack, known: Sandbox) -> None:
    """
    What is given is changed, and nothing else goes out; an empty text is given too.
    """
    title = ("--title", "Frühling", "--description", "")
    size = ("--width", "800", "--param", "isPaid=false")

    outcome = flipsnack("update", HASHES[0], *title, *size)

    (collection,) = outcome.lines
    assert (0, "") == (outcome.code, outcome.err)
    assert ("Frühling", "", 800) == tuple(collection[n] for n in ("title", "description", "width"))
    (call,) = known.ledger
    assert {"title", "description", "collectionWidth", "isPaid", "collectionHash"} == (
        call.params.keys() - {"action", "apiKey", "signature"}
    )


def test_new_hash(flipsnack: Flipsnack) -> None:
    """
    Whoever publishes a collection is told that it has a new hash.
    """
    outcome = flipsnack(*SANDBOX, "update", EDITABLE, "--status", "public")

    (collection,) = outcome.lines
    new = collection["collection_hash"]
    assert EDITABLE != new
    assert f"note: its hash is {new} now, no longer {EDITABLE}\n" == outcome.err


def test_update_of_what_is_converted(flipsnack: Flipsnack, known: Sandbox) -> None:
    """
    An error's remedy is a command, and no function of the library.
    """
    known.fail("collection.update", code=38)

    outcome = flipsnack("update", HASHES[0], "--title", "Spring")

    assert_one_error(1, outcome)
    assert "; flipsnack get says how far it is\n" in outcome.err


# --- delete


def test_delete(flipsnack: Flipsnack, known: Sandbox) -> None:
    """
    With --yes nothing is asked, neither the person nor Flipsnack; each hash is a line, once.
    """
    outcome = flipsnack("delete", HASHES[0], HASHES[1], HASHES[0], "--yes")

    assert (0, "") == (outcome.code, outcome.err)
    assert [{"collection_hash": h, "deleted": True} for h in HASHES[:2]] == outcome.lines
    assert ["collection.deleteCollection"] * 2 == actions(known)
    assert set(HASHES[:2]).isdisjoint(known.hashes)


def test_partial_deletion(flipsnack: Flipsnack, known: Sandbox) -> None:
    """
    A hash that fails stops no other, and the exit code tells whether any was deleted.
    """
    outcome = flipsnack("delete", "zzzzzzz", HASHES[0], "-y")
    failed = flipsnack("delete", "zzzzzzz", "yyyyyyy", "-y")

    first, second = outcome.lines
    assert (3, 1) == (outcome.code, failed.code)
    assert ("zzzzzzz", False, 43) == (
        first["collection_hash"],
        first["deleted"],
        first["error"]["code"],
    )
    assert {"collection_hash": HASHES[0], "deleted": True} == second
    assert outcome.err.startswith("error: zzzzzzz: collection.deleteCollection: Forbidden")
    assert [False, False] == [line["deleted"] for line in failed.lines]


def test_deletion_with_a_wrong_key(flipsnack: Flipsnack, served: Sandbox) -> None:
    """
    Where the key is wrong, no other hash is tried.
    """
    assert_one_error(4, flipsnack("delete", *HASHES[:3], "--yes"))
    assert 1 == len(served.ledger)


class Keyboard(io.StringIO):
    """What somebody at a terminal types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put somebody in front of the program who types this and leaves."""

    def sit_down(typed: str) -> None:
        monkeypatch.setattr(sys, "stdin", Keyboard(typed))
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    return sit_down


@pytest.mark.parametrize("typed", ["", "\n", "n\n", "yeah\n"])
def test_declined_deletion(
    flipsnack: Flipsnack, known: Sandbox, answering: Callable[[str], None], typed: str
) -> None:
    """
    Anything but a yes is a no.
    """
    answering(typed)

    outcome = flipsnack("delete", HASHES[0], "--quiet")

    assert (1, "") == (outcome.code, outcome.out)
    assert (
        f"{HASHES[0]}  Summer report 1\ndelete 1 collection? [y/N] nothing was deleted\n"
        == outcome.err
    )
    assert ["collection.getCollection"] == actions(known)


@pytest.mark.parametrize("typed", ["y\n", " YES \n"])
def test_wanted_deletion(
    flipsnack: Flipsnack, known: Sandbox, answering: Callable[[str], None], typed: str
) -> None:
    """
    The question names what would be deleted, as far as that can be found out.
    """
    answering(typed)
    known.fail("collection.getCollection", body='{"code": 20}')

    outcome = flipsnack("delete", HASHES[0], "zzzzzzz", "--quiet")

    lines = outcome.err.splitlines()
    assert (3, [True, False]) == (outcome.code, [one["deleted"] for one in outcome.lines])
    assert [f"{HASHES[0]}  -", "zzzzzzz  -"] == lines[:2]
    assert lines[2].startswith("delete 2 collections? [y/N] error: zzzzzzz: ")


def test_question_that_has_no_basis(flipsnack: Flipsnack, answering: Callable[[str], None]) -> None:
    """
    Nobody is asked where Flipsnack cannot be reached.
    """
    answering("y\n")

    assert_one_error(1, flipsnack("delete", HASHES[0], "--quiet"))


# --- call


def test_call(flipsnack: Flipsnack, known: Sandbox) -> None:
    """
    Any action is called by its own names, with values as they are, and answers with its data.
    """
    outcome = flipsnack("call", "collection.getList", "query=a=b ", "limit=1", "from=0")

    (data,) = outcome.lines
    assert (0, "") == (outcome.code, outcome.err)
    assert {"collections", "collectionCount"} <= data.keys()
    assert ("a=b ", "1") == (known.ledger[0].params["query"], known.ledger[0].params["limit"])


def test_call_with_a_file(flipsnack: Flipsnack, known: Sandbox, tmp_path: Path) -> None:
    """
    A file goes with an action by --file.
    """
    file = tmp_path / "spring.pdf"
    file.write_bytes(b"%PDF-1.4")

    (data,) = flipsnack("call", "collection.create", "title=Spring", "--file", str(file)).lines

    assert "Spring" == data["collectionTitle"]
    assert data["collectionHash"] == known.hashes[0]


def test_call_that_may_be_repeated(flipsnack: Flipsnack, known: Sandbox) -> None:
    """
    An unknown action is sent once if its answer breaks off, and again with --read.
    """
    answer = json.dumps({"code": 20, "data": {"done": True}})
    known.fail("*", torn=True)
    unknown = flipsnack("call", "collection.new", "a=1")
    known.fail("*", torn=True)
    known.fail("*", body=answer)
    repeated = flipsnack("call", "collection.new", "a=1", "--read")

    assert_one_error(1, unknown)
    assert "collection.new may or may not have been carried out" in unknown.err
    assert "; look before you send it again: sent 20" in unknown.err
    assert [{"done": True}] == repeated.lines
    assert 3 == len(known.ledger)


def test_unknown_action(flipsnack: Flipsnack) -> None:
    """
    An action that the API refuses ends with 1.
    """
    outcome = flipsnack(*SANDBOX, "call", "collection.new")

    assert_one_error(1, outcome)
    assert "code 42" in outcome.err
