"""
Connections cut at every stage, on real sockets: what was sent how often, and what is then told.

The server's ledger has the last word: a call that came in whole was sent,
whatever the client believes.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, cast

import anyio
import pytest
from cutting import (
    GOOD,
    Act,
    CuttingServer,
    Visit,
    answering,
    cutting,
    envelope,
    keeping,
    pausing,
    refusing,
    response,
    saying,
    stalling,
    swallowing,
)

from flipsnack_async import (
    ClientClosedError,
    Collection,
    CollectionUnavailableError,
    ConnectionFailedError,
    FileRejectedError,
    Flipsnack,
    FlipsnackError,
    InvalidAnswerError,
    InvalidArgumentError,
    NoAnswerError,
    Quota,
    Rate,
    UploadOutcomeUnknownError,
)
from flipsnack_async import _gate as gate
from flipsnack_async import _upload as upload
from flipsnack_async._isolation import IsolatedTransport
from flipsnack_async._retry import Tries

pytestmark = pytest.mark.anyio

TINY = b"%PDF-1.7\ntiny\n%%EOF"
# Much more than the buffers of both ends hold, so that a cut in its middle is one for sure.
LARGE = b"%PDF-1.7\n" + bytes(range(256)) * (16 * 2**20 // 256) + b"%%EOF"
TIMEOUT = 0.15

Serve = Callable[..., CuttingServer]
Call = Callable[[Flipsnack], Awaitable[object]]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Real time, since there are sockets."""
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(Tries, "pause", lambda self, state: 0.0)
    monkeypatch.setattr(gate, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(gate, "LONGEST_PAUSE", 0.0)


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[CuttingServer] = []

    def start(*acts: Act, **options: Any) -> CuttingServer:
        servers.append(CuttingServer(*acts, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


class SlowDisk:
    """Let opening a document, and each read of it, take a *pause*, in whatever thread that is."""

    def __init__(self) -> None:
        self.pause = 0.0
        self.opening = threading.Event()
        self.reading = threading.Event()
        self.at_once = 0
        self.most_at_once = 0
        self._files: list[IO[Any]] = []  # so that no garbage collector closes what we did not

    def open(self, path: str | os.PathLike[str], mode: str) -> IO[bytes]:
        self.opening.set()
        with self.turning():
            time.sleep(self.pause)
            self._files.append(open(path, mode))  # noqa: SIM115 - closed by whoever asked
        return cast(IO[bytes], _SlowFile(self._files[-1], self))

    @contextmanager
    def turning(self) -> Iterator[None]:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            yield
        finally:
            self.at_once -= 1

    def close(self) -> None:
        for file in self._files:
            file.close()


class _SlowFile:
    def __init__(self, file: IO[Any], disk: SlowDisk) -> None:
        self._file = file
        self._disk = disk

    def read(self, size: int) -> bytes:
        if size <= 1024:  # the look at its first bytes
            return cast(bytes, self._file.read(size))
        self._disk.reading.set()
        with self._disk.turning():
            time.sleep(self._disk.pause / 2)
            data: bytes = self._file.read(size)
            time.sleep(self._disk.pause / 2)
            return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    slow = SlowDisk()
    monkeypatch.setattr(upload, "open", slow.open, raising=False)
    yield slow
    slow.close()


@pytest.fixture
def pdf(tmp_path: Path) -> Path:
    path = tmp_path / "large.pdf"
    path.write_bytes(LARGE)
    an_hour_ago = time.time() - 3600
    os.utime(path, (an_hour_ago, an_hour_ago))  # so that any change shows
    return path


def client(server: CuttingServer, **options: Any) -> Flipsnack:
    given = {"quota": Quota(), "timeout": 3.0, **options}
    return Flipsnack("key", "secret", api_url=server.url, upload_url=server.url, **given)


def digest(document: bytes) -> str:
    return sha256(document).hexdigest()


def half(length: int) -> int:
    return length // 2


# --- the calls


async def get_stats(flipsnack: Flipsnack) -> object:
    return (await flipsnack.user.get_stats()).views


async def update(flipsnack: Flipsnack) -> object:
    return (await flipsnack.collections.update("old1", title="Spring")).collection_hash


async def delete(flipsnack: Flipsnack) -> object:
    await flipsnack.collections.delete("old1")
    return None


async def unknown(flipsnack: Flipsnack) -> object:
    return (await flipsnack.call("new.action", {"a": "b"}))["views"]


async def create_tiny(flipsnack: Flipsnack) -> object:
    return (await flipsnack.collections.create(TINY, title="Spring")).collection_hash


async def create_large(flipsnack: Flipsnack) -> object:
    return (await flipsnack.collections.create(LARGE, title="Spring")).collection_hash


def document_of(call: Call) -> bytes:
    return TINY if call is create_tiny else LARGE


ANY = (get_stats, update, delete, unknown)
REPEATABLE: dict[str, tuple[Call, object]] = {
    "user.getStats": (get_stats, 7),
    "collection.update": (update, "new1"),
    "collection.deleteCollection": (delete, None),
}
ONCE: dict[str, tuple[Call, bytes | None]] = {
    "new.action": (unknown, None),
    "collection.create": (create_tiny, TINY),
}


# --- the cuts


def page(status: str, *headers: str) -> Act:
    return answering(b"<html>no</html>", status, *headers)


def torn(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def head(*lines: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode()


CHUNKED = head("Transfer-Encoding: chunked")

NO_ANSWER: dict[str, Act] = {
    "closed": saying(b""),
    "reset": saying(b"", reset=True),
    "head torn": saying(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "head torn by a reset": saying(b"HTTP/1.1 200 OK\r\nContent-Le", reset=True),
    "head and no body": saying(head("Content-Length: 100")),
    "body torn": saying(response(torn(GOOD), length=len(GOOD))),
    "body torn by a reset": saying(response(torn(GOOD), length=len(GOOD)), reset=True),
    "a byte short": saying(response(GOOD, length=len(GOOD) + 1)),
    "chunk torn": saying(CHUNKED + b"%x\r\n%s" % (len(GOOD), torn(GOOD))),
    "last chunk missing": saying(CHUNKED + b"%x\r\n%s\r\n" % (len(GOOD), GOOD)),
    "continue, and closed": saying(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "101 unasked": saying(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
    "no HTTP": saying(b"220 mail.example.com ESMTP\r\n"),
}
NO_ENVELOPE: dict[str, Act] = {
    "page": page("200 OK"),
    "404": page("404 Not Found"),
    "500": page("500 Internal Server Error"),
    "502": page("502 Bad Gateway"),
    "503": page("503 Service Unavailable", "Retry-After: 0"),
    "504": page("504 Gateway Time-out"),
    "success with 503": answering(GOOD, "503 Service Unavailable"),
    "empty": answering(b""),
    "204": saying(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"),
    "torn without a length": saying(head("Connection: close") + torn(GOOD)),
    "redirected to nowhere": page("302 Found"),
}
STALLED: dict[str, Act] = {
    "swallowed": swallowing(),
    "head, then nothing": swallowing(head("Content-Length: 100")),
    "half a body, then nothing": swallowing(response(torn(GOOD), length=len(GOOD))),
    "continue, then nothing": swallowing(b"HTTP/1.1 100 Continue\r\n\r\n"),
}
CUTS = NO_ANSWER | NO_ENVELOPE | STALLED


def kind_of(cut: str) -> type[FlipsnackError]:
    return InvalidAnswerError if cut in NO_ENVELOPE else NoAnswerError


def timeout_of(cut: str) -> float:
    return TIMEOUT if cut in STALLED else 3.0


class Evidence:
    """Check what an outcome that is unknown says against what is known here."""

    def __init__(self) -> None:
        self._began = datetime.now(UTC)

    def check(
        self,
        error: UploadOutcomeUnknownError,
        *,
        document: bytes | None = None,
        body_complete: bool | None = None,
        action: str = "collection.create",
        uploads_left: int | None = None,
    ) -> None:
        assert action == error.action
        assert body_complete == error.body_complete
        assert error.sent_at is not None
        assert self._began <= error.sent_at <= datetime.now(UTC)
        assert timedelta(0) == error.sent_at.utcoffset()
        assert uploads_left == error.uploads_left_before
        if document is None:
            assert (None, None, None) == (error.size, error.sha256, error.title)
        else:
            assert len(document) == error.size
            assert digest(document) == error.sha256
            assert "Spring" == error.title


# --- calls that may be repeated


@pytest.mark.parametrize(
    ("action", "cut"),
    [
        *(("user.getStats", cut) for cut in CUTS),
        *(
            (action, cut)
            for action in ("collection.update", "collection.deleteCollection")
            for cut in ("reset", "head torn", "body torn", "chunk torn", "page", "502", "swallowed")
        ),
    ],
)
async def test_what_may_be_repeated_is(serve: Serve, action: str, cut: str) -> None:
    """
    Whatever became of its answer, a call that does no harm twice is sent until it has one.
    """
    call, result = REPEATABLE[action]
    server = serve(CUTS[cut], answering())
    async with client(server, timeout=timeout_of(cut)) as flipsnack:
        assert result == await call(flipsnack)

    assert [action] * 2 == server.actions
    assert 2 == server.connections


@pytest.mark.parametrize(
    ("action", "cut"),
    [
        *(("user.getStats", cut) for cut in ("reset", "body torn", "page", "502", "swallowed")),
        *((action, "reset") for action in ("collection.update", "collection.deleteCollection")),
    ],
)
async def test_attempts_are_counted(serve: Serve, action: str, cut: str) -> None:
    """
    It is sent as often as was allowed, and then the last failure is told for what it was.
    """
    server = serve(CUTS[cut])
    async with client(server, timeout=timeout_of(cut), attempts=3) as flipsnack:
        with pytest.raises(kind_of(cut)) as caught:
            await REPEATABLE[action][0](flipsnack)

    assert kind_of(cut) is type(caught.value)
    assert [action] * 3 == server.actions


# --- what never got through


@pytest.mark.parametrize("call", [*ANY, create_tiny, create_large])
async def test_what_is_refused_a_connection_is_sent_again(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    """
    Where no connection came about nothing was sent, so even an upload goes out again.
    """
    server = serve(answering(), listening=False)
    pauses = []

    def pause(tries: Tries, state: object) -> float:
        pauses.append(state)
        if len(pauses) == 2:
            server.listen()
        return 0.0

    monkeypatch.setattr(Tries, "pause", pause)
    async with client(server) as flipsnack:
        await call(flipsnack)

    assert 2 == len(pauses)
    assert 1 == server.connections == len(server.arrived)


@pytest.mark.parametrize("call", [*ANY, create_tiny, create_large])
async def test_a_server_that_is_down_costs_no_tokens(serve: Serve, call: Call) -> None:
    """
    After the last attempt in vain it is told that nothing was sent, and every token is back.
    """
    server = serve(answering(), listening=False)
    async with client(server, attempts=3, quota=Quota(Rate(2, per=60.0))) as flipsnack:
        with pytest.raises(ConnectionFailedError, match="no connection to"):
            await call(flipsnack)

        assert [2] == list(flipsnack.quota.statistics().free.values())
        assert 3 == flipsnack.quota.statistics().admitted


@pytest.mark.parametrize("cut", [Visit.reset, Visit.close])
@pytest.mark.parametrize("call", [create_tiny, create_large])
async def test_e1_an_upload_cut_at_its_arrival_is_not_doubled(
    serve: Serve, call: Call, cut: Act
) -> None:
    """
    Cut before the server read a byte, a document goes out again only if not a byte had left.
    """
    server = serve(cut, answering())
    unknown_outcome = None
    async with client(server) as flipsnack:
        try:
            await call(flipsnack)
        except UploadOutcomeUnknownError as error:
            unknown_outcome = error

    seen = (server.connections, len(server.arrived))
    assert ((1, 0) if unknown_outcome else (2, 1)) == seen


@pytest.mark.parametrize("cut", [Visit.reset, Visit.close])
@pytest.mark.parametrize("call", [get_stats, update, delete])
async def test_a_call_cut_at_its_arrival_is_sent_again(serve: Serve, call: Call, cut: Act) -> None:
    """
    Cut before the server read a byte, what may be repeated is.
    """
    server = serve(cut, cut, answering())
    async with client(server) as flipsnack:
        await call(flipsnack)

    assert 3 == server.connections
    assert 1 == len(server.arrived)


# --- calls that must not be repeated


@pytest.mark.parametrize(
    ("action", "cut"),
    [
        *(("collection.create", cut) for cut in CUTS),
        *(("new.action", cut) for cut in ("reset", "body torn", "502", "swallowed")),
    ],
)
async def test_what_must_not_be_repeated_is_not(serve: Serve, action: str, cut: str) -> None:
    """
    Once it was sent, such a call is never sent again; without an answer its outcome is unknown.
    """
    call, document = ONCE[action]
    server = serve(CUTS[cut], answering())
    evidence = Evidence()
    async with client(server, timeout=timeout_of(cut)) as flipsnack:
        with pytest.raises(UploadOutcomeUnknownError) as caught:
            await call(flipsnack)

    evidence.check(
        caught.value,
        document=document,
        body_complete=None if document is None else True,
        action=action,
    )
    assert [action] == server.actions
    assert 1 == server.connections


@pytest.mark.parametrize("cut", ["closed", "reset", "body torn", "504", "swallowed"])
async def test_e1_a_large_upload_without_an_answer(serve: Serve, cut: str) -> None:
    """
    Of a large document that was sent to its last byte, it is told that it was.
    """
    server = serve(CUTS[cut], answering())
    evidence = Evidence()
    async with client(server, timeout=timeout_of(cut)) as flipsnack:
        with pytest.raises(UploadOutcomeUnknownError) as caught:
            await create_large(flipsnack)

    evidence.check(caught.value, document=LARGE, body_complete=True)
    assert [digest(LARGE)] == server.documents
    assert 1 == server.connections


PLACES: dict[str, Callable[[int], int]] = {
    "first byte": lambda length: 1,
    "key": lambda length: 100,
    "head of the part": lambda length: 600,
    "a tenth": lambda length: length // 10,
    "half": half,
}


@pytest.mark.parametrize("place", PLACES)
async def test_e1_a_large_upload_cut_in_its_middle(serve: Serve, place: str) -> None:
    """
    Cut anywhere before its end, a document is not sent again, and known to be incomplete.
    """
    server = serve(cutting(PLACES[place]), answering())
    evidence = Evidence()
    async with client(server) as flipsnack:
        with pytest.raises(UploadOutcomeUnknownError) as caught:
            await create_large(flipsnack)

    evidence.check(caught.value, document=LARGE, body_complete=False)
    assert [] == server.arrived
    assert 1 == server.connections


@pytest.mark.parametrize("call", [create_tiny, create_large])
async def test_e1_an_upload_cut_at_its_last_byte(serve: Serve, call: Call) -> None:
    """
    Where all but the last byte was read, the last was written, too: the server may have it all.
    """
    server = serve(cutting(lambda length: length - 1), answering())
    evidence = Evidence()
    async with client(server) as flipsnack:
        with pytest.raises(UploadOutcomeUnknownError) as caught:
            await call(flipsnack)

    evidence.check(caught.value, document=document_of(call), body_complete=True)
    assert [] == server.arrived
    assert 1 == server.connections


@pytest.mark.parametrize("place", PLACES)
async def test_e1_a_tiny_upload_cut_in_its_middle(serve: Serve, place: str) -> None:
    """
    A document that fits into any buffer is not sent again either, wherever it was cut.
    """
    server = serve(cutting(PLACES[place]), answering())
    async with client(server) as flipsnack:
        with pytest.raises(UploadOutcomeUnknownError) as caught:
            await create_tiny(flipsnack)

    assert caught.value.body_complete is not None
    assert (len(TINY), digest(TINY)) == (caught.value.size, caught.value.sha256)
    assert [] == server.arrived
    assert 1 == server.connections


async def test_a_stalled_upload_is_given_up(serve: Serve) -> None:
    """
    A server that stops reading is left after *timeout* seconds without progress.
    """
    server = serve(stalling(), answering())
    evidence = Evidence()
    began = time.monotonic()
    async with client(server, timeout=TIMEOUT) as flipsnack:
        with pytest.raises(
            UploadOutcomeUnknownError, match=r"no progress within 0\.15 s"
        ) as caught:
            await create_large(flipsnack)

    assert TIMEOUT < time.monotonic() - began < 2
    evidence.check(caught.value, document=LARGE, body_complete=False)
    assert [] == server.arrived
    assert 1 == server.connections


async def test_a_slow_upload_goes_on(serve: Serve) -> None:
    """
    An upload may take several times its *timeout*, as long as there is progress.
    """
    began = time.monotonic()

    def slowly(visit: Visit) -> None:
        visit.read_head()
        taken = 0
        while time.monotonic() - began < 4 * TIMEOUT:
            taken += 2**17
            visit.read_body(min(taken, visit.length))
            time.sleep(0.01)
        visit.read_rest()
        visit.send(response(GOOD))

    server = serve(slowly)
    async with client(server, timeout=TIMEOUT) as flipsnack:
        assert "new1" == await create_large(flipsnack)

    assert time.monotonic() - began > 4 * TIMEOUT
    assert [digest(LARGE)] == server.documents


async def test_the_last_count_of_uploads_is_evidence(serve: Serve) -> None:
    """
    An unknown outcome tells how many uploads were left before, if the client had seen that.
    """
    lost = saying(b"")
    server = serve(answering(), lost, answering(), lost)
    evidence = Evidence()
    async with client(server) as flipsnack:
        await flipsnack.user.get_stats()
        with pytest.raises(UploadOutcomeUnknownError) as first:
            await flipsnack.collections.create(TINY, title="Spring")
        await flipsnack.collections.create(TINY)
        with pytest.raises(UploadOutcomeUnknownError) as second:
            await flipsnack.with_options(attempts=1).collections.create(TINY, title="Spring")

    evidence.check(first.value, document=TINY, body_complete=True, uploads_left=53)
    # After the first one, nobody knows how many are left.
    evidence.check(second.value, document=TINY, body_complete=True, uploads_left=None)


async def test_an_upload_by_name_has_the_same_evidence(serve: Serve) -> None:
    """
    `Flipsnack.call` tells of an upload whose outcome is unknown what `collections.create` tells.
    """
    server = serve(answering(), saying(b""))
    evidence = Evidence()
    async with client(server) as flipsnack:
        await flipsnack.user.get_stats()
        with pytest.raises(UploadOutcomeUnknownError) as caught:
            await flipsnack.call("collection.create", {"title": "Spring"}, file=TINY)

    evidence.check(caught.value, document=TINY, body_complete=True, uploads_left=53)


# --- refusals: the server said no, so everything is sent again


@pytest.mark.parametrize(
    ("code", "call"),
    [
        *((code, call) for code in (22, 31, 32, 429) for call in (*ANY, create_tiny)),
        (31, create_large),
    ],
)
async def test_what_was_refused_is_sent_again(serve: Serve, code: int, call: Call) -> None:
    """
    After the server's own not now, a call of any effect goes out again, from its first byte.
    """
    no = refusing(code, "Requests per minute limit exceeded")
    server = serve(no, no, answering())
    async with client(server, attempts=1) as flipsnack:
        await call(flipsnack)

    assert 3 == server.connections == len(server.arrived)
    if call in (create_tiny, create_large):
        assert [digest(document_of(call))] * 3 == server.documents


@pytest.mark.parametrize("call", [get_stats, delete, create_tiny])
@pytest.mark.parametrize("code", [30, 33, 38, 43, 44, 99])
async def test_any_other_code_is_raised_at_once(serve: Serve, code: int, call: Call) -> None:
    """
    What the vendor refused for good is sent once, also the deletion of what is gone.
    """
    server = serve(refusing(code), answering())
    async with client(server) as flipsnack:
        with pytest.raises(FlipsnackError) as caught:
            await call(flipsnack)

    assert code == getattr(caught.value, "code", None)
    assert 1 == server.connections


@pytest.mark.parametrize("call", [create_tiny, create_large])
async def test_a_refusal_that_comes_early_counts(serve: Serve, call: Call) -> None:
    """
    A server may refuse a document before it has read it, if it then reads on.
    """

    def early(code: int) -> Act:
        def act(visit: Visit) -> None:
            visit.read_head()
            visit.send(response(envelope(code, "no"), "200 OK", "Connection: close"))
            visit.read_rest()

        return act

    server = serve(early(31), early(34), answering())
    async with client(server) as flipsnack:
        with pytest.raises(FileRejectedError):
            await call(flipsnack)

    assert 2 == server.connections


async def test_a13_a_refusal_that_hangs_up_is_read_or_unknown(serve: Serve) -> None:
    """
    A refusal in the middle of a document, with a reset, may be lost; it is never sent again.
    """

    def act(visit: Visit) -> None:
        visit.read_head()
        visit.read_body(half(visit.length))
        visit.send(response(envelope(34, "no")))
        visit.reset()

    server = serve(act, answering())
    async with client(server) as flipsnack:
        with pytest.raises((FileRejectedError, UploadOutcomeUnknownError)) as caught:
            await create_large(flipsnack)

    if isinstance(caught.value, UploadOutcomeUnknownError):
        assert caught.value.body_complete is False
    assert 1 == server.connections


# --- deletions


LOST = saying(b"")
GONE = refusing(43)


@pytest.mark.parametrize(
    "acts",
    [
        (LOST, GONE),
        (LOST, refusing(46)),
        (swallowing(), GONE),
        (page("502 Bad Gateway"), GONE),
        (LOST, refusing(31), GONE),
        (refusing(31), LOST, GONE),
        (refusing(22), LOST, page("503 Service Unavailable"), refusing(429), GONE),
    ],
)
async def test_what_a_lost_deletion_finds_gone_was_deleted(
    serve: Serve, acts: tuple[Act, ...]
) -> None:
    """
    After an answer was lost, a collection that is gone was deleted by that.
    """
    server = serve(*acts)
    async with client(server, timeout=TIMEOUT) as flipsnack:
        await flipsnack.collections.delete("old1")

    assert len(acts) == len(server.arrived)


@pytest.mark.parametrize(
    "acts",
    [
        (GONE,),
        (refusing(31), GONE),
        (refusing(22), GONE),
        (refusing(429), refusing(32), GONE),
    ],
)
async def test_what_a_deletion_finds_gone_by_itself_is_an_error(
    serve: Serve, acts: tuple[Act, ...]
) -> None:
    """
    Where no answer was lost, what is gone was deleted by somebody else.
    """
    server = serve(*acts)
    async with client(server) as flipsnack:
        with pytest.raises(CollectionUnavailableError):
            await flipsnack.collections.delete("old1")

    assert len(acts) == len(server.arrived)


async def test_a_deletion_that_never_left_deleted_nothing(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    After a connection that did not come about, what is gone was deleted by somebody else.
    """
    server = serve(GONE, listening=False)

    def pause(tries: Tries, state: object) -> float:
        server.listen()
        return 0.0

    monkeypatch.setattr(Tries, "pause", pause)
    async with client(server) as flipsnack:
        with pytest.raises(CollectionUnavailableError):
            await flipsnack.collections.delete("old1")

    assert 1 == len(server.arrived)


async def test_an_update_of_what_is_gone_is_an_error(serve: Serve) -> None:
    """
    A lost answer makes no other call than a deletion succeed on what is gone.
    """
    server = serve(LOST, GONE)
    async with client(server) as flipsnack:
        with pytest.raises(CollectionUnavailableError):
            await update(flipsnack)

    assert 2 == len(server.arrived)


@pytest.mark.parametrize("call", [delete, update])
@pytest.mark.parametrize("acts", [(LOST,), (refusing(22), LOST)], ids=["lost", "refused, lost"])
async def test_a_lost_answer_is_not_hidden_by_the_quota(
    serve: Serve, acts: tuple[Act, ...], call: Call
) -> None:
    """
    Where the quota has no call for the repetition, the lost answer is told: something was sent.
    """
    server = serve(*acts, answering())
    quota = Quota(Rate(len(acts), per=60.0), reach=0.0)
    async with client(server, quota=quota) as flipsnack:
        with pytest.raises(NoAnswerError):
            await call(flipsnack.with_options(max_wait=5.0))

    assert len(acts) == len(server.arrived)


# --- redirects


@pytest.mark.parametrize("status", ["302 Found", "307 Temporary"])
@pytest.mark.parametrize("call", [get_stats, update, unknown, create_tiny, create_large])
async def test_e8_a_redirect_is_never_followed(serve: Serve, call: Call, status: str) -> None:
    """
    No redirect is followed, so neither key nor document ever gets to the host that it names.
    """
    other = serve(answering())
    server = serve(page(status, f"Location: {other.url}"))
    async with client(server, attempts=2) as flipsnack:
        with pytest.raises((InvalidAnswerError, UploadOutcomeUnknownError)) as caught:
            await call(flipsnack)

    once = call not in (get_stats, update)
    assert once == isinstance(caught.value, UploadOutcomeUnknownError)
    assert (1 if once else 2) == len(server.arrived)
    assert 0 == other.connections
    assert other.url not in str(caught.value)


# --- answers to uploads that leave it open


@pytest.mark.parametrize(
    "body",
    [
        b'{"code": 20, "status": "OK"}',
        b'{"code": 20, "status": "OK", "data": null}',
        b'{"code": 20, "status": "OK", "data": []}',
        envelope(),
        envelope(collectionHash=None),
        envelope(collectionHash=""),
        envelope(collectionHash=17),
        b'{"status": "OK", "data": {"collectionHash": "new1"}}',
        b'{"code": true, "data": {"collectionHash": "new1"}}',
        b'{"code": 44, "code": 20, "data": {"collectionHash": "new1"}}',
    ],
    ids=lambda body: body.decode()[:60],
)
async def test_e9_a_success_without_a_hash_is_unknown(serve: Serve, body: bytes) -> None:
    """
    A success that does not name the new collection is none to go by, and not sent again.
    """
    server = serve(answering(body), answering())
    evidence = Evidence()
    async with client(server) as flipsnack:
        with pytest.raises(UploadOutcomeUnknownError) as caught:
            await create_tiny(flipsnack)

    evidence.check(caught.value, document=TINY, body_complete=True)
    assert 1 == server.connections


# --- files that change


def changing(path: Path, how: str) -> None:
    match how:
        case "grows":
            with open(path, "ab") as file:
                file.write(b"more")
        case "shrinks":
            os.truncate(path, len(LARGE) - 1)
        case "is emptied":
            os.truncate(path, 0)
        case "is written over":
            with open(path, "r+b") as file:
                file.seek(-1000, os.SEEK_END)
                file.write(b"!" * 1000)


@pytest.mark.parametrize("how", ["grows", "shrinks", "is emptied", "is written over"])
@pytest.mark.parametrize("kind", ["path", "file"])
async def test_e5_a_document_that_changes_is_broken_off(
    serve: Serve, pdf: Path, how: str, kind: str
) -> None:
    """
    A file that changes while it is sent never arrives whole, neither the old nor the new.
    """
    good = response(GOOD)
    server = serve(pausing(lambda n: n // 4, lambda: changing(pdf, how), good), answering())
    async with client(server) as flipsnack, await anyio.open_file(pdf, "rb") as file:
        source = pdf if kind == "path" else file
        with pytest.raises(UploadOutcomeUnknownError, match="the document changed") as caught:
            await flipsnack.collections.create(source)

    error = caught.value
    assert (False, len(LARGE), None) == (error.body_complete, error.size, error.sha256)
    assert [] == server.arrived
    assert 1 == server.connections


@pytest.mark.parametrize("how", ["replaced", "deleted"])
async def test_e5_a_document_that_is_replaced_arrives_as_it_was(
    serve: Serve, pdf: Path, tmp_path: Path, how: str
) -> None:
    """
    Another file under the same name changes nothing: the one that was opened is sent.
    """
    new = tmp_path / "new.pdf"
    new.write_bytes(TINY)
    change = pdf.unlink if how == "deleted" else lambda: new.replace(pdf)
    server = serve(pausing(lambda n: n // 4, change, response(GOOD)))
    async with client(server) as flipsnack:
        assert Collection("new1", extra={"views": 7, "api_uploads_left": 53}) == (
            await flipsnack.collections.create(pdf)
        )

    assert [digest(LARGE)] == server.documents


async def test_e5_a_document_that_changes_between_two_sendings(serve: Serve, pdf: Path) -> None:
    """
    A document that changed when it was refused for the moment is not sent again as another.
    """

    def refuse_and_change(visit: Visit) -> None:
        visit.read_all()
        changing(pdf, "is written over")
        visit.send(response(envelope(31, "no")))

    server = serve(refuse_and_change, answering())
    async with client(server) as flipsnack:
        with pytest.raises(UploadOutcomeUnknownError, match="the document changed") as caught:
            await flipsnack.collections.create(pdf)

    assert caught.value.body_complete is False
    assert [digest(LARGE)] == server.documents


async def test_e5_a_file_that_is_closed_meanwhile(serve: Serve, pdf: Path) -> None:
    """
    A caller who closes his own file breaks the upload off, and that is what he is told.
    """
    file = await anyio.open_file(pdf, "rb")
    server = serve(pausing(lambda n: n // 4, file.wrapped.close, response(GOOD)), answering())
    async with client(server) as flipsnack:
        with pytest.raises(UploadOutcomeUnknownError, match="it is closed") as caught:
            await flipsnack.collections.create(file)

    assert (False, None) == (caught.value.body_complete, caught.value.sha256)
    assert [] == server.arrived


async def test_one_file_is_uploaded_twice(serve: Serve, pdf: Path) -> None:
    """
    An open file can be uploaded again from wherever it is put; at its end it is found empty.
    """
    server = serve(answering())
    async with client(server) as flipsnack, await anyio.open_file(pdf, "rb") as file:
        await flipsnack.collections.create(file)
        with pytest.raises(InvalidArgumentError, match="read to its end"):
            await flipsnack.collections.create(file)
        await file.seek(0)
        await flipsnack.collections.create(file)
        assert not file.wrapped.closed

    assert [digest(LARGE)] * 2 == server.documents


async def test_one_file_is_not_uploaded_twice_at_once(serve: Serve, pdf: Path) -> None:
    """
    Of two uploads at once from one open file, neither sends anything but the document.
    """
    server = serve(answering())
    async with client(server) as flipsnack, await anyio.open_file(pdf, "rb") as file:

        async def send() -> None:
            with suppress(InvalidArgumentError):
                await flipsnack.collections.create(file)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            tasks.start_soon(send)

    assert {digest(LARGE)} == set(server.documents)


# --- connections


async def test_every_call_has_a_connection_of_its_own(serve: Serve) -> None:
    """
    No call, reads and uploads alike, goes over a connection that another one used.
    """
    server = serve(keeping())
    async with client(server) as flipsnack:
        for call in (get_stats, create_tiny, get_stats, create_tiny, get_stats, update):
            await call(flipsnack)

    assert [*range(6)] == [request.connection for request in server.arrived]


# --- cancellation


class Aftermath:
    """Look at what a cancelled upload has left behind."""

    def __init__(self, flipsnack: Flipsnack) -> None:
        self.flipsnack = flipsnack
        isolated = flipsnack._core._signing._transport
        assert isinstance(isolated, IsolatedTransport)
        self.isolated = isolated
        connections: Any = isolated._transport
        self.pool = connections._pool

    async def see_that_all_is_well(self, path: Path) -> None:
        with anyio.move_on_after(1):
            while self.isolated._tasks or is_open(path):  # noqa: ASYNC110 - nobody tells
                await anyio.sleep(0.01)
        assert not self.isolated._tasks
        assert not is_open(path)
        assert [] == self.pool._requests
        assert [] == self.pool.connections


def is_open(path: Path) -> bool:
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == str(path):
                return True
        except OSError:
            pass  # closed since
    return False


async def has_happened(event: threading.Event) -> None:
    with anyio.fail_after(3):
        while not event.is_set():  # noqa: ASYNC110 - set by another thread
            await anyio.sleep(0.01)


async def test_e3_an_upload_cancelled_by_its_scope(serve: Serve, pdf: Path) -> None:
    """
    An upload that is cancelled while it is sent says nothing, leaves nothing, and is not repeated.
    """
    server = serve(stalling(), answering())
    async with client(server, quota=Quota(Rate(2, per=0.05), linger=0.05)) as flipsnack:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flipsnack.collections.create, pdf)
            await has_happened(server.stalling)
            assert is_open(pdf)
            tasks.cancel_scope.cancel()

        await Aftermath(flipsnack).see_that_all_is_well(pdf)
        assert 7 == await get_stats(flipsnack)
        await anyio.sleep(0.2)
        assert [2] == list(flipsnack.quota.statistics().free.values())

    assert ["user.getStats"] == server.actions
    assert 2 == server.connections


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("where", ["opening", "writing", "reading"])
async def test_e3_an_upload_cancelled_natively(
    serve: Serve, pdf: Path, disk: SlowDisk, where: str, times: int
) -> None:
    """
    Cancelled by asyncio, once or again and again, an upload leaves no task, file or slot behind.
    """
    server = serve(stalling() if where == "writing" else answering(), answering())
    disk.pause = 0.0 if where == "writing" else 0.05
    reached = {"opening": disk.opening, "writing": server.stalling, "reading": disk.reading}
    before = asyncio.all_tasks()
    async with client(server, quota=Quota(Rate(2, per=0.05), linger=0.05)) as flipsnack:
        task = asyncio.create_task(flipsnack.collections.create(pdf))
        await has_happened(reached[where])
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(2):
                await task
        with anyio.fail_after(2):
            while disk.at_once:  # noqa: ASYNC110 - counted by another thread
                await anyio.sleep(0.01)

        await Aftermath(flipsnack).see_that_all_is_well(pdf)
        assert before == asyncio.all_tasks()
        assert 7 == await get_stats(flipsnack)
        await anyio.sleep(0.2)
        assert [2] == list(flipsnack.quota.statistics().free.values())

    assert ["user.getStats"] == server.actions


async def test_e3_uploads_cancelled_anywhere(serve: Serve, pdf: Path) -> None:
    """
    Whenever an upload is cancelled, from its first step on, the client is whole afterwards.
    """
    server = serve(stalling(), stalling(lambda n: 0), *[stalling()] * 30, answering())
    before = len(os.listdir("/proc/self/fd"))
    async with client(server) as flipsnack:
        for step in range(20):
            with anyio.move_on_after(0.002 * step):
                await flipsnack.collections.create(pdf)
        await Aftermath(flipsnack).see_that_all_is_well(pdf)
        server.acts = [answering()]
        assert 7 == await get_stats(flipsnack)
    server.close()

    assert len(os.listdir("/proc/self/fd")) <= before + 3
    assert ["user.getStats"] == server.actions


# --- closing


async def end_when_closed(
    flipsnack: Flipsnack,
    call: Callable[[], Awaitable[object]],
    wait: Callable[[], Awaitable[object]],
) -> Exception | None:
    """Start a call, close the client after a wait, and return what the call raised."""
    ends: list[Exception | None] = []

    async def carry_out() -> None:
        try:
            await call()
        except Exception as error:
            ends.append(error)
        else:
            ends.append(None)

    with anyio.fail_after(4):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(carry_out)
            await wait()
            with anyio.fail_after(1):
                await flipsnack.aclose()
    return ends[0]


@pytest.mark.parametrize("act", [stalling(), swallowing()], ids=["half", "whole"])
async def test_h6_a_client_closed_while_it_uploads(serve: Serve, pdf: Path, act: Act) -> None:
    """
    An upload whose client is closed ends soon; its outcome is unknown, and the evidence true.
    """
    server = serve(act, answering())
    flipsnack = client(server)
    evidence = Evidence()

    error = await end_when_closed(
        flipsnack,
        lambda: flipsnack.collections.create(pdf, title="Spring"),
        lambda: has_happened(server.stalling),
    )

    assert isinstance(error, UploadOutcomeUnknownError)
    evidence.check(error, document=LARGE, body_complete=bool(server.arrived))
    assert 1 == server.connections
    assert not is_open(pdf)


@pytest.mark.parametrize("call", [get_stats, unknown, create_tiny])
async def test_h6_a_call_that_waits_when_its_client_is_closed(serve: Serve, call: Call) -> None:
    """
    What was not sent when the client was closed is not sent after that.
    """
    server = serve(answering())
    flipsnack = client(server, quota=Quota(Rate(1, per=0.2)))
    await get_stats(flipsnack)

    error = await end_when_closed(flipsnack, lambda: call(flipsnack), lambda: anyio.sleep(0.05))

    assert ClientClosedError is type(error)
    assert 1 == server.connections


async def test_h6_a_client_left_by_a_cancellation_is_closed(serve: Serve) -> None:
    """
    A client whose block is cancelled with a call under way closes all of its connections.
    """
    server = serve(keeping(), swallowing())
    with anyio.move_on_after(3) as scope:
        async with anyio.create_task_group() as tasks:
            async with client(server) as flipsnack:
                await get_stats(flipsnack)
                tasks.start_soon(create_tiny, flipsnack)
                await has_happened(server.stalling)
                scope.cancel()
                await anyio.sleep(0.1)

    assert [] == Aftermath(flipsnack).pool.connections


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_h6_closing_that_was_cancelled_can_be_finished(serve: Serve) -> None:
    """
    After a close that was cancelled natively in its middle, closing once more closes everything.
    """
    server = serve(keeping(), swallowing())
    flipsnack = client(server)
    await get_stats(flipsnack)
    call = asyncio.create_task(create_tiny(flipsnack))
    await has_happened(server.stalling)
    closing = asyncio.create_task(flipsnack.aclose())
    await asyncio.sleep(0)
    closing.cancel()

    async with asyncio.timeout(1):
        ends = await asyncio.gather(closing, call, return_exceptions=True)
        await flipsnack.aclose()

    assert [asyncio.CancelledError, UploadOutcomeUnknownError] == [type(end) for end in ends]
    assert [] == Aftermath(flipsnack).pool.connections


# --- disks


async def longest_stall(work: Callable[[], Awaitable[object]]) -> float:
    """Say how late a heartbeat of 5 ms was at the worst while something was done."""
    worst = 0.0

    async def beat() -> None:
        nonlocal worst
        while True:
            before = time.perf_counter()
            await anyio.sleep(0.005)
            worst = max(worst, time.perf_counter() - before - 0.005)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beat)
        await anyio.sleep(0.01)
        await work()
        tasks.cancel_scope.cancel()
    return worst


async def test_e7_a_slow_disk_does_not_stall_the_loop(
    serve: Serve, tmp_path: Path, disk: SlowDisk
) -> None:
    """
    While reads of a document take 50 ms each, everything else goes on.
    """
    path = tmp_path / "slow.pdf"
    path.write_bytes(LARGE[: 2 * upload.CHUNK])
    disk.pause = 0.05
    server = serve(answering())
    stalls = []
    async with client(server) as flipsnack:
        for _ in range(3):  # of which the best counts, since the machine may be busy
            stalls.append(await longest_stall(lambda: flipsnack.collections.create(path)))
            if stalls[-1] < 0.04:
                break

    assert min(stalls) < 0.04
    assert {digest(LARGE[: 2 * upload.CHUNK])} == set(server.documents)


@pytest.mark.parametrize("size", [upload.CHUNK, upload.CHUNK + 5000], ids=["last", "first"])
async def test_e7_a_disk_that_stalls_gets_the_right_digest(
    serve: Serve, tmp_path: Path, disk: SlowDisk, size: int
) -> None:
    """
    Where a read outlasts the timeout, the digest is still the document's own.
    """
    path = tmp_path / "slow.pdf"
    document = LARGE[:size]
    path.write_bytes(document)
    disk.pause = 0.3
    server = serve(answering())
    evidence = Evidence()
    async with client(server, timeout=0.1) as flipsnack:
        with pytest.raises(UploadOutcomeUnknownError) as caught:
            await flipsnack.collections.create(path, title="Spring")

    evidence.check(caught.value, document=document, body_complete=False)
    assert 1 == disk.most_at_once
    assert [] == server.arrived
