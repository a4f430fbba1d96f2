"""
Compare how packages are awaited and fetched with the least that the vendor's limits allow.

    python benchmarks/packages.py [--packages 100] [--draws 5] [--size 1000]

Awaiting, in virtual time on trio's clock, before the in-process sandbox, which
counts 5 calls a second and 60 a minute at arrival, refused ones too: so many
packages, each of which takes 10 to 90 s from the first question. The k-th that
is asked for takes the k-th of a draw's durations, which nobody knows but "best".

ours         `export_many`
every 3 s    for each package a task that asks by `collections.download_html`
             every 3 s until it is COMPLETE, behind the same quota, then fetches
best         two calls a package: a start, and a collection that arrives when the
             package is ready, each call as early as the server's windows allow;
             starts go first, the longest before the others, and what is ready
             first is collected first. This is a greedy schedule. Where it ends as
             early as so many calls can, or as the longest package started first,
             no schedule is shorter: that is checked for each draw, and printed.

Means over the draws, and the worst ratio of a makespan to its draw's best. Beside
a running harvest polls get a fifth of the minute's calls, so that "best" is the
same schedule at 5 a second and 12 a minute; the loop asks in the lane that calls
are in by default, and is not held to that. "Pace" is the harvest's calls while
the exports ran over those of a harvest alone in the same seconds.

Fetching, in real time on asyncio: one package of *size* MB, its export done, by
`collections.save_package`, and by `httpx.AsyncClient.stream()` with writes from
the event loop, which neither checks nor syncs what it wrote. The sandbox serves
on loopback, in a process of its own, and has made the package before. Each
download has a fresh process, which has fetched a tiny package before. Memory and
stalls are measured as in upload_memory.py, beside a loop that is idle for as long.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import random
import statistics
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias, TypeVar
from unittest.mock import patch

import anyio
import attrs
import httpx
from trio.testing import MockClock
from upload_memory import BEAT, Result, idle, in_a_process_of_its_own, spawning, watch

from flipsnack_async import Flipsnack, _blocking
from flipsnack_async.sandbox import Sandbox

T = TypeVar("T")
Rates: TypeAlias = tuple[tuple[int, float], ...]

RATES: Rates = ((5, 1.0), (60, 60.0))
A_FIFTH: Rates = ((5, 1.0), (12, 60.0))
LEAD = 180.0  # seconds for which a harvest runs before the exports start
TINY = 10**5


class Windows:
    """Know when the next call may arrive, after those that did."""

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._arrivals: list[float] = []

    def take(self, at: float) -> float:
        """Let a call arrive *at* a time or as soon after it as may be, and say when."""
        for limit, per in self._rates:
            if len(self._arrivals) >= limit:
                at = max(at, self._arrivals[-limit] + per)
        self._arrivals.append(at)
        return at


def best(durations: Sequence[float], way: float, rates: Rates) -> float:
    """Say how long the best schedule takes that is known; a call takes *way* to arrive."""
    windows = Windows(rates)
    ready = sorted(windows.take(way) + seconds for seconds in sorted(durations, reverse=True))
    for collected in ready:
        last = windows.take(collected)
    return last + way


def least(durations: Sequence[float], way: float, rates: Rates) -> float:
    """Say what no schedule is shorter than: so many calls, whatever for, or the longest package."""
    windows = Windows(rates)
    last = [windows.take(way) for _ in range(2 * len(durations))][-1]
    return max(last, way + max(durations)) + way


@attrs.frozen
class Run:
    """What became of a draw's packages."""

    calls: float  # a package
    refused: int
    seconds: float
    best: float
    harvested: float = 0.0  # calls a minute

    @property
    def ratio(self) -> float:
        return self.seconds / self.best


Way: TypeAlias = Callable[[Flipsnack, Sandbox, Sequence[str], Path], Awaitable[None]]


async def ours(flipsnack: Flipsnack, box: Sandbox, hashes: Sequence[str], folder: Path) -> None:
    async with flipsnack.export_many(hashes, folder) as rows:
        async for row in rows:
            if row.error is not None:
                raise row.error


async def loop(flipsnack: Flipsnack, box: Sandbox, hashes: Sequence[str], folder: Path) -> None:
    async def save(collection_hash: str) -> None:
        while True:
            package = await flipsnack.collections.download_html(collection_hash)
            if package.status == "COMPLETE":
                break
            await anyio.sleep(3)
        answer = await client.get(package.resource_url or "")
        answer.raise_for_status()
        (folder / f"{collection_hash}.zip").write_bytes(answer.content)

    async with (
        httpx.AsyncClient(transport=box.transport()) as client,
        anyio.create_task_group() as tasks,
    ):
        for collection_hash in hashes:
            tasks.start_soon(save, collection_hash)


def sandbox(durations: Sequence[float], way: float, others: int = 0) -> Sandbox:
    return Sandbox(
        collections=len(durations) + others,
        export_seconds=iter(durations).__next__,
        latency=way,
        rates=RATES,
        count_refused=True,
    )


