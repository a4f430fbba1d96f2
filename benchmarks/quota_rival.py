"""
Show what a quota gets out of a key that somebody else uses too.

    python benchmarks/quota_rival.py [--minutes 60] [--window sliding] [--free-refusals]

In virtual time, on trio's clock: 60 workers call through one `Quota` of 5 a
second and 60 a minute, with 0 to 0.25 s of jitter each way, beside a rival
that started ten minutes earlier and never retries. The server counts both at
arrival, refused calls too unless --free-refusals. "Left" is what the rival's
calls leave of 60 a minute; "used" is our share of that. A last table shows
the minute in which the full pace is back after the rival has stopped.
"""

from __future__ import annotations

import argparse
import random
from collections import deque
from collections.abc import Callable, Iterator

import anyio
import attrs
from trio.testing import MockClock

from flipsnack_async import Quota, Rate

RATES = (Rate(5, per=1.0), Rate(60, per=60.0))
HEAD_START = 600.0


class Server:
    """Count calls at arrival, in windows of one kind, whoever makes them."""

    def __init__(self, window: str, *, count_refused: bool) -> None:
        self._window = window
        self._count_refused = count_refused
        self._arrivals: list[deque[float]] = [deque() for _ in RATES]

    def refuses(self, now: float) -> float | None:
        """Count a call; return the period of the rate that is exceeded, if one is."""
        exceeded = None
        for rate, arrivals in zip(RATES, self._arrivals, strict=True):
            begins = now - rate.per if self._window == "sliding" else now // rate.per * rate.per
            while arrivals and (
                arrivals[0] <= begins if self._window == "sliding" else arrivals[0] < begins
            ):
                arrivals.popleft()
            if exceeded is None and len(arrivals) >= rate.limit:
                exceeded = rate.per
        if exceeded is None or self._count_refused:
            for arrivals in self._arrivals:
                arrivals.append(now)
        return exceeded


@attrs.define
class Ours:
    """Note when our calls arrived, and whether they were refused."""

    arrived: list[float] = attrs.field(factory=list)
    refused: list[float] = attrs.field(factory=list)


async def work(quota: Quota, server: Server, ours: Ours) -> None:
    while True:
        async with quota.permit() as permit:
            await anyio.sleep(random.uniform(0, 0.25))
            now = anyio.current_time()
            period = server.refuses(now)
            (ours.arrived if period is None else ours.refused).append(now)
            permit.sent()
            await anyio.sleep(random.uniform(0, 0.25))
            permit.answered() if period is None else permit.refused(per=period)
        if period is not None:
            await anyio.sleep(random.uniform(1, 2))


async def compete(
    pauses: Iterator[float], server: Server, until: float, let_in: list[float]
) -> None:
    """Call after each of these pauses, and note when calls were let in."""
    for pause in pauses:
        await anyio.sleep(pause)
        now = anyio.current_time()
        if now >= until:
            break
        if server.refuses(now) is None:
            let_in.append(now)


def every(seconds: float) -> Callable[[], Iterator[float]]:
    def pauses() -> Iterator[float]:
        while True:
            yield seconds

    return pauses


def poisson(a_minute: float) -> Callable[[], Iterator[float]]:
    def pauses() -> Iterator[float]:
        while True:
            yield random.expovariate(a_minute / 60)

    return pauses


RIVALS: dict[str, Callable[[], Iterator[float]]] = {
    "nobody": lambda: iter(()),
    "every 2 s": every(2.0),
    "every 6 s": every(6.0),
    "Poisson, 30 a minute": poisson(30),
    "takes all, every 0.2 s": every(0.2),
}


async def share(
    rival: Callable[[], Iterator[float]], server: Server, seconds: float, after: float = 0.0
) -> tuple[Ours, list[float], Quota]:
    """Call for so many seconds beside a rival, and for *after* more when he has stopped."""
    ours, theirs = Ours(), list[float]()
    quota = Quota(*RATES)
    began = anyio.current_time()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(compete, rival(), server, began + HEAD_START + seconds, theirs)
        await anyio.sleep(HEAD_START)
        for _ in range(60):
            tasks.start_soon(work, quota, server, ours)
        await anyio.sleep(seconds + after)
        tasks.cancel_scope.cancel()
    start = began + HEAD_START
    return (
        Ours([t - start for t in ours.arrived], [t - start for t in ours.refused]),
        [t - start for t in theirs if t >= start],
        quota,
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    arguments.add_argument("--minutes", type=int, default=60)
    arguments.add_argument("--window", choices=["sliding", "fixed"], default="sliding")
    arguments.add_argument("--free-refusals", action="store_true")
    given = arguments.parse_args()
    random.seed(1)

    def run(rival: str, after: float = 0.0) -> tuple[Ours, list[float], Quota]:
        server = Server(given.window, count_refused=not given.free_refusals)
        clock = {"clock": MockClock(autojump_threshold=0)}
        return anyio.run(
            share, RIVALS[rival], server, 60.0 * given.minutes, after,
            backend="trio", backend_options=clock,
        )  # fmt: skip

    print(
        f"{given.minutes} virtual minutes, {given.window} windows, refused calls "
        f"{'are free' if given.free_refusals else 'fill them too'}; a minute's calls"
    )
    names = ("his", "left", "ours", "used")
    print(f"{'rival':<24} " + " ".join(f"{n:>6}" for n in names), f"{'refused':>8} {'of ours':>8}")
    for rival in RIVALS:
        ours, theirs, _ = run(rival)
        his, mine = len(theirs) / given.minutes, len(ours.arrived) / given.minutes
        refused = len(ours.refused) / given.minutes
        left = 60 - his
        used = f"{mine / left:.3f}" if left >= 1 else "-"
        part = f"{len(ours.refused) / max(1, len(ours.refused) + len(ours.arrived)):.2%}"
        print(
            f"{rival:<24} {his:>6.1f} {left:>6.1f} {mine:>6.1f} {used:>6} {refused:>8.2f} {part:>8}"
        )

    print(f"\n{'rival stops after':<24} {'full pace again in minute':>26}")
    for rival in ("every 2 s", "takes all, every 0.2 s"):
        ours, _, _ = run(rival, after=1800)
        minutes = [
            sum(60 * (given.minutes + n) <= t < 60 * (given.minutes + n + 1) for t in ours.arrived)
            for n in range(30)
        ]
        back = next((n + 1 for n, calls in enumerate(minutes) if calls >= 57), None)
        print(f"{rival:<24} {back or 'never':>26}")


if __name__ == "__main__":
    main()
