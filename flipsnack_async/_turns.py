"""
Waiting for one's turn, or for a time, whichever comes first.

On asyncio a turn is a bare future, and a time is a timer of the loop: an
`anyio.Event` holds a deque, which would double the memory of a waiting task,
and a scope with a deadline costs more than all the rest of an admission.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from math import inf
from typing import Any

import anyio

from ._queues import Turns


def turns_here() -> Turns:
    """Make turns that suit the event loop at hand."""
    try:
        return _AsyncioTurns(asyncio.get_running_loop())
    except RuntimeError:
        return _AnyioTurns()


class _AsyncioTurns:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def new(self) -> asyncio.Future[None]:
        return self._loop.create_future()

    def call(self, turn: Any) -> None:
        if not turn.done():
            turn.set_result(None)

    def call_at(self, turn: Any, when: float) -> bool:
        if turn.done():
            return False
        if when != inf:
            # A hair late: a loop may call early by its clock's resolution, again and again.
            timer = self._loop.call_at(when + 2e-6, self.call, turn)
            turn.add_done_callback(lambda _: timer.cancel())
        return True

    def wait(self, turn: Any, until: float) -> Awaitable[object]:
        self.call_at(turn, until)
        return turn  # type: ignore[no-any-return]  # a future of `new`


class _AnyioTurns:
    def new(self) -> anyio.Event:
        return anyio.Event()

    def call(self, turn: Any) -> None:
        turn.set()

    def call_at(self, turn: Any, when: float) -> bool:
        return False  # only the task itself can set a time to its wait

    async def wait(self, turn: Any, until: float) -> None:
        with anyio.CancelScope(deadline=until):
            await turn.wait()
