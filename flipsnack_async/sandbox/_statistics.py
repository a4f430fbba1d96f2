"""
Numbers that look like readers, the same for the same seed, collection and day.

No day is ever stored. A counter's running total is a function of the date, a
weekly rhythm plus noise that is smaller than the quietest day's share, so that
it never falls; days and ranges are differences of two running totals. Hence a
range is exactly the sum of its days, and costs the same for a week and a decade.
"""

from collections.abc import Mapping
from datetime import date, timedelta
from hashlib import blake2b
from struct import unpack

import attrs

# What has come by Monday's midnight, Tuesday's, ... of the units a week brings.
_UNITS_BEFORE = (0, 5, 11, 17, 22, 26, 28)
_UNITS_A_WEEK = 30
_UNITS_ON_SUNDAY = 2
_NOISE_STEPS = 1 << 16

# Thousandths for every unit and every point of popularity.
_TOTALS = {"impressions": 1_000, "views": 600, "time_spent": 27_000, "downloads": 20}
_LEGACY = {"likes": 12, "shares": 5}
_PAGE = {"time_spent": 9_000, "clicks": 150, "views": 500}


@attrs.frozen
class Readership:
    """What readers have done with one collection between two days, both included."""

    source: str
    popularity: int
    page_count: int
    first: date
    last: date

    def totals(self, start: date | None, end: date | None, *, legacy: bool) -> dict[str, int]:
        """
        Sum up the days from *start* to *end*; `None` means as far as they go.

        With *legacy* also in the counters that the vendor no longer documents.
        """
        first, last = self._within(start, end)
        old = self._sum("legacy", _LEGACY, first, last) if legacy else {}
        return {**self._sum("all", _TOTALS, first, last), **old}

    def pages(self, start: date | None, end: date | None) -> list[dict[str, int]]:
        """Sum up the same days for each page."""
        first, last = self._within(start, end)
        return [
            {"page": page, **self._sum(f"page {page}", _later(page), first, last)}
            for page in range(1, self.page_count + 1)
        ]

    def _within(self, start: date | None, end: date | None) -> tuple[date, date]:
        return max(start or self.first, self.first), min(end or self.last, self.last)

    def _sum(self, what: str, shares: Mapping[str, int], start: date, end: date) -> dict[str, int]:
        if start > end:
            return dict.fromkeys(shares, 0)
        before = _running_units(f"{self.source}/{what}", start)
        after = _running_units(f"{self.source}/{what}", end + timedelta(days=1))
        scale = 1_000 * _NOISE_STEPS
        return {
            counter: share * self.popularity * b // scale - share * self.popularity * a // scale
            for (counter, share), a, b in zip(shares.items(), before, after, strict=False)
        }


def _later(page: int) -> Mapping[str, int]:
    """Let every page have fewer readers than the one before it."""
    return {counter: 2 * share // (page + 1) for counter, share in _PAGE.items()}


def _running_units(source: str, day: date) -> list[int]:
    """Return what has come before *day*, in units divided by the noise steps, for four counters."""
    weeks, weekday = divmod(day.toordinal() - 1, 7)
    steady = _UNITS_A_WEEK * weeks + _UNITS_BEFORE[weekday]
    noise = unpack("<4H", blake2b(f"{source}/{day}".encode(), digest_size=8).digest())
    return [steady * _NOISE_STEPS + _UNITS_ON_SUNDAY * step for step in noise]
