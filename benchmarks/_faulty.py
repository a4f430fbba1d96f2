"""A sandbox on loopback, in a process of its own, behind a way that spoils connections."""

from __future__ import annotations

import multiprocessing
import random
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final, TypeAlias

import anyio
import attrs
from anyio.abc import SocketAttribute, SocketStream
from anyio.lowlevel import checkpoint

from flipsnack_async.sandbox import Sandbox

GONE: Final = (
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
)
GATEWAY: Final = (
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 15\r\nConnection: close\r\n\r\n<html>no</html>"
)
AN_ANSWER: Final = 0.05  # seconds in which an answer is whole, on loopback
LATE: Final = 0.5


@attrs.frozen
class Ledger:
    """What the sandbox saw: calls, those refused for their number, and uploads by their title."""

    calls: int
    refused: int
    uploads: Mapping[str, int]
    faults: Mapping[str, int]


class Way:
    """Between a client and the sandbox: passes bytes on, or what a fault makes of them."""

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._chance = random.Random(seed)
        self._fault = "none"
        self.is_calm = False
        self.struck: Counter[str] = Counter()

    async def change_every_second(self) -> None:
        while True:
            self._fault = self._chance.choice([*FAULTS])
            await anyio.sleep(1)

    async def take(self, client: SocketStream) -> None:
        name = "none" if self.is_calm or self._chance.random() < 0.5 else self._fault
        self.struck[name] += 1
        with suppress(*GONE):
            async with client, await anyio.connect_tcp("127.0.0.1", self._port) as server:
                await FAULTS[name](client, server, self._chance)


Fault: TypeAlias = Callable[[SocketStream, SocketStream, random.Random], Awaitable[None]]
Pass: TypeAlias = Callable[[SocketStream, SocketStream], Awaitable[None]]


async def both_ways(client: SocketStream, server: SocketStream, up: Pass, down: Pass) -> None:
    async with anyio.create_task_group() as tasks:

        async def until_gone(way: Pass, source: SocketStream, target: SocketStream) -> None:
            with suppress(*GONE):
                await way(source, target)
            tasks.cancel_scope.cancel()

        tasks.start_soon(until_gone, up, client, server)
        tasks.start_soon(until_gone, down, server, client)


async def on(source: SocketStream, target: SocketStream) -> None:
    while True:
        await target.send(await source.receive())


async def late(source: SocketStream, target: SocketStream, *, seconds: float) -> None:
    while True:
        piece = await source.receive()
        await anyio.sleep(seconds)
        await target.send(piece)


async def in_slices(source: SocketStream, target: SocketStream) -> None:
    while True:
        piece = await source.receive()
        size = 1 + len(piece) // 20
        for start in range(0, len(piece), size):
            await target.send(piece[start : start + size])
            await checkpoint()


async def up_to(source: SocketStream, target: SocketStream, *, size: int) -> None:
    """Pass so many bytes on, and reset the connection that they came to."""
    while size > 0:
        piece = (await source.receive())[:size]
        size -= len(piece)
        await target.send(piece)
    for stream in (source, target):
        now = struct.pack("ii", 1, 0)
        stream.extra(SocketAttribute.raw_socket).setsockopt(  # noqa: S610  no Django
            socket.SOL_SOCKET, socket.SO_LINGER, now
        )


async def to_nowhere(source: SocketStream, target: SocketStream) -> None:
    while True:
        await source.receive()


async def nothing(source: SocketStream, target: SocketStream) -> None:
    await anyio.sleep_forever()


async def twice(source: SocketStream, target: SocketStream) -> None:
    """Send each answer and, in the same segment, once more."""
    while True:
        answer = await source.receive()
        with suppress(TimeoutError), anyio.fail_after(AN_ANSWER):
            while True:
                answer += await source.receive()
        await target.send(answer + answer)


async def clean(client: SocketStream, server: SocketStream, chance: random.Random) -> None:
    await both_ways(client, server, on, on)


