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
    answers slow the pace. An upload's tokens stay out until it is answered,
    since a server may count a body when it is complete.

Who goes first
    The lanes interactive, poll and bulk, in this order, and inside a lane
    whoever came first. While others wait, polls get a fifth of the slowest
    rate; uploads hold half of any rate, and wait beside the lanes for it, so
    that they block nobody.

When we are refused all the same
    Somebody else uses the key. `_rivalry` says what is done then.

`TokenBucket` decides and has no clock; `Quota` waits.
"""

from __future__ import annotations

import sys
from collections.abc import Coroutine, Iterable, Mapping
from math import inf
from types import TracebackType
from typing import Any, Literal, TypeAlias

import anyio
import attrs
from anyio.lowlevel import checkpoint_if_cancelled, current_token

from ._buckets import Rate, TokenBucket
from ._queues import Held, Queue, Turns, Waiter
from ._rivalry import Rivalry
from .errors import ConfigurationError, InvalidArgumentError, QuotaWaitError

__all__ = ["Lane", "Permit", "Quota", "QuotaStatistics", "Rate"]

Lane: TypeAlias = Literal["interactive", "poll", "bulk"]


@attrs.frozen
class QuotaStatistics:
    """
    Hold what a quota looked like at one moment.

    *free* tells each rate's tokens, *waiting* how many wait in each lane,
    *next_in* the seconds until one of every rate is free: 0 if there is one,
    infinite while only an answer can tell. *foreign* is how many calls a
    minute others are estimated to make.
    """

    free: Mapping[Rate, int]
    waiting: Mapping[Lane, int]
    next_in: float
    admitted: int
    refused: int
    foreign: float


class Permit(Waiter):
    """
    Hold the right to send one call, inside ``async with``, and hear what becomes of it.

    Leaving the block without a word counts as sent and unanswered. What is
    said later, such as a refusal found in the body, still counts.
    """

    __slots__ = ("_deadline", "_held", "_max_wait", "_queue", "_quota", "_word", "admitted_at")

    def __init__(self, quota: Quota, queue: Queue, max_wait: float, deadline: float | None) -> None:
        super().__init__()
        self._quota = quota
        self._queue = queue
        self._max_wait = max_wait
        self._deadline = deadline
        self._word = ""  # what was said last: left, unsent or answered
        self._held: Held = ()
        self.admitted_at: float = inf

    def __aenter__(self) -> Coroutine[Any, Any, Permit]:
        # No coroutine of its own: thousands of tasks may wait here.
        return self._quota._admit(self)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._word:
            self._word = "left"
            now = _now()
            for bucket, token in self._held:
                bucket.abandoned(token, now)
            self._quota._tokens_moved(now)

    def sent(self) -> None:
        """Say that the call's last byte has left; of an upload this changes nothing."""
        if self._queue is not self._quota._uploads:
            now = _now()
            for bucket, token in self._held:
                bucket.sent(token, now)

    def unsent(self) -> None:
        """Say that not one byte of the call left: its tokens are back at once."""
        self._word = "unsent"
        for bucket, token in self._held:
            bucket.unsent(token)
        self._quota._tokens_moved(_now())

    def answered(self) -> None:
        """Say that the head of the answer is here."""
        if self._word != "answered":
            self._word = "answered"
            now = _now()
            for bucket, token in self._held:
                bucket.answered(token, now)
            self._quota._answered += 1
            self._quota._tokens_moved(now)

    def refused(self, *, per: float | None = None) -> None:
        """
        Say that the server found the call to be one too many.

        *per* is the period that it named, if it named one; else the longest
        is meant.
        """
        self.answered()
        self._quota._learn(per)


