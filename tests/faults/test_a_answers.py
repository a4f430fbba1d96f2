"""Answers that HTTP does not allow, or that never end, A11 to A15: read as far as is safe."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest
from cutting import (
    GOOD,
    Act,
    Visit,
    answering,
    envelope,
    response,
    saying,
    swallowing,
)
from proxy import Pouring, Serve
from test_cuts import CHUNKED, TINY, client, create_large, get_stats, head

from flipsnack_async import (
    FileRejectedError,
    FlipsnackError,
    InvalidAnswerError,
    NoAnswerError,
    UploadOutcomeUnknownError,
    UserStats,
)

pytest_plugins = ["instruments"]
pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_pauses")]

TIMEOUT = 0.1


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Real time, since there are sockets."""
    name: str = request.param
    return name


# --- A11: bodies that end with their connection


@pytest.mark.parametrize("start", [head("Connection: close"), b"HTTP/1.0 200 OK\r\n\r\n"])
async def test_a11_a_body_of_no_length_is_whole_or_refused(serve: Serve, start: bytes) -> None:
    """
    Where only the connection's end ends a body, one that is cut after any byte is no answer.
    """
    server = serve(*(saying(start + GOOD[:end]) for end in range(len(GOOD) + 1)))
    async with client(server, attempts=1) as flipsnack:
        for _ in GOOD:
            with pytest.raises(InvalidAnswerError, match=r"torn|empty"):
                await flipsnack.user.get_stats()
        assert 7 == await get_stats(flipsnack)


async def test_a11_a_torn_body_of_no_length_is_asked_for_again(serve: Serve) -> None:
    """
    A read is repeated after a torn answer; an upload is in doubt.
    """
    torn = saying(head("Connection: close") + GOOD[:-1])
    server = serve(torn, torn, answering(), torn)
    async with client(server) as flipsnack:
        assert 7 == await get_stats(flipsnack)
        with pytest.raises(UploadOutcomeUnknownError):
            await flipsnack.collections.create(TINY)

    assert ["user.getStats"] * 3 + ["collection.create"] == server.actions


# --- A12: what drips


def dripping(start: bytes, drop: bytes) -> Act:
    """Read a request, send the start of an answer, and then a drop every 10 ms, for ever."""

    def act(visit: Visit) -> None:
        visit.read_all()
        visit.send(start)
        while not visit.server.over.wait(0.01):
            visit.send(drop)

    return act