async def delay(client: SocketStream, server: SocketStream, chance: random.Random) -> None:
    slow = partial(late, seconds=chance.uniform(0, LATE))
    await both_ways(client, server, slow, slow)


async def slices(client: SocketStream, server: SocketStream, chance: random.Random) -> None:
    await both_ways(client, server, in_slices, in_slices)


async def reset(client: SocketStream, server: SocketStream, chance: random.Random) -> None:
    await up_to(client, client, size=0)


async def cut_request(client: SocketStream, server: SocketStream, chance: random.Random) -> None:
    await both_ways(client, server, partial(up_to, size=chance.randrange(1, 1000)), on)


async def cut_answer(client: SocketStream, server: SocketStream, chance: random.Random) -> None:
    await both_ways(client, server, on, partial(up_to, size=chance.randrange(1, 1000)))


async def swallow(client: SocketStream, server: SocketStream, chance: random.Random) -> None:
    await both_ways(client, server, on, to_nowhere)


async def stall(client: SocketStream, server: SocketStream, chance: random.Random) -> None:
    await both_ways(client, server, nothing, on)


async def repeat(client: SocketStream, server: SocketStream, chance: random.Random) -> None:
    await both_ways(client, server, on, twice)


async def gateway(client: SocketStream, server: SocketStream, chance: random.Random) -> None:
    await client.receive()
    await client.send(GATEWAY)


FAULTS: Final[Mapping[str, Fault]] = {
    "none": clean,
    "delay": delay,
    "slices": slices,
    "reset": reset,
    "request cut": cut_request,
    "answer cut": cut_answer,
    "answer swallowed": swallow,
    "stalled": stall,
    "answer sent twice": repeat,
    "gateway's page": gateway,
}


class Served:
    """A sandbox in another process: its address, and what can be said to it."""

    def __init__(self, line: Connection) -> None:
        self._line = line
        self.url, self.api_key, self.api_secret = line.recv()

    async def calm(self) -> None:
        """Let all connections from now on be whole."""
        await self._ask("calm")

    async def ledger(self) -> Ledger:
        found: Ledger = await self._ask("ledger")
        return found

    async def _ask(self, what: str) -> Any:
        def ask() -> Any:
            self._line.send(what)
            return self._line.recv()

        return await anyio.to_thread.run_sync(ask)


@contextmanager
def served(rates: Sequence[tuple[int, float]], seed: int, **options: Any) -> Generator[Served]:
    """Serve a sandbox that counts by *rates* behind a faulty way, and end it with the block."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(there, rates, seed, options), daemon=True)
    process.start()
    try:
        yield Served(here)
    finally:
        process.terminate()
        process.join()


def _serve(
    line: Connection, rates: Sequence[tuple[int, float]], seed: int, options: Mapping[str, Any]
) -> None:
    async def main() -> None:
        box = Sandbox(rates=rates, seed=seed, **options)
        async with box.serve() as url:
            way = Way(int(url.split(":")[2].split("/")[0]), seed)
            listener = await anyio.create_tcp_listener(local_host="127.0.0.1", backlog=1000)
            port = listener.extra(SocketAttribute.local_port)  # noqa: S610  no Django
            async with listener, anyio.create_task_group() as tasks:
                tasks.start_soon(listener.serve, way.take)
                tasks.start_soon(way.change_every_second)
                line.send((f"http://127.0.0.1:{port}/v1/", box.api_key, box.api_secret))
                while True:
                    asked = await anyio.to_thread.run_sync(line.recv, abandon_on_cancel=True)
                    if asked == "calm":
                        way.is_calm = True
                    line.send(_seen(box, way))

    with suppress(EOFError):
        anyio.run(main)


def _seen(box: Sandbox, way: Way) -> Ledger:
    created = (call for call in box.ledger if (call.action, call.code) == ("collection.create", 20))
    return Ledger(
        calls=len(box.ledger),
        refused=sum(call.code in (31, 32) for call in box.ledger),
        uploads=Counter(call.params["title"] for call in created),
        faults=way.struck,
    )