class Quota:
    """
    Admit calls as fast as all the *rates* allow, lane by lane, first come, first served.

    *reserve* tokens of every rate are kept from the bulk lane. *reach* and
    *linger* are seconds; the head of this module says what they bend. A
    waiter that is cancelled takes nothing and delays nobody. One quota serves
    one event loop, the first that it admits a call in: clocks differ, and
    who waits in one is not woken by another. Elsewhere it raises
    `ConfigurationError`.
    """

    def __init__(
        self, *rates: Rate, reserve: int = 0, reach: float | None = 4.0, linger: float = 30.0
    ) -> None:
        for name, seconds in (("reach", 0.0 if reach is None else reach), ("linger", linger)):
            if seconds is None or not 0 <= seconds < inf:
                raise InvalidArgumentError(name, "give a number of seconds, at least 0")
        self.rates: tuple[Rate, ...] = checked_rates(rates)
        if type(reserve) is not int or not 0 <= reserve < min(
            [rate.limit for rate in rates] or [1]
        ):
            raise InvalidArgumentError("reserve", "give a whole number below every rate's limit")
        self._bucket = bucket = TokenBucket(rates, reach, linger)
        self._rivalry = Rivalry(rates)
        half = [_part(rate, 2) for rate in rates]
        self._uploading = TokenBucket(half, None, linger)
        slowest = max(rates, key=lambda rate: rate.per / rate.limit, default=None)
        fifth = TokenBucket([_part(slowest, 5)] if slowest else [], reach, linger)
        self._lanes: Mapping[Lane, Queue] = {
            "interactive": Queue(bucket),
            "poll": Queue(bucket, share=fifth),
            "bulk": Queue(bucket, spare=reserve),
        }
        self._uploads = Queue(bucket, share=self._uploading)
        interactive, poll, bulk = self._lanes.values()
        self._queues = (interactive, self._uploads, poll, bulk)
        self._waiting = 0
        self._turns: Turns
        self._loop: object = None
        self._sleeper: Waiter | None = None
        self._alarm = -inf  # when he wakes up by himself
        self._admitted = 0
        self._answered = 0
        self._refused = 0

    def __repr__(self) -> str:
        return f"Quota({', '.join(str(rate) for rate in self.rates)})"

    def permit(
        self,
        *,
        lane: Lane = "interactive",
        max_wait: float | None = None,
        deadline: float | None = None,
        upload: bool = False,
    ) -> Permit:
        """
        Wait inside ``async with`` until one more call may be sent.

        Raises `QuotaWaitError` at once, without waiting, where the wait is
        foreseen to be longer than *max_wait* seconds, or to last beyond the
        *deadline*: a time of the event loop's clock, by default the
        surrounding anyio scope's. An *upload* waits beside the lanes.
        """
        if lane not in self._lanes:
            raise InvalidArgumentError("lane", f"give one of {', '.join(self._lanes)}")
        queue = self._uploads if upload else self._lanes[lane]
        return Permit(self, queue, inf if max_wait is None else max_wait, deadline)

    def ends(self, now: float | None = None) -> list[float]:
        """
        List when the calls ended whose tokens are still out, for `recall` by another quota.

        *now* is a time of this quota's event loop, which need not run any more.
        """
        return self._bucket.ends(_now() if now is None else now)

    def recall(self, ends: Iterable[float]) -> None:
        """Take the tokens of calls that were made elsewhere and ended at these times."""
        self._check_loop()
        now = _now()
        for end in ends:
            self._bucket.ended(self._bucket.take(now), end)

    def statistics(self) -> QuotaStatistics:
        """Take a snapshot."""
        now = _now()
        waiting = {lane: queue.length for lane, queue in self._lanes.items()}
        waiting["interactive"] += self._uploads.length
        return QuotaStatistics(
            free=dict(zip(self.rates, self._bucket.free(now), strict=True)),
            waiting=waiting,
            next_in=max(0.0, self._bucket.free_at() - now),
            admitted=self._admitted,
            refused=self._refused,
            foreign=self._rivalry.foreign_per_minute,
        )

    def estimate(self, calls: int, *, lane: Lane = "interactive") -> float:
        """Say in how many seconds so many more calls of a lane could be through."""
        now = _now()
        return self._foresee(self._lanes[lane], calls, now) - now

    def _foresee(self, queue: Queue, calls: int, now: float) -> float:
        sooner = self._queues[: self._queues.index(queue) + 1]
        ahead = sum(other.length for other in sooner)
        through_at = self._bucket.through_at(ahead + calls, now, queue.spare)
        if queue.share is not None:
            mine = queue.share.through_at(queue.length + calls, now)
            if queue is not self._uploads:
                # What polls may have is bounded only for as long as others wait.
                mine = min(mine, self._bucket.through_at(self._waiting + calls, now))
            through_at = max(through_at, mine)
        return max(through_at, self._rivalry.pause_until)

    async def _admit(self, permit: Permit) -> Permit:
        self._check_loop()
        queue, now = permit._queue, _now()
        if self._may_pass(queue, now):
            await checkpoint_if_cancelled()  # a cancelled caller takes nothing
            return self._give(permit, now)
        if wait := self._too_long(permit, now):
            await checkpoint_if_cancelled()
            raise QuotaWaitError(wait)
        if not self._waiting:  # else they were found for whoever waits here already
            self._find_turns()
        queue.join(permit)
        self._waiting += 1
        try:
            while (until := self._turn_of(permit, now)) > now:
                permit.turn = self._turns.new()
                await self._turns.wait(permit.turn, until)
                now = _now()
            await checkpoint_if_cancelled()
            return self._give(permit, now)
        finally:
            self._leave(permit, now)

    def _check_loop(self) -> None:
        loop = _loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise ConfigurationError(
                "quota", "belongs to another event loop; make one quota for each"
            )

    def _give(self, permit: Permit, now: float) -> Permit:
        self._admitted += 1
        permit._held = permit._queue.take(now)
        permit.admitted_at = now
        return permit

    def _may_pass(self, queue: Queue, now: float) -> bool:
        if self._waiting and (queue.length or self._first(now)[1] <= now):
            return False
        return self._free_at(queue, now) <= now

    def _too_long(self, permit: Permit, now: float) -> float | None:
        """Foresee the wait, if it is longer than the permit's patience."""
        deadline = permit._deadline
        if deadline is None:
            deadline = anyio.current_effective_deadline()
        patience = min(permit._max_wait, deadline - now)
        if patience < inf and (wait := self._foresee(permit._queue, 1, now) - now) > patience:
            return wait
        return None

    def _find_turns(self) -> None:
        from ._turns import turns_here  # brings asyncio, for which nobody pays before he waits

        self._turns = turns_here()

    def _turn_of(self, permit: Permit, now: float) -> float:
        # Only one waiter sleeps for a time, the others until they are called, so an admission
        # costs the same however many wait. He is not always the first in line any more when he
        # wakes up, and then sees to it that the first does.
        if permit is not permit._queue.first:
            return inf  # and whoever stands before him sees to the rest
        if permit is self._sleeper:
            self._alarm = -inf
        first, free_at = self._first(now)
        if first is not permit:
            self._wake_in_time(first, free_at, now)
            return inf
        if free_at > now:
            free_at = min(free_at, self._rivalry.trial_at)
            self._sleeper, self._alarm = permit, free_at
        return free_at

    def _wake_in_time(self, first: Waiter | None, free_at: float, now: float) -> None:
        if first is None or now < self._alarm <= free_at:
            return  # nobody is left to wake, or somebody wakes up early enough
        if free_at > now:
            free_at = min(free_at, self._rivalry.trial_at)
            if self._turns.call_at(first.turn, free_at):
                self._sleeper, self._alarm = first, free_at
                return
        self._alarm = -inf
        self._turns.call(first.turn)

    def _first(self, now: float) -> tuple[Waiter | None, float]:
        """Find who goes next, and when: the earliest, of equals the one in the higher lane."""
        first, earliest = None, inf
        for queue in self._queues:
            if queue.length:
                free_at = self._free_at(queue, now)
                if first is None or free_at < earliest:
                    first, earliest = queue.first, free_at
        return first, earliest

    def _free_at(self, queue: Queue, now: float) -> float:
        shared = queue is self._uploads or self._waiting > queue.length
        if self._rivalry.is_calm:
            return queue.free_at(shared=shared)
        if self._rivalry.advance(now):
            self._bucket.withhold(self._rivalry.foreign)
        if self._rivalry.is_single_file(now) and self._bucket.lasting > self._uploading.lasting:
            return inf
        return max(queue.free_at(shared=shared), self._rivalry.pause_until)

    def _leave(self, permit: Permit, now: float) -> None:
        permit._queue.leave(permit)
        self._waiting -= 1
        if permit is self._sleeper:
            self._alarm = -inf
        self._wake_in_time(*self._first(now), now)

    def _tokens_moved(self, now: float) -> None:
        if self._waiting and self._bucket.free_at() < self._alarm:
            first, free_at = self._first(now)
            if first and free_at < self._alarm:
                self._alarm = -inf
                self._turns.call(first.turn)

    def _learn(self, per: float | None) -> None:
        """Take a refusal for what it is: others call, too."""
        self._refused += 1
        if self.rates:
            now = _now()
            longest = max(rate.per for rate in self.rates)
            nearest = min(self.rates, key=lambda rate: abs(rate.per - (per or longest)))
            out = self._bucket.out(now)[self.rates.index(nearest)]
            self._rivalry.refused(nearest, out, self._answered, now)
            self._bucket.withhold(self._rivalry.foreign)


def checked_rates(rates: Iterable[Rate]) -> tuple[Rate, ...]:
    found = tuple(rates) if isinstance(rates, Iterable) else (rates,)
    if not all(isinstance(rate, Rate) for rate in found):
        raise InvalidArgumentError("rates", "give rates, such as [Rate(5, per=1.0)]")
    return found


def _part(rate: Rate, divisor: int) -> Rate:
    return Rate(max(1, rate.limit // divisor), per=rate.per)


def _asyncio_loop() -> Any:
    """Find asyncio's event loop, if one runs, without anyio, whose way to it is long."""
    asyncio: Any = sys.modules.get("asyncio")
    if asyncio is not None:
        try:
            return asyncio.get_running_loop()
        except RuntimeError:
            pass  # some other event loop runs
    return None


def _loop() -> object:
    return _asyncio_loop() or current_token().native_token


def _now() -> float:
    loop = _asyncio_loop()
    now: float = anyio.current_time() if loop is None else loop.time()
    return now
