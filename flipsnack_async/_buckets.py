"""
Token buckets that decide when a call may be sent, and know no clock but the times they are told.

`quota` says by which rule, and why it holds.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from math import inf, isfinite
from typing import Final, NamedTuple

import attrs

from .errors import InvalidArgumentError

DRIFT: Final = 2.5e-4
"""By how much every *per* is stretched: enough for a server clock that is 200 ppm slow."""


@attrs.frozen
class Rate:
    """Allow *limit* calls in any window of *per* seconds."""

    limit: int
    per: float = attrs.field(kw_only=True)

    def __attrs_post_init__(self) -> None:
        if type(self.limit) is not int or self.limit < 1:
            raise InvalidArgumentError("limit", "give a whole number of calls, at least 1")
        if not isfinite(self.per) or self.per <= 0:
            raise InvalidArgumentError("per", "give a number of seconds above 0")

    def __str__(self) -> str:
        return f"{self.limit}/{self.per:g}s"

    @classmethod
    def parse(cls, text: str) -> tuple[Rate, ...]:
        """Read rates as they are written on the command line: 5/1s,60/60s."""
        rates = []
        for part in text.split(","):
            found = re.fullmatch(r"\s*([0-9]{1,9})/([0-9]{1,9}(?:\.[0-9]{1,9})?)s\s*", part)
            if found is None:
                raise InvalidArgumentError("rates", "write calls and seconds like 5/1s,60/60s")
            rates.append(cls(int(found[1]), per=float(found[2])))
        return tuple(rates)


class Token:
    """Be what one call holds of every bucket; *end* is when the call ended, inf while it lasts."""

    __slots__ = ("end", "sent_at")

    def __init__(self) -> None:
        self.end: float = inf
        self.sent_at: float = inf


class Forecast(NamedTuple):
    """
    Hold the times of the next calls, for as long as nothing *changes*.

    The last *cycle* of them repeats itself every *period*, since by then each
    token of the slowest rate was used once.
    """

    changes: int
    times: list[float]
    cycle: int
    period: float


_NONE = Forecast(-1, [], 0, 0.0)


class TokenBucket:
    """
    Decide when a call may be sent: a bucket for each rate, taken from all at once.

    A token's *end* only ever moves to the earlier: from unknown to a bound
    to the answer.
    """

    def __init__(self, rates: Sequence[Rate], reach: float | None, linger: float) -> None:
        self._rates = [(rate.limit, rate.per * (1 + DRIFT)) for rate in rates]
        self._horizon = max((per for _, per in self._rates), default=0.0)
        self._reach = reach
        self._linger = linger
        self._withheld = [0] * len(rates)
        self._within_reach: dict[int, list[tuple[int, float]]] = {}  # by how many are spared
        self.lasting: int = 0  # calls whose end is not known
        self._ends: list[float] = []  # the known ends, sorted; the last few still hold tokens
        self._silent: list[Token] = []  # sent, and no sign of life since
        self._changes = 0
        self._forecasts: dict[int, Forecast] = {}  # by how many tokens are spared

    def free_at(self, spare: int = 0) -> float:
        """Say when every bucket has a token beyond *spare*; inf while only an answer can tell."""
        free_at, ends = -inf, self._ends
        for most, per in self._within_reach.get(spare) or self._reachable(spare):
            # A bucket is empty until its limit-th last call ended *per* ago.
            known = most - self.lasting
            if known <= 0:
                return inf
            if known <= len(ends) and ends[-known] + per > free_at:
                free_at = ends[-known] + per
        return free_at

    def _reachable(self, spare: int) -> list[tuple[int, float]]:
        self._within_reach[spare] = rates = [
            (max(1, limit - withheld - spare), per)
            for (limit, per), withheld in zip(self._rates, self._withheld, strict=True)
        ]
        return rates

    def free(self, now: float) -> list[int]:
        """Count each bucket's tokens."""
        return [
            max(0, limit - withheld - out)
            for (limit, _), withheld, out in zip(
                self._rates, self._withheld, self.out(now), strict=True
            )
        ]

    def out(self, now: float) -> list[int]:
        """Count the tokens that calls hold of each bucket."""
        calls = self.lasting + len(self._ends)
        # Summed as in `free_at`, since rounding makes a difference.
        return [
            calls - bisect_right(self._ends, now, key=lambda end: end + per)
            for _, per in self._rates
        ]

    def withhold(self, tokens: Sequence[int]) -> None:
        """Keep so many tokens of each bucket from everybody; one is always left."""
        self._withheld = list(tokens)
        self._within_reach.clear()
        self._changes += 1

    def take(self, now: float) -> Token:
        """Take a token out of every bucket; for when `free_at` has come."""
        stale = bisect_right(self._ends, now - self._horizon)
        if 2 * stale > len(self._ends):
            del self._ends[:stale]
            self._silent = [other for other in self._silent if other.end > now - self._horizon]
        self.lasting += 1
        self._changes += 1
        return Token()

    def sent(self, token: Token, now: float) -> None:
        """Note that the call's last byte has left."""
        if self._reach is not None and token.sent_at == inf:
            token.sent_at = now
            self._silent.append(token)

    def answered(self, token: Token, now: float) -> None:
        """Note that the answer's head is here, which is a sign of life for the calls before it."""
        self.ended(token, now)
        if self._reach is not None:
            for other in self._silent:
                self.ended(other, other.sent_at + self._reach)
            self._silent.clear()

    def abandoned(self, token: Token, now: float) -> None:
        """Note that nobody listens for the answer any more."""
        self.ended(token, now + self._linger)

    def unsent(self, token: Token) -> None:
        """Put the tokens back at once: not one byte of the call left."""
        self._forget(token)
        token.end = -inf  # whatever else is said of it comes too late

    def ended(self, token: Token, end: float) -> None:
        """Note a call's end, unless an earlier one is known."""
        if end < token.end:
            self._forget(token)
            token.end = end
            insort(self._ends, end)

    def ends(self, now: float) -> list[float]:
        """List the ends of the calls that still hold a token, as far as they are known."""
        known = [end for end in self._ends if end + self._horizon > now]
        return [*known, *[now + self._linger] * self.lasting]

    def _forget(self, token: Token) -> None:
        self._changes += 1
        if token.end == inf:
            self.lasting -= 1
            return
        at = bisect_left(self._ends, token.end)
        if at < len(self._ends) and self._ends[at] == token.end:
            del self._ends[at]

    def through_at(self, calls: int, now: float, spare: int = 0) -> float:
        """Say when the last of so many calls could be sent, were each answered at once."""
        if calls <= 0 or not self._rates:
            return now
        if self._forecasts.get(spare, _NONE).changes != self._changes:
            self._forecasts[spare] = self._forecast(now, spare)
        times, cycle, period = self._forecasts[spare][1:]
        if calls > len(times):
            cycles, place = divmod(calls - len(times) - 1, cycle)
            return max(now, times[place - cycle]) + (cycles + 1) * period
        return max(now, times[calls - 1])

    def _forecast(self, now: float, spare: int) -> Forecast:
        rates = self._reachable(spare)
        cycle, period = max(rates, key=lambda rate: (rate[1] / rate[0], rate[0]))
        # Calls that last may be answered any moment.
        ends = sorted([*self._ends, *[now] * self.lasting])
        at, times = now, []
        for _ in range(2 * cycle):
            for most, per in rates:
                if most <= len(ends):
                    at = max(at, ends[-most] + per)
            insort(ends, at)
            times.append(at)
        return Forecast(self._changes, times, cycle, period)
