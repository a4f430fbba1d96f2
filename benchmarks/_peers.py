"""
The limiters to compare, each set up for 5 a second and 60 a minute as its manual would have it.

They come by name, so that whoever has only some of them compares those. Below
them is how each is measured.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.metadata
import multiprocessing
import random
import statistics
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ProcessPoolExecutor
from math import inf
from typing import Any, Final, TypeAlias

import anyio
import attrs
from _judges import LIMITS, PATHS, Exchange, Judge, Server, virtually

from flipsnack_async import Quota, Rate

CALLS, WORKERS = 600, 60
LEAST = 551.0
NEVER = 40 * 60.0
PARKED = 10_000

# Wait until a call may be sent, and make it.
Gate: TypeAlias = Callable[[Exchange], Coroutine[Any, Any, float | None]]
# Do so many things, by so many workers.
Crew: TypeAlias = Callable[[Callable[[], Awaitable[object]], int, int], Awaitable[None]]


class LoopClock:
    """Stand in for the module `time` where a peer reads it and has no other door for a clock."""

    @staticmethod
    def time() -> float:
        return asyncio.get_running_loop().time()

    monotonic = time


async def workers(one: Callable[[], Awaitable[object]], times: int, number: int) -> None:
    left = iter(range(times))

    async def work() -> None:
        for _ in left:
            await one()

    async with anyio.create_task_group() as tasks:
        for _ in range(number):
            tasks.start_soon(work)


def no_limiter() -> Gate:
    async def gate(exchange: Exchange) -> float | None:
        return await exchange()

    return gate


def new_quota() -> Quota:
    return Quota(*(Rate(limit, per=per) for limit, per in LIMITS))


def ours() -> Gate:
    quota = new_quota()

    async def gate(exchange: Exchange) -> float | None:
        async with quota.permit() as permit:
            permit.sent()
            refused = await exchange()
            if refused is None:
                permit.answered()
            else:
                permit.refused(per=refused)
        return refused

    return gate


def aiolimiter() -> Gate:
    limiter = module("aiolimiter").AsyncLimiter
    (second, minute) = (limiter(limit, per) for limit, per in LIMITS)

    async def gate(exchange: Exchange) -> float | None:
        async with minute, second:
            return await exchange()

    return gate


async def aiometer(one: Callable[[], Awaitable[object]], times: int, number: int) -> None:
    async def do(_: int) -> None:
        await one()

    await module("aiometer").run_on_each(do, range(times), max_at_once=number, max_per_second=1)


def pyrate_limiter() -> Gate:
    pyrate = module("pyrate_limiter")
    bucket = pyrate.InMemoryBucket([pyrate.Rate(limit, int(1000 * per)) for limit, per in LIMITS])
    bucket.now = lambda: int(1000 * LoopClock.time())
    # Leaking is a thread's work, and these buckets stay small.
    limiter = pyrate.Limiter(pyrate.SingleBucketFactory(bucket, schedule_leak=False))

    async def gate(exchange: Exchange) -> float | None:
        await limiter.try_acquire_async("key")
        return await exchange()

    return gate


def limits() -> Gate:
    module("limits.aio.storage.memory").time = LoopClock
    limiter = module("limits.aio.strategies").MovingWindowRateLimiter(
        module("limits.aio.storage").MemoryStorage()
    )
    items = [
        module("limits").RateLimitItemPerMinute(60),
        module("limits").RateLimitItemPerSecond(5),
    ]

    async def gate(exchange: Exchange) -> float | None:
        for item in items:
            while not await limiter.hit(item, "key"):
                free_at = (await limiter.get_window_stats(item, "key")).reset_time
                await asyncio.sleep(max(0.01, free_at - LoopClock.time()))
        return await exchange()

    return gate


def throttled() -> Gate:
    module("throttled.utils").time = LoopClock
    package = module("throttled.asyncio")
    store = package.MemoryStore()
    limiters = [
        package.Throttled(
            key=name, using="sliding_window", quota=quota, store=store, timeout=1_000_000
        )
        for name, quota in (("minute", package.per_min(60)), ("second", package.per_sec(5)))
    ]

    async def gate(exchange: Exchange) -> float | None:
        for limiter in limiters:
            await limiter.limit()
        return await exchange()

    return gate


def sleep() -> Gate:
    turn = asyncio.Lock()

    async def gate(exchange: Exchange) -> float | None:
        async with turn:
            await asyncio.sleep(1.0)
        return await exchange()

    return gate


def tenacity() -> Gate:
    package = module("tenacity")
    retrying = package.AsyncRetrying(
        retry=package.retry_if_result(lambda refused: refused is not None),
        wait=package.wait_exponential_jitter(initial=1, max=60),
    )

    async def gate(exchange: Exchange) -> float | None:
        await retrying(exchange)
        return None

    return gate


@attrs.frozen
class Peer:
    """Name a limiter, and say how it is used; without a *queue* there is no waiting to measure."""

    name: str
    package: str
    gate: Callable[[], Gate]
    crew: Crew = workers
    queue: bool = True

    @property
    def version(self) -> str:
        """Say which version is installed, if any is."""
        if not self.package:
            return "of the standard library"
        try:
            return f"{self.package} {importlib.metadata.version(self.package)}"
        except importlib.metadata.PackageNotFoundError:
            return ""


def module(name: str) -> Any:
    return importlib.import_module(name)


OURS: Final = Peer("flipsnack-async, Quota", "flipsnack-async", ours)
NOBODY: Final = Peer("no limiter", "", no_limiter)
PEERS: Final = (
    OURS,
    Peer("aiolimiter, nested", "aiolimiter", aiolimiter),
    Peer("aiometer, 1/s", "aiometer", no_limiter, aiometer, queue=False),
    Peer("pyrate-limiter", "pyrate-limiter", pyrate_limiter),
    Peer("limits, moving window", "limits", limits),
    Peer("throttled-py, sliding window", "throttled-py", throttled),
    Peer("sleep(1) between calls", "", sleep),
    Peer("tenacity alone", "tenacity", tenacity, queue=False),
)


@attrs.frozen
class Result:
    """What one run came to; a run that never ends took infinitely long."""

    refused: int
    seconds: float
    unfairness: float

    @property
    def pace(self) -> float:
        return LEAST / self.seconds


def run(peer: Peer, kind: str, path: str, seed: int, *, count_refused: bool = False) -> Result:
    chance = random.Random(seed)
    random.seed(seed)  # tenacity's jitter

    async def main() -> Result:
        judge = Judge(kind, chance, count_refused=count_refused)
        server = Server(PATHS[path], judge, chance)
        gate = peer.gate()
        waits: list[float] = []

        async def attempt() -> float | None:
            asked = anyio.current_time()

            async def admitted() -> float | None:
                waits.append(anyio.current_time() - asked)
                return await server.exchange()

            return await gate(admitted)

        async def one() -> None:
            while refused := await attempt():  # noqa: ASYNC110  waits for no event, but politely
                await anyio.sleep(min(refused, 5.0) * chance.uniform(1.0, 1.2))

        began = anyio.current_time()
        with anyio.CancelScope() as scope:
            # A deadline of the scope's would be known to the quota.
            asyncio.get_running_loop().call_later(NEVER, scope.cancel)
            await peer.crew(one, CALLS, WORKERS)
        return Result(
            refused=judge.refused,
            seconds=inf if scope.cancelled_caught else anyio.current_time() - began,
            unfairness=max(waits) / (statistics.mean(waits) or inf),
        )

    return virtually(main, start=1000 + chance.uniform(0, 60))


def cpu_per_admission(peer: Peer) -> float:
    async def at_once() -> None:
        pass

    async def main() -> float:
        gate = peer.gate()
        began = time.process_time()
        await peer.crew(lambda: gate(at_once), CALLS, WORKERS)
        return (time.process_time() - began) / CALLS * 1e6

    return min(virtually(main) for _ in range(5))


def bytes_per_waiter(open_gate: Callable[[], Gate]) -> float:
    """Measure it in a process of its own, since what others left behind is used again."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(park, open_gate, 100).result()  # whatever is imported or made only once
        return pool.submit(park, open_gate, PARKED).result()


def park(open_gate: Callable[[], Gate], number: int) -> float:
    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> float:
        gate = open_gate()
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        tasks = [asyncio.create_task(gate(forever)) for _ in range(number)]
        await asyncio.sleep(0.5)
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return taken / number

    return virtually(main)
