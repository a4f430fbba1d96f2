"""
Compare what a call costs here with what it costs through bare httpx.

    python benchmarks/call_overhead.py [--calls 2000] [--rounds 7]

Calls: CPU seconds of this process for `user.get_stats()`, which is admitted,
signed, retried and decoded, over those of `httpx.AsyncClient.get(...).json()`,
against the same loopback server, a process of its own, in alternating rounds
over kept connections. Import: seconds of `from flipsnack_async import
Flipsnack` over those of `import httpx`, in fresh interpreters, alternating.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

import anyio
import httpx

from flipsnack_async import Flipsnack, Rate

BODY = (
    b'{"code": 20, "status": "OK", "data": {"impressions": 2945, "views": 3719, '
    b'"time_spent": 154, "downloads": 28, "api_uploads_left": 53}}'
)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(BODY),
    BODY,
)
UNLIMITED = (Rate(10**6, per=1.0),)


def serve(port: Connection) -> None:
    """Answer every request with the vendor's example of user.getStats, until terminated."""

    async def answer(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            try:
                while await stream.receive():  # a GET without a body fits into one read
                    await stream.send(ANSWER)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return

    async def main() -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port.send(listener.extra(anyio.abc.SocketAttribute.local_port))  # noqa: S610  no Django
        await listener.serve(answer)

    anyio.run(main)


async def cpu_per_call(call: Callable[[], Awaitable[object]], calls: int) -> float:
    for _ in range(50):
        await call()
    began = time.process_time()
    for _ in range(calls):
        await call()
    return (time.process_time() - began) / calls


async def compare_calls(url: str, calls: int, rounds: int) -> list[tuple[float, float]]:
    params = {"action": "user.getStats", "apiKey": "bench", "signature": "0" * 32}
    async with (
        httpx.AsyncClient() as bare,
        Flipsnack("bench", "bench", api_url=url, rates=UNLIMITED) as flipsnack,
    ):

        async def bare_call() -> object:
            return (await bare.get(url, params=params)).json()

        return [
            (
                await cpu_per_call(flipsnack.user.get_stats, calls),
                await cpu_per_call(bare_call, calls),
            )
            for _ in range(rounds)
        ]


def import_seconds(statement: str) -> float:
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    done = subprocess.run(  # noqa: S603  our own interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def compare_imports(rounds: int) -> list[tuple[float, float]]:
    return [
        (import_seconds("from flipsnack_async import Flipsnack"), import_seconds("import httpx"))
        for _ in range(rounds + 1)
    ][1:]  # the first round may have to compile


def row(what: str, pairs: list[tuple[float, float]], unit: float) -> str:
    ours, theirs = (statistics.median(side) * unit for side in zip(*pairs, strict=True))
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    return f"{what:<28} {ours:>10.1f} {theirs:>10.1f} {ratio:>8.2f}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    arguments.add_argument("--calls", type=int, default=2000)
    arguments.add_argument("--rounds", type=int, default=7)
    given = arguments.parse_args()

    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    try:
        url = f"http://127.0.0.1:{ours.recv()}/v1/"
        calls = anyio.run(compare_calls, url, given.calls, given.rounds)
    finally:
        server.terminate()
        server.join()
    imports = compare_imports(3 * given.rounds)

    print(
        f"Python {platform.python_version()}, httpx {httpx.__version__}, asyncio; medians of "
        f"{given.rounds} rounds of {given.calls} calls, and of {3 * given.rounds} imports"
    )
    print(f"{'':<28} {'ours':>10} {'httpx':>10} {'ratio':>8}")
    print(row("CPU per call, microseconds", calls, 1e6))
    print(row("import, milliseconds", imports, 1e3))


if __name__ == "__main__":
    main()
