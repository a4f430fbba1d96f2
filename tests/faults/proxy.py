"""A TCP proxy on loopback that spoils what passes, either way, and counts it; and floods."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Final
from urllib.parse import urlsplit

import attrs
from cutting import PATIENCE, CuttingServer, Visit

from flipsnack_async.sandbox import Sandbox


class Then(Enum):
    """What becomes of a direction when there is more than may pass."""

    CUT = "both ends are closed"
    RESET = "both ends are told that the connection broke"
    STALL = "nothing is read any more"
    SWALLOW = "all is read, and nothing passed on"
    HANG_UP = "the receiver is told that this was all; the other direction goes on"


@attrs.frozen
class Way:
    """
    How one direction treats what passes.

    At the most *piece* bytes are passed at once, each time after a *delay* in
    seconds. *upto* so many bytes pass, and *then* something becomes of it.
    """

    piece: int = 2**16
    delay: float = 0.0
    upto: float = float("inf")
    then: Then = Then.CUT


@attrs.frozen
class Passage:
    """How a connection treats what the client sends, *up*, and what it is answered, *down*."""

    up: Way = Way()
    down: Way = Way()


CLEAR: Final = Passage()


@attrs.define
class Direction:
    """One direction of a connection, and how many bytes it *passed* on."""

    source: socket.socket
    sink: socket.socket
    way: Way
    passed: int = 0

    def step(self) -> bool:
        """Treat what has come, and say whether to look for more. Raises `OSError` at an end."""
        room = self.way.upto - self.passed
        if room <= 0 and self.way.then is not Then.SWALLOW:
            return self._spoil()
        data = self.source.recv(int(min(self.way.piece, room or 2**16)))
        if not data:
            self.sink.shutdown(socket.SHUT_WR)
        elif room > 0:
            time.sleep(self.way.delay)
            self.passed += len(data)  # before the receiver can ask
            self.sink.sendall(data)
        return bool(data)

    def _spoil(self) -> bool:
        if self.way.then is Then.HANG_UP:
            self.sink.shutdown(socket.SHUT_WR)
        if self.way.then is Then.RESET:
            for end in (self.source, self.sink):
                # Closed without lingering, a socket says RST.
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if self.way.then in (Then.RESET, Then.CUT):
            raise ConnectionAbortedError
        return False


@attrs.frozen
class Pair:
    """Both directions of a connection."""

    up: Direction
    down: Direction


class Proxy:
    """Give each connection the next passage, the last one for ever; *pairs* are those that came."""

    def __init__(self, url: str, *passages: Passage) -> None:
        self._passages = passages
        self._target = ("127.0.0.1", urlsplit(url).port)
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self.pairs: list[Pair] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self._listener.settimeout(0.02)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1/"
        self._start(self._accept)

    def close(self) -> None:
        self._over.set()
        for pair in self.pairs:
            for end in (pair.up.source, pair.down.source):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        self._listener.close()
        assert not [thread for thread in self._threads if thread.is_alive()]

    def _start(self, run: Callable[..., None], *args: object) -> None:
        self._threads.append(threading.Thread(target=run, args=args, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            server = socket.create_connection(self._target)
            for end in (client, server):
                end.settimeout(PATIENCE)
            passage = self._passages[min(len(self.pairs), len(self._passages) - 1)]
            up = Direction(client, server, passage.up)
            down = Direction(server, client, passage.down)
            self.pairs.append(Pair(up, down))
            self._start(self._carry, up, down)

    def _carry(self, up: Direction, down: Direction) -> None:
        open_ones = {up.source: up, down.source: down}
        with up.source, down.source, suppress(OSError):  # an end went away
            while open_ones and not self._over.is_set():
                for source in select.select([*open_ones], [], [], 0.02)[0]:
                    if not open_ones[source].step():
                        del open_ones[source]


class Pouring:
    """Read a request, send a start, and then pour out the same piece as fast as it goes."""

    def __init__(self, start: bytes, piece: bytes) -> None:
        self.poured = 0
        self._start = start
        self._piece = piece

    def __call__(self, visit: Visit) -> None:
        visit.read_all()
        visit.send(self._start)
        while True:
            visit.send(self._piece)
            self.poured += len(self._piece)


Serve = Callable[..., CuttingServer]
ServeBehind = Callable[..., Proxy]
BoxBehind = Callable[..., tuple[Sandbox, Proxy]]
