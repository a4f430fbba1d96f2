"""
The vendor's two limits, counted as calls arrive.

The documentation gives the limits and not the kind of window, so both usual
kinds are here. A rate of (5, 1.0) reads: five calls in one second.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from ._codes import PER_MINUTE_LIMIT, PER_SECOND_LIMIT, RefusedError

WindowKind = Literal["sliding", "fixed"]


class RateLike(Protocol):
    """Anything that says how many calls it allows, and per how many seconds."""

    @property
    def limit(self) -> int: ...

    @property
    def per(self) -> float: ...


class SlidingWindow:
    """Holds *limit* calls in any *per* seconds, whenever they begin; their end is outside."""

    def __init__(self, limit: int, per: float) -> None:
        self._limit = limit
        self._per = per
        self._arrivals: deque[float] = deque()

    def is_full(self, now: float) -> bool:
        while self._arrivals and self._arrivals[0] + self._per <= now:
            self._arrivals.popleft()
        return len(self._arrivals) >= self._limit

    def add(self, now: float) -> None:
        self._arrivals.append(now)


class FixedWindow:
    """Holds *limit* calls between two multiples of *per* on the loop's clock."""

    def __init__(self, limit: int, per: float) -> None:
        self._limit = limit
        self._per = per
        self._number = 0
        self._count = 0

    def is_full(self, now: float) -> bool:
        self._turn_to(now)
        return self._count >= self._limit

    def add(self, now: float) -> None:
        self._turn_to(now)
        self._count += 1

    def _turn_to(self, now: float) -> None:
        number = int(now // self._per)
        if number != self._number:
            self._number, self._count = number, 0


_WINDOWS: Mapping[WindowKind, type[SlidingWindow | FixedWindow]] = {
    "sliding": SlidingWindow,
    "fixed": FixedWindow,
}


class RateGate:
    """
    Lets calls in while no window is full.

    Of several rates the one with the shortest period answers 31, the others 32;
    a single rate answers 31 up to a period of one second.
    """

    def __init__(
        self,
        rates: Sequence[tuple[int, float] | RateLike],
        *,
        window: WindowKind,
        count_refused: bool,
    ) -> None:
        pairs = sorted(map(_limit_and_per, rates), key=lambda pair: pair[1])
        self._windows = [_WINDOWS[window](limit, per) for limit, per in pairs]
        self._codes = [PER_MINUTE_LIMIT] * len(pairs)
        if len(pairs) > 1 or (pairs and pairs[0][1] <= 1.0):
            self._codes[0] = PER_SECOND_LIMIT
        self._count_refused = count_refused

    def admit(self, now: float) -> None:
        """Count a call that arrives *now*, or refuse it."""
        full = [window.is_full(now) for window in self._windows]
        if self._count_refused or not any(full):
            for window in self._windows:
                window.add(now)
        if any(full):
            raise RefusedError(self._codes[full.index(True)])


def _limit_and_per(rate: tuple[int, float] | RateLike) -> tuple[int, float]:
    return rate if isinstance(rate, tuple) else (rate.limit, rate.per)
