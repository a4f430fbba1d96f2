"""
Compare `Quota` with other limiters before a server that counts calls when they arrive.

    python benchmarks/quota_vs_peers.py [--only NAME] [--seeds 3] [--hours 24]

The same 600 calls by 60 workers under 5 a second and 60 a minute, in virtual
time on asyncio: seconds and refusals are exact on any machine. limits and
throttled-py read `time`, so they are given the event loop's. A refused call
is made again after 1 s or, of the minute's window, 5 s, and up to a fifth
more. Each way takes a call 0.05 to 0.25 s ("jitter"), nothing ("zero"), or
0.05 s and 0.3 s more to connect ("slow start").

Refused: the median over the seeds, by kind of window: any ("sliding"), the
server's clock's ("calendar"), the one that a call opens ("opened"), a bucket
that is refilled evenly. "Filled" is the sliding one if refused calls fill it,
too. "Worst" is over seeds, windows and the three paths. "Never" is not
within 40 minutes. Pace: 551 s, the least possible, over the time taken, in
the sliding window, with jitter and with 0.1 s each way.

CPU: microseconds of this process for an admission while the other workers
wait, less those of the same loop without a limiter; the least of five runs.
Bytes: what one of 10,000 waiting tasks holds, itself included. Wait: the
longest over the mean.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import platform
import random
import statistics
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from itertools import pairwise
from math import inf

import anyio
import attrs
from _judges import KINDS, LIMITS, Exchange, Judge, virtually
from _peers import (
    CALLS,
    NOBODY,
    OURS,
    PARKED,
    PEERS,
    WORKERS,
    Gate,
    Peer,
    Result,
    bytes_per_waiter,
    cpu_per_admission,
    new_quota,
    run,
)

from flipsnack_async import QuotaWaitError


def bare_future() -> Gate:
    async def gate(exchange: Exchange) -> None:
        await asyncio.get_running_loop().create_future()

    return gate


def cpu_while_waiting(number: int, admissions: int = 1000, rounds: int = 5) -> float:
    """Measure from admission to admission, so that neither the crowd's coming nor going counts."""

    async def main() -> float:
        quota = new_quota()
        admitted = 0
        marks: list[float] = []

        async def work() -> None:
            nonlocal admitted
            while len(marks) <= rounds:
                async with quota.permit() as permit:
                    permit.answered()
                admitted += 1
                if admitted % admissions == 0:
                    marks.append(time.process_time())
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            for _ in range(number):
                tasks.start_soon(work)
        took = [after - before for before, after in pairwise(marks)]
        return min(took) / admissions * 1e6

    gc.collect()
    return virtually(main)