DRIPS: dict[str, Act] = {
    "body": dripping(head("Content-Length: 1000000"), b" "),
    "body of no length": dripping(head("Connection: close"), b" "),
    "chunks": dripping(CHUNKED, b"1\r\n \r\n"),
    "chunk": dripping(CHUNKED + b"FFFF\r\n", b" "),
    "chunk extension": dripping(CHUNKED + b"5;x=", b"y"),
    "trailers": dripping(CHUNKED + b"2\r\n{}\r\n0\r\n", b"X: y\r\n"),
    "status line": dripping(b"HTTP/1.1 200 ", b"O"),
    "header": dripping(b"HTTP/1.1 200 OK\r\nX: ", b"y"),
    "headers": dripping(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "continue": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "early hints": dripping(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
}


@pytest.mark.parametrize("drip", DRIPS)
async def test_a12_a_dripping_server_is_left(serve: Serve, drip: str) -> None:
    """
    However often something comes: an answer that is not whole in its time is none.
    """
    server = serve(DRIPS[drip])
    began = time.monotonic()
    async with client(server, timeout=TIMEOUT, attempts=1) as flipsnack:
        with pytest.raises(NoAnswerError, match=r"no whole answer within 0\.1 s"):
            await flipsnack.user.get_stats()

    assert time.monotonic() - began < TIMEOUT + 3
    assert 1 == server.connections


@pytest.mark.parametrize("drip", ["body", "headers", "continue"])
async def test_a12_an_upload_whose_answer_drips_is_in_doubt(serve: Serve, drip: str) -> None:
    """
    Drops of an answer are no progress of the document's.
    """
    server = serve(DRIPS[drip])
    began = time.monotonic()
    async with client(server, timeout=TIMEOUT) as flipsnack:
        with pytest.raises(UploadOutcomeUnknownError, match="no progress within") as caught:
            await flipsnack.collections.create(TINY)

    assert time.monotonic() - began < TIMEOUT + 3
    assert caught.value.body_complete is True
    assert ["collection.create"] == server.actions


# --- A13: answers that come before the request was read


@pytest.mark.parametrize("then", ["hangs up", "stalls"])
async def test_a13_an_answer_to_what_was_not_read_is_read_or_open(serve: Serve, then: str) -> None:
    """
    A refusal that comes before a byte of a document was read counts, if it gets through.
    """

    def early(visit: Visit) -> None:
        visit.send(response(envelope(34, "no"), "200 OK", "Connection: close"))
        if then == "stalls":
            visit.stall()

    server = serve(early)
    async with client(server, timeout=TIMEOUT) as flipsnack:
        with pytest.raises((FileRejectedError, UploadOutcomeUnknownError)) as caught:
            await create_large(flipsnack)

    assert getattr(caught.value, "body_complete", False) is False
    assert 1 == server.connections


# --- A14: bytes behind an answer


def with_another_behind(visit: Visit) -> None:
    """Answer each request by the number in its hash, and in one segment with a stale answer."""
    while True:
        visit.read_all()
        asked = parse_qs(urlsplit(visit._target).query)
        views = int(asked.get("collectionHash", ["hash7"])[0].removeprefix("hash"))
        visit.send(response(envelope(views=views)) + response(envelope(views=666)))


async def test_a14_a_second_answer_is_nobodys(serve: Serve) -> None:
    """
    What a server sends behind an answer is not taken for the answer to the next call.
    """
    server = serve(with_another_behind)
    async with client(server) as flipsnack:
        for number in range(5):
            stats = await flipsnack.collections.get_stats(f"hash{number}")
            assert number == stats.views

    assert 5 == server.connections


@pytest.mark.parametrize("at_once", [1, 8])
async def test_a14_a_harvest_files_each_answer_under_its_own(serve: Serve, at_once: int) -> None:
    """
    Rows hold the numbers of their own collections, whatever came behind other answers.
    """
    server = serve(with_another_behind)
    hashes = [f"hash{number}" for number in range(40)]
    async with client(server) as flipsnack:
        async with flipsnack.harvest(hashes, at_once=at_once) as rows:
            views = {row.collection_hash: row.stats and row.stats.views async for row in rows}

    assert {f"hash{number}": number for number in range(40)} == views
    assert 40 == server.connections


async def test_a14_a_crowd_of_calls_gets_its_own_answers(serve: Serve) -> None:
    """
    Many calls at once, again and again: each has its own answer.
    """
    server = serve(with_another_behind)
    wrong: list[int] = []
    async with client(server) as flipsnack:

        async def call(number: int) -> None:
            for _ in range(3):
                stats = await flipsnack.collections.get_stats(f"hash{number}")
                wrong.extend([number] * (number != stats.views))

        async with anyio.create_task_group() as tasks:
            for number in range(30):
                tasks.start_soon(call, number)

    assert [] == wrong
    assert 90 == len(server.arrived)


# --- A15: odd answers


LINE = b"a" * 2**16
OK = b"HTTP/1.1 200 OK\r\n"
FLOODS: dict[str, Callable[[], Pouring]] = {
    "continues": lambda: Pouring(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "headers": lambda: Pouring(OK, b"X: y\r\n" * 1000),
    "header line": lambda: Pouring(OK + b"X: ", LINE),
    "header name": lambda: Pouring(OK, LINE),
    "status line": lambda: Pouring(b"HTTP/1.1 200 ", LINE),
    "no line": lambda: Pouring(b"", LINE),
    "empty lines": lambda: Pouring(b"", b"\r\n" * 2**15),
    "zeros": lambda: Pouring(b"", bytes(2**16)),
    "chunk extension": lambda: Pouring(CHUNKED + b"5;x=", LINE),
    "chunk size": lambda: Pouring(CHUNKED, b"0" * 2**16),
    "tiny chunks": lambda: Pouring(CHUNKED, b"1\r\n \r\n" * 10_000),
    "trailers": lambda: Pouring(CHUNKED + b"0\r\n", b"X: y\r\n" * 1000),
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_a15_a_flood_is_left(serve: Serve, flood: str) -> None:
    """
    Heads and frames that never end are read as far as a head may go, or as long as an attempt.
    """
    pouring = FLOODS[flood]()
    server = serve(pouring)
    began = time.monotonic()
    async with client(server, timeout=TIMEOUT, attempts=1) as flipsnack:
        with pytest.raises(NoAnswerError):
            await flipsnack.user.get_stats()

    assert time.monotonic() - began < TIMEOUT + 3
    # Where nothing can be thrown away, little is taken; the rest is in the system's buffers.
    assert flood in ("continues", "tiny chunks") or pouring.poured < 16 * 2**20


def numbered(*lines: bytes, body: bytes = GOOD, status: bytes = b"HTTP/1.1 200 OK") -> Act:
    """Answer with these lines of a head, and a length."""
    length = b"Content-Length: %d" % len(GOOD)
    return saying(b"\r\n".join([status, *lines, length, b"", body]))


def unnumbered(*lines: bytes, body: bytes = GOOD) -> Act:
    """Answer with these lines of a head, and no length but theirs."""
    return saying(b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"", body]))


def chunked(frame: bytes) -> Act:
    return saying(CHUNKED + frame)


def early(visit: Visit) -> None:
    visit.send(response(GOOD))
    visit.read_all()


LENGTH = b"%d" % len(GOOD)
SIZE = b"%x" % len(GOOD)
FRAMED = SIZE + b"\r\n" + GOOD + b"\r\n0\r\n\r\n"

# Odd, and yet there is only one way to read them.
READABLE: dict[str, Act] = {
    "early hints first": saying(b"HTTP/1.1 103 X\r\nLink: </a>\r\n\r\n" * 5 + response(GOOD)),
    "processing first": saying(b"HTTP/1.1 102 X\r\n\r\n" * 5 + response(GOOD)),
    "length twice": unnumbered(b"Content-Length: " + LENGTH, b"Content-Length: " + LENGTH),
    "length and chunks": numbered(b"Transfer-Encoding: chunked", body=FRAMED),
    "chunk extensions": chunked(FRAMED.replace(b"\r\n", b';a=b;c="d"\r\n', 1)),
    "chunks of a byte": chunked(b"".join(b"1\r\n%c\r\n" % c for c in GOOD) + b"0\r\n\r\n"),
    "trailers": chunked(FRAMED[:-2] + b"X: y\r\n\r\n"),
    "no reason": numbered(status=b"HTTP/1.1 200"),
    "binary reason": numbered(status=b"HTTP/1.1 200 \xff\xfe"),
    "binary header": numbered(b"X: \xff\xfe"),
    "folded header": numbered(b"X: a", b" b"),
    "page's type": numbered(b"Content-Type: text/html; charset=utf-7"),
    "HTTP 1.0": saying(b"HTTP/1.0 200 OK\r\n\r\n" + GOOD),
    "bytes behind": numbered(body=GOOD + b"HTTP/1.1 500 No\r\n\r\n"),
    "answer before the question": early,
}
UNREADABLE: dict[str, Act] = {
    "length differs": unnumbered(b"Content-Length: " + LENGTH, b"Content-Length: 5"),
    "length negative": unnumbered(b"Content-Length: -5"),
    "length in hex": unnumbered(b"Content-Length: 0x5"),
    "length of 5000 digits": unnumbered(b"Content-Length: " + b"9" * 5000),
    "length too large": unnumbered(b"Content-Length: " + b"9" * 19),
    "length in wide digits": unnumbered("Content-Length: \uff15".encode()),
    "encoded in gzip": unnumbered(b"Transfer-Encoding: gzip, chunked", body=FRAMED),
    "encoded in identity": unnumbered(b"Transfer-Encoding: identity"),
    "encoded twice": unnumbered(*[b"Transfer-Encoding: chunked"] * 2, body=FRAMED),
    "chunk size negative": chunked(b"-5\r\n" + GOOD),
    "chunk size too large": chunked(b"F" * 21 + b"\r\n" + GOOD),
    "chunk longer than said": chunked(FRAMED.replace(b"\r\n0", b"XX0")),
    "chunk in lines of its own": chunked(FRAMED.replace(b"\r\n", b"\n")),
    "zero in a header": numbered(b"X: a\0b"),
    "header folded at once": numbered(b" X: a"),
    "blank before the colon": numbered(b"X : a"),
    "no colon": numbered(b"X"),
    "150 KB of headers": numbered(*[b"X: " + b"y" * 1000] * 150),
    "no head": saying(GOOD),
    "status 099": numbered(status=b"HTTP/1.1 099 X"),
    "status 1000": numbered(status=b"HTTP/1.1 1000 X"),
    "status in letters": numbered(status=b"HTTP/1.1 2oo X"),
    "HTTP 2": saying(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "encryption": saying(b"\x15\x03\x01\x00\x02\x02\x28"),
    "switched": numbered(status=b"HTTP/1.1 101 X"),
    "switched, and silent": swallowing(b"HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n"),
}
NO_ENVELOPE: dict[str, Act] = {
    "204 with a body": numbered(status=b"HTTP/1.1 204 X"),
    "304 with a body": numbered(status=b"HTTP/1.1 304 X"),
    "status 599": numbered(status=b"HTTP/1.1 599 X"),
    "status 999": numbered(status=b"HTTP/1.1 999 X"),
    "length too short": unnumbered(b"Content-Length: 10"),
    "asks for a password": saying(b"HTTP/1.1 401 X\r\nWWW-Authenticate: Basic\r\n\r\n"),
    "asks for a proxy's": saying(b"HTTP/1.1 407 X\r\nProxy-Authenticate: Basic\r\n\r\n"),
}
ODD = READABLE | UNREADABLE | NO_ENVELOPE


@pytest.mark.parametrize("odd", ODD)
async def test_a15_an_odd_answer_is_read_or_refused(serve: Serve, odd: str) -> None:
    """
    What can be read in one way only is read; of all else a caller hears by an error of ours.
    """
    server = serve(ODD[odd])
    async with client(server, attempts=1) as flipsnack:
        if odd in READABLE:
            assert 7 == await get_stats(flipsnack)
        else:
            with pytest.raises(FlipsnackError) as caught:
                await flipsnack.user.get_stats()
            kind = NoAnswerError if odd in UNREADABLE else InvalidAnswerError
            assert kind is type(caught.value)

    assert 1 == server.connections


@pytest.mark.parametrize("odd", [*UNREADABLE, *NO_ENVELOPE])
async def test_a15_an_odd_answer_to_an_upload_leaves_it_open(serve: Serve, odd: str) -> None:
    """
    Whoever cannot read the answer does not know what became of the document.
    """
    server = serve(ODD[odd])
    async with client(server) as flipsnack:
        with pytest.raises(UploadOutcomeUnknownError) as caught:
            await flipsnack.collections.create(TINY)

    assert caught.value.body_complete is True
    assert ["collection.create"] == server.actions


PIECES = [
    b"\r\n",
    b"\n",
    b"\0",
    b":",
    b" ",
    b"9" * 30,
    b"-1",
    b'"',
    b"}",
    b"[",
    b"\xff",
    b"0\r\n\r\n",
]
PIECES += [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1 100 X\r\n\r\n"]
PIECES += [b"HTTP/1.1 200 OK\r\n\r\n", b"Content-Encoding: gzip\r\n", b"Connection: upgrade\r\n"]


def spoiled(answer: bytes, chance: random.Random) -> bytes:
    """Put pieces into an answer, take some out, double some, or cut it off."""
    for _ in range(chance.choice([1, 1, 2, 5])):
        place, end = sorted(chance.choices(range(len(answer) + 1), k=2))
        answer = chance.choice(
            [
                answer[:place] + chance.choice(PIECES) + answer[place:],
                answer[:place] + chance.randbytes(1) + answer[place + 1 :],
                answer[:place] + answer[place + 5 :],
                answer[:end] + answer[place:],
                answer[:place],
            ]
        )
    return answer


@pytest.mark.parametrize("seed", range(3))
async def test_a15_whatever_comes_is_an_answer_or_an_error_of_ours(serve: Serve, seed: int) -> None:
    """
    Answers that are spoiled anywhere end calls in time, by no error but the package's.
    """
    chance = random.Random(seed)  # noqa: S311 - no secret
    whole = [response(GOOD), CHUNKED + FRAMED, b"HTTP/1.0 200 OK\r\n\r\n" + GOOD]
    answers = [spoiled(chance.choice(whole), chance) for _ in range(80)]
    server = serve(*(saying(answer, reset=chance.random() < 0.3) for answer in answers))
    ends: set[type] = set()
    async with client(server, attempts=1, timeout=20.0) as flipsnack:
        with anyio.fail_after(20):
            for _ in answers:
                try:
                    await flipsnack.user.get_stats()
                except FlipsnackError as error:
                    ends.add(type(error))
                else:
                    ends.add(UserStats)

    assert {NoAnswerError, InvalidAnswerError, UserStats} <= ends
    assert 80 == server.connections
