"""
Keep a key within its rates, as seen by the server, without wasting a call.

The rule
    A rate is a bucket of *limit* tokens. A call takes a token out of every
    bucket, all at once, before it is sent. Each token comes back *per*
    seconds after the call was answered.

Why nobody is refused
    The server counts a call somewhere between its sending and its answer. Of
    any *limit* + 1 calls two used the same token, so the later one was sent
    at least *per* after the earlier was answered, and arrived at least *per*
    after the earlier arrived. So no window of *per* seconds at the server,
    sliding or fixed, holds more than *limit* calls, whatever the latency. A
    limiter that counts when it sends can't promise that: two calls sent a
    second apart may arrive together.

What bends it
    Clocks drift, so *per* is stretched by `DRIFT`. A call that is given up
    may still be on its way, so it counts as answered *linger* seconds after
    we stopped listening. One of which not a byte left gives its tokens back
    at once.

    Slow answers would idle the bucket, since no token comes back before
    them. With a *reach*, a token is back at the latest *reach* + *per* after
    the call's last byte was sent. **Here an assumption is made**: no call
    takes longer than *reach* to arrive. It is made only after a sign of
    life, an answer to any call that came in after that last byte left; a
    dead network keeps its tokens. *linger* is then left for calls whose last
    byte was never written. With ``reach=None`` nothing is assumed, and slow
    answers slow the pace.

`TokenBucket` decides and has no clock; `Quota` waits.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from math import inf, isfinite
from types import TracebackType
from typing import Final

import anyio
import attrs
from anyio.lowlevel import checkpoint_if_cancelled

from .errors import InvalidArgumentError

__all__ = ["Permit", "Quota", "QuotaStatistics", "Rate"]

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


class TokenBucket:
    """
    Decide when a call may be sent: one bucket for each rate, taken from all at once.

    Knows the times it is told and nothing else. A token's *end* only ever
    moves forward in time's favour: from unknown to a guess to the answer,
    whichever comes earliest.
    """

    def __init__(self, rates: Sequence[Rate], reach: float | None, linger: float) -> None:
        self._rates = [(rate.limit, rate.per * (1 + DRIFT)) for rate in rates]
        self._horizon = max((per for _, per in self._rates), default=0.0)
        self._reach = reach
        self._linger = linger
        self._lasting = 0  # calls whose end is not known
        self._ends: list[float] = []  # the known ends, sorted; the last few still hold tokens
        self._silent: list[Token] = []  # sent, and no sign of life since

    def free_at(self) -> float:
        """Say when every bucket has a token; inf while only an answer can tell."""
        free_at = -inf
        for limit, per in self._rates:
            # A bucket is empty until the limit-th last call ended *per* ago.
            known = limit - self._lasting
            if known <= 0:
                return inf
            if known <= len(self._ends):
                free_at = max(free_at, self._ends[-known] + per)
        return free_at

    def free(self, now: float) -> list[int]:
        """Count each bucket's tokens."""
        # Summed as in `free_at`, since rounding makes a difference.
        returned = (
            bisect_right(self._ends, now, key=lambda end: end + per) for _, per in self._rates
        )
        held = [self._lasting + len(self._ends) - back for back in returned]
        return [limit - out for (limit, _), out in zip(self._rates, held, strict=True)]

    def take(self, now: float) -> Token:
        """Take a token out of every bucket; only ever called when `free_at` has come."""
        stale = bisect_right(self._ends, now - self._horizon)
        if 2 * stale > len(self._ends):
            del self._ends[:stale]
            self._silent = [other for other in self._silent if other.end > now - self._horizon]
        self._lasting += 1
        return Token()

    def sent(self, token: Token, now: float) -> None:
        """Note that the call's last byte has left."""
        if self._reach is not None and token.sent_at == inf:
            token.sent_at = now
            self._silent.append(token)

    def answered(self, token: Token, now: float) -> None:
        """Note that the answer's head is here, which is a sign of life for the calls before it."""
        self._ended(token, now)
        if self._reach is not None:
            for other in self._silent:
                self._ended(other, other.sent_at + self._reach)
            self._silent.clear()

    def abandoned(self, token: Token, now: float) -> None:
        """Note that nobody listens for the answer any more."""
        self._ended(token, now + self._linger)

    def unsent(self, token: Token) -> None:
        """Put the tokens back at once: not one byte of the call left."""
        self._forget(token)
        token.end = -inf  # whatever else is said of it comes too late

    def through_at(self, calls: int, now: float) -> float:
        """Say when the last of so many calls could be sent, were each answered at once."""
        if calls <= 0 or not self._rates:
            return now
        limit, per = max(self._rates, key=lambda rate: (rate[1] / rate[0], rate[0]))
        # Once every token was used the pattern of the slowest rate repeats itself.
        cycles = max(0, calls // limit - 4)
        ends = sorted([*self._ends, *[now] * self._lasting])
        at = now
        for _ in range(calls - cycles * limit):
            for most, back in self._rates:
                if most <= len(ends):
                    at = max(at, ends[-most] + back)
            insort(ends, at)
        return at + cycles * per

    def _ended(self, token: Token, end: float) -> None:
        if end < token.end:
            self._forget(token)
            token.end = end
            insort(self._ends, end)

    def _forget(self, token: Token) -> None:
        if token.end == inf:
            self._lasting -= 1
            return
        at = bisect_left(self._ends, token.end)
        if at < len(self._ends) and self._ends[at] == token.end:
            del self._ends[at]


@attrs.frozen
class QuotaStatistics:
    """
    Hold what a quota looked like at one moment.

    *free* tells each rate's tokens, *next_in* the seconds until one of every
    rate is free: 0 if there is one, infinite while only an answer can tell.
    """

    free: Mapping[Rate, int]
    waiting: int
    next_in: float
    admitted: int
    refused: int


class Permit:
    """
    Hold the right to send one call, inside ``async with``, and hear what becomes of it.

    Leaving the block without a word counts as sent and unanswered. What is
    said later, such as a refusal found in the body, still counts.
    """

    __slots__ = ("_quota", "_token", "_untold", "admitted_at")

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._untold = True
        self._token: Token
        self.admitted_at: float

    async def __aenter__(self) -> Permit:
        self._token = await self._quota._admit()
        self.admitted_at = anyio.current_time()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._untold:
            self._quota._bucket.abandoned(self._token, anyio.current_time())
            self._quota._tokens_moved()

    def sent(self) -> None:
        """Say that the call's last byte has left."""
        self._quota._bucket.sent(self._token, anyio.current_time())

    def unsent(self) -> None:
        """Say that not one byte of the call left: its tokens are back at once."""
        self._untold = False
        self._quota._bucket.unsent(self._token)
        self._quota._tokens_moved()

    def answered(self) -> None:
        """Say that the head of the answer is here."""
        self._untold = False
        self._quota._bucket.answered(self._token, anyio.current_time())
        self._quota._tokens_moved()

    def refused(self) -> None:
        """Say that the server found the call to be one too many."""
        self._quota._refused += 1
        self.answered()


class Quota:
    """
    Admit calls as fast as all the *rates* allow, first come, first served.

    *reach* and *linger* are seconds; the head of this module says what they
    bend. A waiter that is cancelled takes nothing and delays nobody. One
    quota serves one event loop.
    """

    def __init__(self, *rates: Rate, reach: float | None = 4.0, linger: float = 30.0) -> None:
        for name, seconds in (("reach", 0.0 if reach is None else reach), ("linger", linger)):
            if seconds is None or not 0 <= seconds < inf:
                raise InvalidArgumentError(name, "give a number of seconds, at least 0")
        self.rates = rates
        self._bucket = TokenBucket(rates, reach, linger)
        self._queue: OrderedDict[anyio.Event, None] = OrderedDict()  # a waiter is its own turn
        self._sleep = (anyio.Event(), -inf)  # the first waiter's, and when it ends by itself
        self._admitted = 0
        self._refused = 0

    def __repr__(self) -> str:
        return f"Quota({', '.join(str(rate) for rate in self.rates)})"

    def permit(self) -> Permit:
        """Wait inside ``async with`` until one more call may be sent."""
        return Permit(self)

    def statistics(self) -> QuotaStatistics:
        """Take a snapshot."""
        now = anyio.current_time()
        return QuotaStatistics(
            free=dict(zip(self.rates, self._bucket.free(now), strict=True)),
            waiting=len(self._queue),
            next_in=max(0.0, self._bucket.free_at() - now),
            admitted=self._admitted,
            refused=self._refused,
        )

    def estimate(self, calls: int) -> float:
        """Say in how many seconds so many more calls could be sent, after those that wait."""
        now = anyio.current_time()
        return self._bucket.through_at(len(self._queue) + calls, now) - now

    async def _admit(self) -> Token:
        if self._queue or self._bucket.free_at() > anyio.current_time():
            turn = anyio.Event()
            self._queue[turn] = None
            try:
                if self._first() is not turn:
                    await turn.wait()
                return await self._take_when_free()
            finally:
                del self._queue[turn]
                if self._queue:
                    self._first().set()
        # Last, so that a cancelled caller takes nothing; it yields to no other unless cancelled.
        await checkpoint_if_cancelled()
        return self._take()

    def _first(self) -> anyio.Event:
        return next(iter(self._queue))

    async def _take_when_free(self) -> Token:
        # Only the first in line is here: the others sleep until it is their turn, so an admission
        # costs the same however many wait.
        while (free_at := self._bucket.free_at()) > anyio.current_time():
            self._sleep = (anyio.Event(), free_at)
            with anyio.CancelScope(deadline=free_at):
                await self._sleep[0].wait()
        await checkpoint_if_cancelled()
        return self._take()

    def _take(self) -> Token:
        self._admitted += 1
        return self._bucket.take(anyio.current_time())

    def _tokens_moved(self) -> None:
        asleep, until = self._sleep
        if self._queue and self._bucket.free_at() < until:
            asleep.set()
