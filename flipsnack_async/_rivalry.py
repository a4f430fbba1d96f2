"""
What a refusal teaches: that somebody else uses the key, and how much of it is left.

The quota's rule rules refusals out while the key is ours alone. So when the
server refuses, the calls that we don't know of are the limit less those of
ours that it counted; so many tokens are withheld from us. Whether the other
has stopped shows only on trial: after a while all tokens are given back, and
for one window calls go out in single file, so that a trial that fails costs
one refusal. Each failure doubles the time to the next trial. Where nothing at
all is left, each refusal in a row doubles the time to the next call.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import inf

from ._buckets import Rate

# Of the longest periods, so many at most pass between two trials.
LONGEST_PATIENCE = 8


class Rivalry:
    """Estimate from refusals how many calls others make, in the window of each rate."""

    def __init__(self, rates: Sequence[Rate]) -> None:
        self._rates = tuple(rates)
        self._window = max((rate.per for rate in rates), default=0.0)
        self._shortest = min((rate.per for rate in rates), default=0.0)
        self._refusals: list[float] = []
        self._on_trial = False
        self._patience = 1
        self._single_file_until = -inf
        self._in_vain = 0
        self._answers = 0
        self.is_calm = True
        self.pause_until = -inf
        self.trial_at = inf
        self.foreign = [0] * len(rates)

    def is_single_file(self, now: float) -> bool:
        """Say whether calls have to go out one at a time."""
        return now < self._single_file_until

    @property
    def foreign_per_minute(self) -> float:
        """Say how many calls a minute the others make, by the rate that bounds them the most."""
        told = (n / rate.per for n, rate in zip(self.foreign, self._rates, strict=True) if n)
        return 60 * min(told, default=0.0)

    def refused(self, rate: Rate, out: int, answers: int, now: float) -> None:
        """
        Learn from a refusal under a rate, *out* of whose tokens are out.

        Refused calls of ours hold tokens too, and may not have been counted.
        *answers* is how many calls were answered so far, this one included.
        """
        del self._refusals[: bisect_right(self._refusals, now - self._window)]
        self._refusals.append(now)
        refused = len(self._refusals) - bisect_right(self._refusals, now - rate.per)
        counted = max(0, out - refused)
        index = self._rates.index(rate)
        self.foreign[index] = max(self.foreign[index], rate.limit - counted)
        self.is_calm = False
        # The answer just before was a refusal, too.
        self._in_vain = self._in_vain + 1 if answers == self._answers + 1 else 0
        self._answers = answers
        if self._in_vain:
            self.pause_until = now + min(self._window, self._shortest * 2**self._in_vain)
        if self._on_trial:
            self._on_trial = False
            self._patience = min(LONGEST_PATIENCE, 2 * self._patience)
        self.trial_at = now + self._patience * self._window
        self._single_file_until = now + self._window

    def advance(self, now: float) -> bool:
        """Begin or end a trial if it is time; say whether all tokens were given back."""
        if now >= self.trial_at:
            self.trial_at = inf
            self.foreign = [0] * len(self._rates)
            self._on_trial = True
            self._single_file_until = now + self._window
            return True
        if self._on_trial and now >= self._single_file_until:
            self._on_trial = False
            self._patience = 1
            self.is_calm = True
        return False