def client_of(box: Sandbox) -> Flipsnack:
    return Flipsnack(box.api_key, box.api_secret, transport=box.transport())


@asynccontextmanager
async def harvesting(flipsnack: Flipsnack, hashes: Sequence[str]) -> AsyncIterator[None]:
    """Harvest inside the block, from a while before it."""

    async def harvest() -> None:
        async with flipsnack.harvest(hashes) as rows:
            async for row in rows:
                if row.error is not None:
                    raise row.error
        raise RuntimeError("the harvest ended before the exports did")

    async with anyio.create_task_group() as tasks:
        if hashes:
            tasks.start_soon(harvest)
            await anyio.sleep(LEAD)
        yield
        tasks.cancel_scope.cancel()


async def export(way: Way, durations: Sequence[float], latency: float, others: int) -> Run:
    """Save packages, beside a harvest of so many *others* if there are any."""
    box = sandbox(durations, latency, others)
    exported, rest = box.hashes[: len(durations)], box.hashes[len(durations) :]
    with tempfile.TemporaryDirectory() as folder:
        async with client_of(box) as flipsnack, harvesting(flipsnack, rest):
            began = anyio.current_time()
            await way(flipsnack, box, exported, Path(folder))
            ended = anyio.current_time()
        if len(os.listdir(folder)) != len(durations):
            raise RuntimeError("not every package was saved")
    calls = [call for call in box.ledger if began <= call.at <= ended]
    asked = sum(call.action == "collection.downloadHTML" for call in calls)
    return Run(
        calls=asked / len(durations),
        refused=sum(call.code in (31, 32) for call in calls),
        seconds=ended - began,
        best=best(durations, latency, A_FIFTH if others else RATES),
        harvested=60 * (len(calls) - asked) / (ended - began),
    )


async def harvest_alone(others: int, latency: float, seconds: float) -> float:
    """Say how many calls a minute a harvest makes in the same seconds, if nothing is exported."""
    box = sandbox((), latency, others)
    async with client_of(box) as flipsnack, harvesting(flipsnack, box.hashes):
        began = anyio.current_time()
        await anyio.sleep(seconds)
    return 60 * sum(began <= call.at for call in box.ledger) / seconds


@contextmanager
def without_threads() -> Iterator[None]:
    """Let what blocks run on the loop: a virtual clock would jump while it waits for a thread."""

    async def on_the_loop(function: Callable[..., T], *args: object) -> T:
        return function(*args)

    with patch.object(_blocking, "off_the_loop", on_the_loop):
        yield


def virtually(measure: Callable[..., Awaitable[T]], *args: object) -> T:
    clock = {"clock": MockClock(autojump_threshold=0)}
    with without_threads():
        return anyio.run(measure, *args, backend="trio", backend_options=clock)


WAYS: dict[str, Way] = {"ours": ours, "every 3 s": loop}


def await_them(draws: Sequence[Sequence[float]], way: float) -> None:
    packages = len(draws[0])
    print(
        f"{packages} packages that take 10 to 90 s, {2 * way:g} s of latency a call, "
        f"means of {len(draws)} draws in virtual time"
    )
    names = f"{'calls each':>11} {'makespan s':>11} {'to best':>8} {'worst':>6} {'refused':>8}"
    for others in (0, 600 + 40 * packages):
        print(f"\n{'beside a harvest' if others else 'alone':<16} {names}", end="")
        print(f" {'pace':>6}" if others else "")
        for name, measure in WAYS.items():
            runs = [virtually(export, measure, draw, way, others) for draw in draws]
            pace = ""
            if others:
                shares = [
                    run.harvested / virtually(harvest_alone, others, way, run.seconds)
                    for run in runs
                ]
                pace = f" {statistics.mean(shares):>6.2f}"
            print(
                f"{name:<16} {statistics.mean(run.calls for run in runs):>11.2f} "
                f"{statistics.mean(run.seconds for run in runs):>11.1f} "
                f"{statistics.mean(run.ratio for run in runs):>8.3f} "
                f"{max(run.ratio for run in runs):>6.3f} "
                f"{sum(run.refused for run in runs):>8}{pace}"
            )
        rates = A_FIFTH if others else RATES
        schedules = [best(draw, way, rates) for draw in draws]
        proved = sum(
            seconds <= least(draw, way, rates) + 1e-6
            for seconds, draw in zip(schedules, draws, strict=True)
        )
        print(
            f"{'best':<16} {2:>11.2f} {statistics.mean(schedules):>11.1f} {1:>8.3f} "
            f"{1:>6.3f} {0:>8}   no schedule is shorter in {proved} of {len(draws)}"
        )


