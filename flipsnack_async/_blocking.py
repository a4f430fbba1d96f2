"""Where everything that blocks goes: the disk must not stop the event loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from threading import Lock, Thread
from typing import Final, Generic, TypeVar

import anyio
from anyio import to_thread

T = TypeVar("T")

A_WHILE: Final = 0.05  # seconds; a thread costs more than many a step


async def off_the_loop(function: Callable[..., T], *args: object) -> T:
    """Run *function* in a thread. A cancelled caller leaves only when it is done."""
    return await to_thread.run_sync(function, *args)


async def surely_off_the_loop(function: Callable[[], object]) -> None:
    """Run *function* in a thread, however the caller is cancelled; it may then run twice."""
    try:
        with anyio.CancelScope(shield=True):
            await off_the_loop(function)
    except anyio.get_cancelled_exc_class():  # natively, on asyncio: that minds no shield
        Thread(target=function).start()
        raise


async def in_steps(steps: Generator[None, None, T]) -> T:
    """
    Run *steps* in threads, a while at a time.

    They are closed where a cancellation finds them, and the caller leaves
    when that is done.
    """
    work = _Work(steps)
    try:
        while (end := await off_the_loop(work.go_on)) is None:
            pass
        result: T = end.value
        return result
    finally:
        work.is_wanted = False
        await surely_off_the_loop(work.close)


class _Work(Generic[T]):
    """
    Hold steps that are being taken.

    A task of asyncio that is cancelled natively does not wait for its thread,
    which stops before its next step then; closing waits until it has.
    """

    def __init__(self, steps: Generator[None, None, T]) -> None:
        self.is_wanted = True
        self._steps = steps
        self._in_use = Lock()

    def go_on(self) -> StopIteration | None:
        """Take steps for a while; returns what says that there are no more."""
        with self._in_use:
            until = time.monotonic() + A_WHILE
            while self.is_wanted:
                try:
                    next(self._steps)
                except StopIteration as end:
                    return end
                if time.monotonic() >= until:
                    break
            return None

    def close(self) -> None:
        with self._in_use:
            self._steps.close()
