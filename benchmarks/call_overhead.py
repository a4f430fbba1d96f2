"""
Compare what a call costs here with what it costs through bare httpx.

    python benchmarks/call_overhead.py [--calls 1000] [--rounds 7]

Calls: CPU seconds of this process for `user.get_stats()`, which is admitted,
signed, retried and decoded, over those of `httpx.AsyncClient.get(...).json()`,
against the same loopback server, a process of its own, in alternating rounds:
on a fresh connection each, as clients do by themselves, and on kept ones, in
plain text and over TLS. The last line says what fresh connections cost us.
Import: seconds of `from flipsnack_async import Flipsnack` over those of
`import httpx`, in fresh interpreters, alternating.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

import anyio
import attrs
import httpx
import trustme
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.tls import TLSListener, TLSStream

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


def serve(here: Connection) -> None:
    """Answer every request with the vendor's example of user.getStats, until terminated."""

    async def answer(stream: SocketStream | TLSStream) -> None:
        async with stream:
            try:
                while await stream.receive():  # a GET without a body fits into one read
                    await stream.send(ANSWER)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return

    async def main() -> None:
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        plain = await anyio.create_tcp_listener(local_host="127.0.0.1")
        secret = await anyio.create_tcp_listener(local_host="127.0.0.1")
        ports = [listener.extra(SocketAttribute.local_port) for listener in (plain, secret)]  # noqa: S610  no Django
        here.send((*ports, authority.cert_pem.bytes().decode()))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(plain.serve, answer)
            tasks.start_soon(TLSListener(secret, context, standard_compatible=False).serve, answer)

    anyio.run(main)


@attrs.frozen
class Cost:
    """What a call took, in seconds of this process's CPU and in seconds."""

    cpu: float
    elapsed: float


async def cost(call: Callable[[], Awaitable[object]], calls: int) -> Cost:
    for _ in range(20):
        await call()
    cpu, began = time.process_time(), time.perf_counter()
    for _ in range(calls):
        await call()
    return Cost((time.process_time() - cpu) / calls, (time.perf_counter() - began) / calls)


async def compare_calls(
    url: str, context: ssl.SSLContext, keep: int, calls: int, rounds: int
) -> list[tuple[Cost, Cost]]:
    params = {"action": "user.getStats", "apiKey": "bench", "signature": "0" * 32}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=keep)
    ours = httpx.AsyncHTTPTransport(verify=context, limits=limits)
    async with (
        httpx.AsyncClient(verify=context, limits=limits) as bare,
        Flipsnack("bench", "bench", api_url=url, rates=UNLIMITED, transport=ours) as flipsnack,
    ):

        async def bare_call() -> object:
            return (await bare.get(url, params=params)).json()

        return [
            (await cost(flipsnack.user.get_stats, calls), await cost(bare_call, calls))
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
    return f"{what:<46} {ours:>10.1f} {theirs:>10.1f} {ratio:>8.2f}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    arguments.add_argument("--calls", type=int, default=1000)
    arguments.add_argument("--rounds", type=int, default=7)
    given = arguments.parse_args()

    here, there = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    server.start()
    try:
        plain, secret, certificate = here.recv()
        context = ssl.create_default_context(cadata=certificate)
        urls = {
            "plain text": f"http://127.0.0.1:{plain}/v1/",
            "TLS": f"https://127.0.0.1:{secret}/v1/",
        }
        found = {
            (path, how): anyio.run(compare_calls, url, context, keep, given.calls, given.rounds)
            for path, url in urls.items()
            for how, keep in (("fresh", 0), ("kept", 20))
        }
    finally:
        server.terminate()
        server.join()
    imports = compare_imports(3 * given.rounds)

    print(
        f"Python {platform.python_version()}, httpx {httpx.__version__}, asyncio; medians of "
        f"{given.rounds} rounds of {given.calls} calls, and of {3 * given.rounds} imports"
    )
    print(f"{'':<46} {'ours':>10} {'httpx':>10} {'ratio':>8}")
    for (path, how), costs in found.items():
        cpu = [(ours.cpu, theirs.cpu) for ours, theirs in costs]
        print(row(f"CPU per call, {how} connection, {path}, us", cpu, 1e6))
    print(row("import, ms", imports, 1e3))
    print(surcharge(found["TLS", "fresh"], found["TLS", "kept"]))


def surcharge(fresh: list[tuple[Cost, Cost]], kept: list[tuple[Cost, Cost]]) -> str:
    cpu, elapsed = (
        statistics.median(getattr(ours, name) for ours, _ in fresh)
        - statistics.median(getattr(ours, name) for ours, _ in kept)
        for name in ("cpu", "elapsed")
    )
    return (
        f"a fresh connection over TLS costs {cpu * 1e3:.2f} ms of CPU and {elapsed * 1e3:.2f} ms "
        f"more than a kept one, and two journeys to the server and back; "
        f"with 60 calls a minute {cpu:.2%} of a CPU"
    )


if __name__ == "__main__":
    main()