@attrs.frozen
class Served:
    """Where a sandbox is, and what it takes to call it."""

    url: str
    api_key: str
    api_secret: str
    collection_hash: str

    def client(self) -> Flipsnack:
        return Flipsnack(self.api_key, self.api_secret, api_url=self.url)


def serve(tell: Connection, sizes: Sequence[int]) -> None:
    """Serve a sandbox for each size of a package, until this process is ended."""

    async def serve_them() -> None:
        boxes = [Sandbox(collections=1, export_seconds=0, package_size=size) for size in sizes]
        async with boxes[0].serve() as first, boxes[1].serve() as second:
            for url, box in zip((first, second), boxes, strict=True):
                tell.send(Served(url, box.api_key, box.api_secret, box.hashes[0]))
            await anyio.sleep_forever()

    anyio.run(serve_them)


async def saved(tiny: Served, large: Served, target: str) -> Result:
    async with tiny.client() as flipsnack:
        await flipsnack.collections.save_package(tiny.collection_hash, f"{target}.tiny")
    async with large.client() as flipsnack:
        await flipsnack.collections.download_html(large.collection_hash)
        save = flipsnack.collections.save_package
        return await watch("save_package", "x", lambda: save(large.collection_hash, target))


async def streamed(tiny: Served, large: Served, target: str) -> Result:
    async def fetch(flipsnack: Flipsnack, served: Served, path: str) -> None:
        package = await flipsnack.collections.download_html(served.collection_hash)
        async with client.stream("GET", package.resource_url or "") as answer:
            answer.raise_for_status()
            with open(path, "wb") as file:  # noqa: ASYNC230  as one does with httpx
                async for chunk in answer.aiter_bytes():
                    file.write(chunk)

    async with httpx.AsyncClient() as client:
        async with tiny.client() as flipsnack:
            await fetch(flipsnack, tiny, f"{target}.tiny")
        async with large.client() as flipsnack:
            await flipsnack.collections.download_html(large.collection_hash)
            return await watch("httpx", "x", lambda: fetch(flipsnack, large, target))


async def make_package(served: Served) -> None:
    """Let the sandbox make its package, of which only a byte is fetched."""
    async with served.client() as flipsnack, httpx.AsyncClient(timeout=120) as client:
        package = await flipsnack.collections.download_html(served.collection_hash)
        await client.get(package.resource_url or "", headers={"Range": "bytes=0-0"})


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compare(size: int, directory: str) -> list[Result]:
    here, there = spawning.Pipe()
    server = spawning.Process(target=serve, args=(there, (TINY, size)), daemon=True)
    server.start()
    try:
        tiny, large = here.recv(), here.recv()
        anyio.run(make_package, large)
        results, digests = [], set[str]()
        for number, measure in enumerate((saved, streamed, saved, streamed)):
            path = Path(directory) / f"{number}.zip"
            results.append(in_a_process_of_its_own(measure, tiny, large, str(path)))
            if path.stat().st_size != size:
                raise RuntimeError(f"{results[-1].what}: {path.stat().st_size} bytes")
            digests.add(digest(path))
            path.unlink()
    finally:
        server.terminate()
        server.join()
    if len(digests) > 1:
        raise RuntimeError("the downloads differ")
    longest = max(result.seconds for result in results)
    return [*results, in_a_process_of_its_own(idle, longest)]


def fetch_one(megabytes: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        results = compare(megabytes * 10**6, directory)
    print(
        f"\nPython {platform.python_version()}, httpx {httpx.__version__}, asyncio, "
        f"{os.cpu_count()} CPUs; a package of {megabytes} MB from the sandbox on loopback, "
        f"a heartbeat of {1000 * BEAT:g} ms"
    )
    print(
        f"{'':<12} {'memory grew MB':>14} {'longest stall ms':>16} "
        f"{'99.9 % below ms':>15} {'beats':>6} {'took s':>7} {'MB/s':>5}"
    )
    for result in results:
        speed = f"{megabytes / result.seconds:.0f}" if result.file else ""
        print(
            f"{result.what:<12} {result.grown / 1e6:>14.1f} "
            f"{1000 * max(result.stalls):>16.1f} {1000 * result.at(0.999):>15.1f} "
            f"{len(result.stalls):>6} {result.seconds:>7.2f} {speed:>5}"
        )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    arguments.add_argument("--packages", type=int, default=100)
    arguments.add_argument("--draws", type=int, default=5)
    arguments.add_argument("--latency", type=float, default=0.4, help="of a call and its answer")
    arguments.add_argument("--size", type=int, default=1000, metavar="MB", help="0 fetches none")
    given = arguments.parse_args()
    if given.packages < 1:
        arguments.error("--packages: at least 1")

    draws = []
    for seed in range(given.draws):
        chance = random.Random(seed)
        draws.append([chance.uniform(10, 90) for _ in range(given.packages)])
    random.seed(1)
    if draws:
        await_them(draws, given.latency / 2)
    if given.size:
        fetch_one(given.size)


if __name__ == "__main__":
    main()
