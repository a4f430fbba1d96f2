"""How fast calls go out, over the last minute."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio

MINUTE = 60.0


class Pace:
    """Know the calls of the last minute, as far as it is asked often enough."""

    def __init__(self, calls: Callable[[], int]) -> None:
        self._calls = calls
        self._seen: deque[tuple[float, int]] = deque()

    def per_minute(self) -> float:
        """Say how many calls a minute went out; 0 when nothing is known yet."""
        now, calls = anyio.current_time(), self._calls()
        self._seen.append((now, calls))
        while self._seen[0][0] < now - MINUTE:
            self._seen.popleft()
        since, before = self._seen[0]
        return (calls - before) * MINUTE / (now - since) if now > since else 0.0
