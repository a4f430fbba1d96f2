"""
A flipbook's statistics step by step, bought with as few calls as the answers allow.

One call tells the totals of a range, both ends included. What a total of zero
covers is zero too. Where counters add up, which the first split of a flipbook
shows, what lies right of a range is the whole without it. Neither is believed
of a flipbook any more once a number of it is negative.

To ask for a range is a bet that calls will be saved, and bets are limited:
calls so far and steps unresolved are never more than 21 for every 20 steps.
Credit is what is left to that limit, in twentieths of a call. A step that is
asked for leaves it as it is, a wider range costs a call's worth, and a step
that is inferred brings as much.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Generator, Iterable, Mapping, Sequence
from datetime import date
from itertools import groupby
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar

import attrs

from .models import CollectionStats

Step: TypeAlias = Literal["day", "week", "month"]

COUNTERS: Final = ("impressions", "views", "time_spent", "downloads", "likes", "shares")

_CALL: Final = 20
_STEP: Final = 21


class Span(NamedTuple):
    """Be the days from *first* to *last*, both included."""

    first: date
    last: date


@attrs.frozen
class Resolved:
    """
    Hold the statistics of one step; *is_inferred* where no call asked for just these.

    Of what is inferred only the counters are known: there are no pages and no extra.
    """

    stats: CollectionStats
    is_inferred: bool


@attrs.define
class Pool:
    """
    Hold the credit that the finished flipbooks of a series left over.

    It is below zero where answers are known that were paid from a fuller one.
    """

    credit: int = 0


Known: TypeAlias = Mapping[Span, CollectionStats | Resolved]
_Node: TypeAlias = tuple[int, int, CollectionStats | None]
_Json: TypeAlias = "Mapping[str, _Json] | list[_Json] | str | float | None"
_T = TypeVar("_T")
_Calls: TypeAlias = Generator[Span, CollectionStats, _T]


def spans(start: date, end: date, step: Step) -> list[Span]:
    """List the days, weeks from Monday on, or months; the first and the last may be cut off."""
    found: list[Span] = []
    first, end_at = start.toordinal(), end.toordinal()
    while first <= end_at:
        day = date.fromordinal(first)
        last = min(first + _days_left(day, step), end_at)
        found.append(Span(day, date.fromordinal(last)))
        first = last + 1
    return found


def _days_left(day: date, step: Step) -> int:
    if step == "month":
        return monthrange(day.year, day.month)[1] - day.day
    return 6 - day.weekday() if step == "week" else 0


def bounds(steps: Iterable[int], *, exact: bool = False) -> tuple[int, int]:
    """
    Say how many calls a series takes at least and at most, by its flipbooks' numbers of *steps*.

    Calls of a series that was broken off are among them, steps that were
    `Resolved` before it are not. Wider ranges that are known may save more.
    """
    numbers = [number for number in steps if number]
    total = sum(numbers)
    if exact:
        return total, total
    return len(numbers) if total >= _CALL else total, total * _STEP // _CALL


def resolve(
    collection_hash: str, steps: Sequence[Span], known: Known, pool: Pool, *, exact: bool = False
) -> Generator[Span, CollectionStats, list[Resolved]]:
    """
    Yield the ranges to ask for, be sent the answers, and return the *steps* in order.

    *steps* follow one another without a gap. What is *known* is not asked
    for. An answer in it, be it a step's or a wider range's, counts as a call
    of this series: so one that was broken off goes on as if it had not been.
    What an earlier one left `Resolved` counts neither as a step nor as a
    call. With *exact* nothing is inferred, and what was is asked for.
    """
    flipbook = _Flipbook(collection_hash, steps, known, pool, exact=exact)
    while flipbook.nodes:
        flipbook.nodes += yield from flipbook.visit(*flipbook.nodes.pop())
    pool.credit += flipbook.credit
    return [row for row in flipbook.rows if row is not None]


class _Flipbook:
    def __init__(
        self, collection_hash: str, steps: Sequence[Span], known: Known, pool: Pool, *, exact: bool
    ) -> None:
        self._hash = collection_hash
        self._steps = steps
        self._pool = pool
        self._earlier = {s: k for s, k in known.items() if isinstance(k, Resolved)}
        if exact:
            self._earlier = {s: row for s, row in self._earlier.items() if not row.is_inferred}
        self._answers = {s: row.stats for s, row in self._earlier.items() if not row.is_inferred}
        self._answers |= {s: k for s, k in known.items() if isinstance(k, CollectionStats)}
        self.rows = [self._earlier.get(step) for step in steps]
        self.credit = self.rows.count(None) * (_STEP - _CALL)
        gaps = [[*gap] for row, gap in groupby(range(len(steps)), self.rows.__getitem__) if not row]
        self.nodes: list[_Node] = [(gap[0], gap[-1] + 1, None) for gap in reversed(gaps)]
        for index, step in enumerate(steps):
            if step in self._answers:
                self._settle(index, self._answers[step])
        self._adds_up: bool | None = None
        self._is_trusted = not exact

    def visit(self, low: int, high: int, total: CollectionStats | None) -> _Calls[list[_Node]]:
        """Do one thing about the steps from *low* to *high*; return what is to do, last first."""
        if not self._is_trusted:
            for index in range(low, high):
                yield from self._ask(index, index + 1)
            return []
        if total is not None and (_is_zero(total) or (high - low == 1 and self._adds_up)):
            self._infer(low, high, total)
            return []
        if high - low == 1:
            yield from self._ask(low, high)
            return []
        if total is None:
            if self._affords((low, high)):
                return [(low, high, (yield from self._ask(low, high)))]
            settled = next((i for i in range(low, high) if self.rows[i]), high)
            if low < settled < high:
                return [(settled, high, None), (low, settled, None)]
        half = (low + high) // 2
        wanted = [(low, half), (half, high)] if self._adds_up is None else [(low, half)]
        # A single step is asked for at no risk, and what is left of the total may be zero then.
        middle = half if total is not None and self._affords(*wanted) else low + 1
        left = yield from self._ask(low, middle)
        right = yield from self._right_of(left, low, middle, high, total)
        nodes = [(middle, high, right), (low, middle, left)]
        # What is zero comes first, since it brings credit.
        return nodes[::-1] if right and _is_zero(right) else nodes

    def _right_of(
        self, left: CollectionStats, low: int, middle: int, high: int, total: CollectionStats | None
    ) -> _Calls[CollectionStats | None]:
        if total is None or not self._is_trusted:
            return None
        if self._adds_up is None:
            if not self._affords((middle, high)):
                return None
            right = yield from self._ask(middle, high)
            rest = _rest(total, left, right)
            self._adds_up = rest is not None and not any(_counters(rest))
            return right
        if not self._adds_up:
            # Only whether it is zero counts here, and what is not in the left is in the right.
            return total if _is_zero(left) else None
        rest = _rest(total, left)
        self._is_trusted = rest is not None and not _is_negative(rest)
        return rest

    def _ask(self, low: int, high: int) -> _Calls[CollectionStats]:
        span = self._span(low, high)
        stats = self._answers.get(span)
        if high - low > 1 and span not in self._earlier:
            # Paid before the call: while it lasts, others draw on the pool.
            self.credit -= _CALL
            borrowed = max(0, -self.credit)
            self._pool.credit -= borrowed
            self.credit += borrowed
        if stats is None:
            stats = self._answers[span] = yield span
        if high - low == 1:
            self._settle(low, stats)
        if _is_negative(stats):
            self._is_trusted = False
        return stats

    def _affords(self, *ranges: tuple[int, int]) -> bool:
        cost = 0
        for low, high in ranges:
            if self._span(low, high) not in self._answers:
                if any(self.rows[low:high]):
                    return False
                cost += _CALL if high - low > 1 else 0
        # Where counters do not add up, splitting often saves nothing: others do not pay for it.
        borrowed = 0 if self._adds_up is False else self._pool.credit
        return not cost or cost <= self.credit + borrowed

    def _settle(self, index: int, stats: CollectionStats) -> None:
        if not self.rows[index]:
            first, last = self._steps[index]
            stats = attrs.evolve(stats, start_date=first, end_date=last)
            self.rows[index] = Resolved(stats, is_inferred=False)

    def _infer(self, low: int, high: int, total: CollectionStats) -> None:
        counters = dict(zip(COUNTERS, _counters(total), strict=True))
        for index in range(low, high):
            if not self.rows[index]:
                first, last = self._steps[index]
                stats = CollectionStats(self._hash, **counters, start_date=first, end_date=last)
                self.rows[index] = Resolved(stats, is_inferred=True)
                self.credit += _CALL

    def _span(self, low: int, high: int) -> Span:
        return Span(self._steps[low].first, self._steps[high - 1].last)


# --- what the numbers tell


def _counters(stats: CollectionStats) -> list[Any]:
    return [getattr(stats, name) for name in COUNTERS]


def _is_negative(stats: CollectionStats) -> bool:
    return any(counter is not None and counter < 0 for counter in _counters(stats))


def _is_zero(stats: CollectionStats) -> bool:
    is_given = stats.impressions is not None or stats.views is not None
    return is_given and not any(_counters(stats)) and _has_no_number(stats.extra)


def _has_no_number(value: _Json) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return all(map(_has_no_number, value))
    return isinstance(value, bool | str) or not value


def _rest(whole: CollectionStats, *parts: CollectionStats) -> CollectionStats | None:
    """Take the *parts* from the *whole*; None where they do not have the same counters."""
    rest: dict[str, Any] = {}
    for name in COUNTERS:
        total, *others = (getattr(stats, name) for stats in (whole, *parts))
        if {total, *others} == {None}:
            continue
        if total is None or None in others:
            return None
        # Twelve digits of a sum of seconds can be relied on.
        digits = max(0, 12 - len(str(int(abs(total)))))
        rest[name] = round(total - sum(others), digits) or 0
    return CollectionStats(whole.collection_hash, **rest)
