"""
Compare what an upload of a large file does to a process here and through bare httpx.

    python benchmarks/upload_memory.py [--size 500]

A sparse PDF of *size* MB goes by `collections.create(path)`, and by
`httpx.AsyncClient.post(files=...)`, to a sink on loopback: a process of its own
that counts the bytes and answers an envelope. Each upload has a fresh process,
which has sent a tiny document before, so that imports and warming up do not
count. Memory: the most that /proc/self/statm says is resident, less what was
before. Stall: how late a heartbeat of 1 ms is on the event loop of the upload;
beside it stands the same heartbeat on a loop that is idle for as long as the
longest upload took. Each upload has a file of its own, which the system has in
its cache, or which is new; being sparse, that costs it memory and no disk. MB/s
compare the overhead, not a line.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path

import anyio
import attrs
import httpx

from flipsnack_async import Flipsnack, Quota

BODY = b'{"code": 20, "status": "OK", "data": {"collectionHash": "bench"}}'
ANSWER = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
BEAT = 0.001
TINY = b"%PDF-1.7\n%%EOF"

spawning = multiprocessing.get_context("spawn")


@attrs.frozen
class Result:
    """What one process saw."""

    what: str
    file: str
    seconds: float
    grown: int
    stalls: list[float]

    def at(self, share: float) -> float:
        """Tell the stall that so large a share of the heartbeats did not exceed."""
        return sorted(self.stalls)[min(len(self.stalls) - 1, int(share * len(self.stalls)))]


def sink(tell: Connection) -> None:
    """Take in one request after the other, and tell how many bytes its body had."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tell.send(listener.getsockname()[1])
        room = memoryview(bytearray(2**20))
        while True:
            connection, _ = listener.accept()
            with connection:
                tell.send(take_in(connection, room))


def take_in(connection: socket.socket, room: memoryview) -> int:
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(2**12)
    head, _, body = head.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    taken = len(body)
    while taken < length and (size := connection.recv_into(room)):
        taken += size
    connection.sendall(ANSWER)
    return taken


def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def watch(what: str, file: str, work: Callable[[], Awaitable[object]]) -> Result:
    """Do some work, and watch the event loop and the memory meanwhile."""
    stalls: list[float] = []
    most = before = resident()

    async def beat() -> None:
        nonlocal most
        while True:
            due = time.perf_counter() + BEAT
            await anyio.sleep(BEAT)
            stalls.append(max(0.0, time.perf_counter() - due))
            most = max(most, resident())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beat)
        await anyio.sleep(10 * BEAT)
        began = time.perf_counter()
        await work()
        took = time.perf_counter() - began
        tasks.cancel_scope.cancel()
    return Result(what, file, took, most - before, stalls)


async def ours(url: str, path: str, state: str) -> Result:
    async with Flipsnack("bench", "bench", upload_url=url, quota=Quota()) as flipsnack:
        await flipsnack.collections.create(TINY)
        return await watch("ours", state, lambda: flipsnack.collections.create(path))


async def theirs(url: str, path: str, state: str) -> Result:
    async with httpx.AsyncClient(timeout=None) as client:  # noqa: S113  as long as it takes

        async def post(file: object) -> None:
            files = {"file": ("document.pdf", file, "application/pdf")}
            answer = await client.post(url, data={"action": "x"}, files=files)  # type: ignore[arg-type]
            answer.raise_for_status()

        await post(TINY)
        with open(path, "rb") as file:  # noqa: ASYNC230  as one does with httpx
            return await watch("httpx", state, lambda: post(file))


async def idle(seconds: float) -> Result:
    return await watch("idle loop", "", lambda: anyio.sleep(seconds))


def make(path: Path, size: int, state: str) -> None:
    """Make a file of nothing, which the system has in its cache or never read."""
    with open(path, "wb") as file:
        file.write(TINY)
        file.truncate(size)
    if state == "cached":
        with open(path, "rb") as file:
            while file.read(2**20):
                pass


def run(tell: Connection, measure: Callable[..., Awaitable[Result]], *args: object) -> None:
    tell.send(anyio.run(measure, *args))


def in_a_process_of_its_own(measure: Callable[..., Awaitable[Result]], *args: object) -> Result:
    here, there = spawning.Pipe()
    process = spawning.Process(target=run, args=(there, measure, *args))
    process.start()
    there.close()
    result: Result = here.recv()
    process.join()
    return result


def compare(size: int, directory: str) -> list[Result]:
    here, there = spawning.Pipe()
    server = spawning.Process(target=sink, args=(there,), daemon=True)
    server.start()
    try:
        url = f"http://127.0.0.1:{here.recv()}/v1/"
        results = []
        for state, measure in product(("cached", "new"), (ours, theirs)):
            path = Path(directory) / f"{state}-{measure.__name__}.pdf"
            make(path, size, state)
            results.append(in_a_process_of_its_own(measure, url, str(path), state))
            _, taken = here.recv(), here.recv()
            if taken < size:
                raise RuntimeError(f"{results[-1].what}: only {taken} bytes came in")
            path.unlink()
    finally:
        server.terminate()
        server.join()
    longest = max(result.seconds for result in results)
    return [*results, in_a_process_of_its_own(idle, longest)]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    arguments.add_argument("--size", type=int, default=500, metavar="MB")
    given = arguments.parse_args()

    size = given.size * 10**6
    with tempfile.TemporaryDirectory() as directory:
        results = compare(size, directory)

    print(
        f"Python {platform.python_version()}, httpx {httpx.__version__}, asyncio, "
        f"{os.cpu_count()} CPUs; a sparse PDF of {given.size} MB to a sink on loopback, "
        f"a heartbeat of {1000 * BEAT:g} ms"
    )
    print(
        f"{'':<9} {'file':<6} {'memory grew MB':>14} {'longest stall ms':>16} "
        f"{'99.9 % below ms':>15} {'beats':>6} {'took s':>7} {'MB/s':>5}"
    )
    for result in results:
        speed = f"{size / 1e6 / result.seconds:.0f}" if result.file else ""
        print(
            f"{result.what:<9} {result.file:<6} {result.grown / 1e6:>14.1f} "
            f"{1000 * max(result.stalls):>16.1f} {1000 * result.at(0.999):>15.1f} "
            f"{len(result.stalls):>6} {result.seconds:>7.2f} {speed:>5}"
        )


if __name__ == "__main__":
    main()