def doomed_calls(number: int, calls: int = 3000) -> tuple[float, float]:
    """Measure refusing to wait: while nothing changes, and right after each admission."""

    async def main() -> tuple[float, float]:
        quota = new_quota()

        async def work() -> None:
            while True:
                async with quota.permit() as permit:
                    permit.answered()

        async def doomed(times: int) -> float:
            began = time.process_time()
            for _ in range(times):
                try:
                    async with quota.permit(max_wait=1):
                        raise AssertionError("admitted before those who waited")
                except QuotaWaitError:
                    pass
            return time.process_time() - began

        async with anyio.create_task_group() as tasks:
            for _ in range(number):
                tasks.start_soon(work)
            await anyio.sleep(100.5)
            unchanged = await doomed(calls) / calls
            changed = 0.0
            for _ in range(calls // 10):
                await anyio.sleep(60.0)
                changed += await doomed(1) / (calls // 10)
            tasks.cancel_scope.cancel()
        return unchanged * 1e6, changed * 1e6

    return virtually(main)


@attrs.define
class LongRun:
    """Count what came of a day's calls, of which many were cancelled."""

    hours: float
    arrived: int = 0
    cancelled_waiting: int = 0
    cancelled_in_flight: int = 0
    refused: dict[str, int] = attrs.field(factory=dict)


def long_run(hours: float, number: int = PARKED, seed: int = 1) -> LongRun:
    chance = random.Random(seed)
    told = LongRun(hours)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        quota = new_quota()
        judges = {kind: Judge(kind, chance) for kind in KINDS}

        def arrive() -> None:
            told.arrived += 1
            for judge in judges.values():
                judge.refuses(loop.time())

        async def one() -> None:
            with anyio.CancelScope() as scope:
                if impatient := chance.random() < 0.3:
                    giving_up = loop.call_later(chance.uniform(0, number / 2), scope.cancel)
                sent = False
                async with quota.permit() as permit:
                    sent = True
                    if impatient:
                        giving_up.cancel()
                    there, back = chance.uniform(0, 0.25), chance.uniform(0, 0.25)
                    # It arrives even if nobody waits for it any more.
                    loop.call_later(there, arrive)
                    permit.sent()
                    if chance.random() < 0.05:
                        loop.call_later(chance.uniform(0, there + back), scope.cancel)
                    await anyio.sleep(there + back)
                    permit.answered()
            if scope.cancelled_caught:
                told.cancelled_in_flight += sent
                told.cancelled_waiting += not sent

        async def work() -> None:
            while True:
                await one()

        async with anyio.create_task_group() as tasks:
            for _ in range(number):
                tasks.start_soon(work)
            await anyio.sleep(hours * 3600)
            told.refused = {kind: judge.refused for kind, judge in judges.items()}
            tasks.cancel_scope.cancel()

    virtually(main)
    return told


@attrs.frozen
class Standing:
    """What a peer's runs came to."""

    windows: list[float]
    filled: list[Result]
    worst: int
    jitter: list[Result]
    fixed: list[Result]


def compare(peer: Peer, seeds: int, pool: Executor) -> Standing:
    runs = {
        (kind, path, seed): pool.submit(run, peer, kind, path, seed)
        for kind in KINDS
        for path in ("zero", "jitter", "slow start")
        for seed in range(seeds)
    }
    filled = [
        pool.submit(run, peer, "sliding", "jitter", seed, count_refused=True)
        for seed in range(seeds)
    ]
    fixed = [pool.submit(run, peer, "sliding", "fixed", seed) for seed in range(seeds)]
    return Standing(
        windows=[
            statistics.median(runs[kind, "jitter", seed].result().refused for seed in range(seeds))
            for kind in KINDS
        ],
        filled=[done.result() for done in filled],
        worst=max(done.result().refused for done in runs.values()),
        jitter=[runs["sliding", "jitter", seed].result() for seed in range(seeds)],
        fixed=[done.result() for done in fixed],
    )


def row(peer: Peer, standing: Standing, floor: float) -> str:
    filled = statistics.median(r.refused if r.seconds < inf else inf for r in standing.filled)
    counts = [*standing.windows, filled, standing.worst]
    paces = [statistics.median(r.pace for r in runs) for runs in (standing.jitter, standing.fixed)]
    figures = [
        *[f"{'never' if count == inf else format(count, '.0f'):>8}" for count in counts],
        *[f"{pace:>7.3f}" for pace in paces],
        f"{cpu_per_admission(peer) - floor:>7.1f}",
    ]
    if peer.queue:
        unfairness = statistics.median(r.unfairness for r in standing.jitter)
        figures += [f"{bytes_per_waiter(peer.gate):>6.0f}", f"{unfairness:>5.2f}"]
    else:
        figures += [f"{'-':>6}", f"{'-':>5}"]
    return f"{peer.name:<28} " + " ".join(figures)


def tell(what: str, figure: float, aim: str = "", digits: int = 1) -> None:
    print(f"{what:<52} {figure:>10,.{digits}f}   {aim}", flush=True)


def show_quota(hours: float) -> None:
    print(f"{'Quota itself':<52} {'figure':>10}   aim")
    for number in (10, 60, 1000, 10_000, 100_000):
        aim = "10 or less" if number == 60 else "no more" if number > 60 else ""
        tell(f"CPU an admission, {number:,} waiting, us", cpu_while_waiting(number), aim)
    tell("bytes a waiting task", bytes_per_waiter(OURS.gate), "1,400 or less", 0)
    tell("bytes of a task that waits on a bare future", bytes_per_waiter(bare_future), digits=0)
    unchanged, changed = doomed_calls(PARKED)
    tell("a doomed call, 10,000 waiting, us", unchanged, "under 50")
    tell("the first doomed call after an admission, us", changed)
    late = run(OURS, "sliding", "slow answers", 0)
    tell("pace, answers of 2 to 12 s", late.pace, "0.85 or more", 3)
    tell("refused, answers of 2 to 12 s", late.refused, "0", 0)
    if hours:
        done = long_run(hours)
        print(
            f"\n{hours:g} virtual hours, {PARKED:,} tasks: {done.arrived:,} calls arrived, "
            f"{done.cancelled_waiting:,} cancelled waiting, {done.cancelled_in_flight:,} in flight"
        )
        for kind, refused in done.refused.items():
            tell(f"refused, {kind}", refused, "0", 0)
        tell("calls a minute", done.arrived / hours / 60, "59.5 or more", 2)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    arguments.add_argument("--only", metavar="NAME", default="", help="peers of this name")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--hours", type=float, default=24.0, help="of the long run; 0 for none")
    given = arguments.parse_args()
    here = [peer for peer in PEERS if given.only in peer.name and peer.version]

    print(
        f"Python {platform.python_version()}, asyncio, virtual time; {CALLS} calls, "
        f"{WORKERS} workers, {', '.join(f'{n}/{per:g}s' for n, per in LIMITS)}; "
        f"{given.seeds} seed{'s' * (given.seeds > 1)}\n"
        + ", ".join(peer.version for peer in here if peer.package)
    )
    print(f"{'':<28} {'refused of 600':>17} {'':>35}  {'pace':>7} {'':>7} {'CPU':>7} {'waiter':>6}")
    heads = [f"{head:>8}" for head in (*KINDS, "filled", "worst")]
    heads += [f"{'jitter':>7}", f"{'0.2 s':>7}", f"{'us':>7}", f"{'bytes':>6}", f"{'wait':>5}"]
    print(f"{'':<28} " + " ".join(heads))
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        standings = [compare(peer, given.seeds, pool) for peer in here]
    # One at a time: the other core's work would be felt.
    floor = cpu_per_admission(NOBODY)
    for peer, standing in zip(here, standings, strict=True):
        print(row(peer, standing, floor), flush=True)
    print()
    show_quota(given.hours)


if __name__ == "__main__":
    main()
