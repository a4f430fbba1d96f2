"""A server on loopback that cuts, stalls and answers as it is told, and counts what it saw."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import attrs

# No wait of the server's is longer; a test is over long before.
PATIENCE: Final = 5.0
HEAD_END: Final = b"\r\n\r\n"


class GoneError(Exception):
    """Say that the client, or the test, went away in the middle of an act."""


@attrs.frozen
class Arrived:
    """A request that came in whole, to its last byte."""

    connection: int
    action: str
    body: bytes = attrs.field(repr=False)

    @property
    def document(self) -> str:
        """Take the file out of a multipart body, and return its digest."""
        boundary = self.body.partition(b"\r\n")[0]
        part = self.body.partition(b'name="file"')[2].partition(HEAD_END)[2]
        return sha256(part.removesuffix(b"\r\n" + boundary + b"--\r\n")).hexdigest()


class Visit:
    """One connection, in the hands of its act."""

    def __init__(self, server: CuttingServer, connection: socket.socket, number: int) -> None:
        self.server = server
        self.number = number
        self._socket = connection
        self._socket.settimeout(PATIENCE)
        self._buffer = b""
        self._body = bytearray()
        self._target = ""
        self.length = 0

    def read_head(self) -> None:
        """Read the request up to its body."""
        while HEAD_END not in self._buffer:
            self._buffer += self._received()
        head, _, self._buffer = self._buffer.partition(HEAD_END)
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
        self._target = first.split(" ")[1]
        self._body = bytearray()
        self.length = int(headers.get("content-length", 0))
        self.server.heads += 1

    def read_body(self, upto: int) -> None:
        """Read the body until so many bytes of it are here, and not one more."""
        while len(self._body) < upto:
            missing = upto - len(self._body)
            if not self._buffer:
                self._buffer = self._received(min(missing, 2**16))
            self._body += self._buffer[:missing]
            self._buffer = self._buffer[missing:]

    def read_all(self) -> None:
        """Read one request, and enter it in the ledger."""
        self.read_head()
        self.read_rest()

    def read_rest(self) -> None:
        self.read_body(self.length)
        body = bytes(self._body)
        query = parse_qs(urlsplit(self._target).query)
        action = query.get("action", [""])[0]
        if not action:
            part = body.partition(b'name="action"')[2].partition(HEAD_END)[2]
            action = part.partition(b"\r\n")[0].decode()
        self.server.arrived.append(Arrived(self.number, action, body))

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError:
            raise GoneError from None

    def reset(self) -> None:
        """Hang up without a farewell: the client's kernel drops what it still had."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def stall(self) -> None:
        """Do nothing, for as long as the test takes."""
        self.server.stalling.set()
        self.server.over.wait(PATIENCE)

    def close(self) -> None:
        self._socket.close()

    def hurry(self) -> None:
        """Let whatever waits on this connection wait no longer."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _received(self, most: int = 2**16) -> bytes:
        try:
            data = self._socket.recv(most)
        except OSError:
            data = b""
        if not data:
            raise GoneError
        return data


Act = Callable[[Visit], None]


class CuttingServer:
    """
    Give each connection the next act, the last one for ever; acts run in threads of their own.

    *connections* is how many were accepted, *heads* how many requests began,
    *arrived* those that came in whole. The buffer for what comes in is small,
    so that a large body is for the most part in nobody's buffers.
    """

    def __init__(self, *acts: Act, listening: bool = True) -> None:
        self.acts = list(acts)
        self.connections = 0
        self.heads = 0
        self.arrived: list[Arrived] = []
        self.over = threading.Event()
        self.stalling = threading.Event()
        self._visits: list[Visit] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1/"
        if listening:
            self.listen()

    def listen(self) -> None:
        """Accept connections from now on; until then they are refused."""
        if not self._threads:
            self._socket.listen(100)
            self._socket.settimeout(0.02)
            self._start(self._accept)

    def close(self) -> None:
        self.over.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # which wakes whoever accepts, on Linux
        for visit in self._visits:
            visit.hurry()
        for thread in self._threads:
            thread.join(PATIENCE)
        self._socket.close()
        assert not [thread for thread in self._threads if thread.is_alive()]

    @property
    def actions(self) -> list[str]:
        return [request.action for request in self.arrived]

    @property
    def documents(self) -> list[str]:
        """The digests of the files that came in."""
        return [request.document for request in self.arrived]

    def _start(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.over.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:  # nobody came for a while, or it is over
                continue
            act = self.acts[min(self.connections, len(self.acts) - 1)]
            visit = Visit(self, connection, self.connections)
            self.connections += 1
            self._visits.append(visit)
            self._start(lambda visit=visit, act=act: self._receive(visit, act))  # type: ignore[misc]

    def _receive(self, visit: Visit, act: Act) -> None:
        try:
            with suppress(GoneError):
                act(visit)
        finally:
            visit.close()


# --- answers


def envelope(code: int = 20, status: str = "OK", **data: Any) -> bytes:
    return json.dumps({"code": code, "status": status, "data": data}).encode()


def response(
    body: bytes, status: str = "200 OK", *headers: str, length: int | None = None
) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


GOOD: Final = envelope(views=7, api_uploads_left=53, collectionHash="new1")


# --- acts


def answering(body: bytes = GOOD, status: str = "200 OK", *headers: str) -> Act:
    """Read a request, answer it whole, and hang up."""
    return saying(response(body, status, "Connection: close", *headers))


def refusing(code: int, message: str = "no") -> Act:
    """Answer by the vendor's code, or by HTTP's own refusal."""
    if code == 429:
        return answering(b"<html>slow down</html>", "429 Too Many Requests")
    return answering(envelope(code, message))


def saying(data: bytes, *, reset: bool = False) -> Act:
    """Read a request, send these bytes, and hang up."""

    def act(visit: Visit) -> None:
        visit.read_all()
        if data:
            visit.send(data)
        if reset:
            visit.reset()

    return act


def keeping(body: bytes = GOOD) -> Act:
    """Answer one request after the other, as long as the client keeps the connection."""

    def act(visit: Visit) -> None:
        while True:
            visit.read_all()
            visit.send(response(body))

    return act


def cutting(of_body: Callable[[int], int]) -> Act:
    """Reset the connection when so many bytes of the body were read."""

    def act(visit: Visit) -> None:
        visit.read_head()
        visit.read_body(of_body(visit.length))
        visit.reset()

    return act


def pausing(of_body: Callable[[int], int], do: Callable[[], object], data: bytes) -> Act:
    """Do something when so many bytes of the body were read, and then go on to the answer."""

    def act(visit: Visit) -> None:
        visit.read_head()
        visit.read_body(of_body(visit.length))
        do()
        visit.read_rest()
        visit.send(data)

    return act


def swallowing(data: bytes = b"") -> Act:
    """Read a request, send these bytes, and then nothing more."""

    def act(visit: Visit) -> None:
        visit.read_all()
        if data:
            visit.send(data)
        visit.stall()

    return act


def stalling(of_body: Callable[[int], int] = lambda length: length // 2) -> Act:
    """Stop reading when so many bytes of the body were read."""

    def act(visit: Visit) -> None:
        visit.read_head()
        visit.read_body(of_body(visit.length))
        visit.stall()

    return act
