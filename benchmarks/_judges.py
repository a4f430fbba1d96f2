"""
A server that counts calls when they arrive, the ways to it, and a clock that waits for nobody.

Knows nothing of any limiter. Seconds are the event loop's.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from math import floor, log
from typing import Any, Final, Protocol, TypeAlias, TypeVar, TypeVarTuple, Unpack

import anyio
import attrs

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

LIMITS: Final = ((5, 1.0), (60, 60.0))
# The peers' sums of floats aren't held against them.
ROUNDING: Final = 1e-6

# Send a call and hear the answer: the period of the window that was full, None if none was.
Exchange: TypeAlias = Callable[[], Awaitable[float | None]]


class VirtualLoop(asyncio.SelectorEventLoop):
    """
    Jump to the next timer where nothing else is left to do.

    looptime does so too, after 42 empty rounds: 280 microseconds a jump, in
    which the CPU time of a limiter would drown.
    """

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self._now = start
        self._select: Callable[[None], list[Any]] = self._selector.select
        self._selector.select = self._jump

    _selector: Any

    def time(self) -> float:
        return self._now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run it here: the clock wouldn't wait for a thread."""
        future: asyncio.Future[T] = self.create_future()
        future.set_result(func(*args))
        return future

    def _jump(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            return self._select(None)
        # Clocks that stand still make some limiters spin.
        self._now += max(timeout, 1e-6)
        return []


def virtually(main: Callable[[], Awaitable[T]], start: float = 0.0) -> T:
    return anyio.run(main, backend_options={"loop_factory": lambda: VirtualLoop(start)})


class Window(Protocol):
    """Count the calls of one rate."""

    def is_full(self, now: float) -> bool: ...
    def count(self, now: float) -> None: ...


class SlidingLog:
    """Allow *limit* calls in any window."""

    def __init__(self, limit: int, per: float, chance: random.Random) -> None:
        self._limit, self._per = limit, per
        self._calls: deque[float] = deque()

    def is_full(self, now: float) -> bool:
        while self._calls and self._calls[0] <= now - self._per + ROUNDING:
            self._calls.popleft()
        return len(self._calls) >= self._limit

    def count(self, now: float) -> None:
        self._calls.append(now)


class Calendar:
    """Allow *limit* calls in each second or minute of a clock that isn't ours."""

    def __init__(self, limit: int, per: float, chance: random.Random) -> None:
        self._limit, self._per = limit, per
        self._offset = chance.uniform(0, per)
        self._window = self._calls = 0

    def is_full(self, now: float) -> bool:
        window = floor((now + self._offset + ROUNDING) / self._per)
        if window != self._window:
            self._window, self._calls = window, 0
        return self._calls >= self._limit

    def count(self, now: float) -> None:
        self._calls += 1


class FirstCall:
    """Allow *limit* calls in a window that a call opens where none is open."""

    def __init__(self, limit: int, per: float, chance: random.Random) -> None:
        self._limit, self._per = limit, per
        self._ends, self._calls = 0.0, 0

    def is_full(self, now: float) -> bool:
        if now + ROUNDING >= self._ends:
            self._ends, self._calls = now + self._per, 0
        return self._calls >= self._limit

    def count(self, now: float) -> None:
        self._calls += 1


class Refilling:
    """Keep a bucket of *limit* tokens that is filled evenly."""

    def __init__(self, limit: int, per: float, chance: random.Random) -> None:
        self._limit, self._per = limit, per
        self._tokens, self._at = float(limit), 0.0

    def is_full(self, now: float) -> bool:
        filled = self._tokens + (now - self._at) * self._limit / self._per
        self._tokens, self._at = min(self._limit, filled), now
        return self._tokens < 1 - ROUNDING

    def count(self, now: float) -> None:
        self._tokens -= 1


KINDS: Final[dict[str, Callable[[int, float, random.Random], Window]]] = {
    "sliding": SlidingLog,
    "calendar": Calendar,
    "opened": FirstCall,
    "bucket": Refilling,
}


class Judge:
    """Refuse calls above either rate, in windows of one kind."""

    def __init__(self, kind: str, chance: random.Random, *, count_refused: bool = False) -> None:
        self._windows = [(per, KINDS[kind](limit, per, chance)) for limit, per in LIMITS]
        self._count_refused = count_refused
        self.refused = 0

    def refuses(self, now: float) -> float | None:
        """Count a call that arrives; return the period of the longest window that is full."""
        full = [per for per, window in self._windows if window.is_full(now)]
        if not full or self._count_refused:
            for _, window in self._windows:
                window.count(now)
        self.refused += bool(full)
        return max(full, default=None)


@attrs.frozen
class Path:
    """The seconds to the server and back; *setup* is what the first connection takes."""

    there: Callable[[random.Random], float]
    back: Callable[[random.Random], float]
    setup: float = 0.0


def jitter(chance: random.Random) -> float:
    """Draw from 0.05 to 0.25 s: lognormal, median 0.09, the hundredth slowest 0.25."""
    return chance.lognormvariate(log(0.09), 0.44)


PATHS: Final = {
    "zero": Path(lambda _: 0.0, lambda _: 0.0),
    "jitter": Path(jitter, jitter),
    "slow start": Path(lambda _: 0.05, lambda _: 0.05, setup=0.3),
    "fixed": Path(lambda _: 0.1, lambda _: 0.1),
    "slow answers": Path(jitter, lambda chance: chance.uniform(2.0, 12.0)),
}


class Server:
    """Stand at the end of a path."""

    def __init__(self, path: Path, judge: Judge, chance: random.Random) -> None:
        self._path, self._judge, self._chance = path, judge, chance
        self._connected: float | None = None

    async def exchange(self) -> float | None:
        now = anyio.current_time()
        if self._connected is None:
            self._connected = now + self._path.setup
        await anyio.sleep(max(0.0, self._connected - now) + self._path.there(self._chance))
        refused = self._judge.refuses(anyio.current_time())
        await anyio.sleep(self._path.back(self._chance))
        return refused
