"""Those who wait for quota, in the order of their coming."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from typing import Any, Protocol, TypeAlias

from ._buckets import Token, TokenBucket

# What one call holds: a token in each of these.
Held: TypeAlias = tuple[tuple[TokenBucket, Token], ...]


class Turns(Protocol):
    """Let tasks wait until another says that their turn has come."""

    def new(self) -> Any:
        """Make what one task will wait for, once."""

    def call(self, turn: Any) -> None:
        """End the wait; without effect where it has ended."""

    def call_at(self, turn: Any, when: float) -> bool:
        """End the wait at a time of the event loop's clock, if that can be had from outside."""

    def wait(self, turn: Any, until: float) -> Awaitable[object]:
        """Wait for `call`, or for a time of the event loop's clock."""


class Waiter:
    """Wait in a queue; *turn* is what it waits for at the moment."""

    __slots__ = ("has_left", "turn")

    def __init__(self) -> None:
        self.turn: Any = None
        self.has_left: bool = False


class Queue:
    """Hold those who wait in one lane, and know what is special about it."""

    def __init__(
        self, bucket: TokenBucket, *, spare: int = 0, share: TokenBucket | None = None
    ) -> None:
        self._bucket = bucket
        self.spare: int = spare  # tokens that are left to others
        self.share: TokenBucket | None = (
            share  # holds what the lane may have of a rate, where that is not all
        )
        self._line: deque[Waiter] = deque()
        self.length: int = 0

    @property
    def first(self) -> Waiter:
        return self._line[0]

    def join(self, waiter: Waiter) -> None:
        self._line.append(waiter)
        self.length += 1

    def leave(self, waiter: Waiter) -> None:
        # Whoever leaves from the middle stands there until all before him have left: an ordered
        # dictionary would forget him at once, but weigh as much as all the rest of a waiter.
        waiter.has_left = True
        self.length -= 1
        while self._line and self._line[0].has_left:
            self._line.popleft()

    def free_at(self, *, shared: bool) -> float:
        """Say when the first may go; the share counts only while it is *shared* with others."""
        free_at = self._bucket.free_at(self.spare)
        if shared and self.share is not None:
            return max(free_at, self.share.free_at())
        return free_at

    def take(self, now: float) -> Held:
        if self.share is None:
            return ((self._bucket, self._bucket.take(now)),)
        return ((self._bucket, self._bucket.take(now)), (self.share, self.share.take(now)))
