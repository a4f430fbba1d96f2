"""One command's conversation with Flipsnack, or with a sandbox."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

import anyio
import click

from flipsnack_async import Flipsnack, Quota

from ._extras import needing
from ._failures import INTERRUPTED, log_on_stderr
from ._settings import Settings

T = TypeVar("T")

# Seconds for an answer that a person waits for; harvests have all the time they need.
PATIENCE = 120.0


def converse(settings: Settings, work: Callable[[Flipsnack], Awaitable[T]]) -> T:
    """Carry out *work* with a client, from connecting to hanging up."""

    async def conversation() -> T:
        async with _client(settings) as flipsnack:
            return await work(flipsnack)

    return carry_out(settings, conversation)


def carry_out(settings: Settings, work: Callable[[], Awaitable[T]]) -> T:
    """Carry out *work* in an event loop, until it is done or interrupted."""

    async def interruptible() -> T:
        _ignore_further_interrupts()
        return await work()

    interrupt = signal.getsignal(signal.SIGINT)
    try:
        with log_on_stderr(settings.verbose):
            return anyio.run(interruptible)
    except KeyboardInterrupt:
        raise click.Abort from None  # or click adds an empty line to what was said
    finally:
        # An interrupted program is about to end, in which it is not to be interrupted again.
        if signal.getsignal(signal.SIGINT) not in (interrupt, _ignore):
            signal.signal(signal.SIGINT, interrupt)


@contextmanager
def patience() -> Iterator[Callable[[], None]]:
    """
    Bound the wait inside the block, since maintenance can last for hours.

    The block gets a function to call whenever something came: the wait then
    starts anew. The library knows the deadline, and where it is sure to miss
    it raises what Flipsnack refused the call for.
    """
    with anyio.move_on_after(PATIENCE) as scope:

        def start_anew() -> None:
            scope.deadline = anyio.current_time() + PATIENCE

        yield start_anew
    if scope.cancelled_caught:
        raise click.ClickException(f"no answer within {PATIENCE:g} s; try again later")


def _ignore_further_interrupts() -> None:
    """Let the first Ctrl-C have its way, in which a second one would leave things lying about."""
    if threading.current_thread() is not threading.main_thread():
        return
    interrupt = signal.getsignal(signal.SIGINT)  # asyncio's, which cancels what is under way
    was_heard = False

    def first(number: int, frame: FrameType | None) -> None:
        nonlocal was_heard
        # Not SIG_IGN, of which Python complains where a signal is on its way already.
        signal.signal(signal.SIGINT, _ignore)
        if callable(interrupt) and not was_heard:
            was_heard = True
            interrupt(number, frame)

    if callable(interrupt):
        signal.signal(signal.SIGINT, first)


def _ignore(number: int, frame: FrameType | None) -> None:
    pass


@contextmanager
def ended_by_a_second_interrupt() -> Iterator[None]:
    """Let a second Ctrl-C end the process at once, where what counts is on the disk as it comes."""
    interrupt = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(interrupt):
        yield
        return

    def second(number: int, frame: FrameType | None) -> None:
        if sys.stderr.isatty():
            os.write(2, b"\x1b[?25h\n")  # the cursor, which a progress bar hides
        os._exit(INTERRUPTED)

    def first(number: int, frame: FrameType | None) -> None:
        interrupt(number, frame)
        signal.signal(signal.SIGINT, second)

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is first:
            signal.signal(signal.SIGINT, interrupt)


def _client(settings: Settings) -> Flipsnack:
    if settings.sandbox:
        with needing("sandbox"):
            from ._sandboxes import client_of_sandbox
        return client_of_sandbox(settings.rates)
    return Flipsnack.from_env(quota=Quota(*settings.rates) if settings.rates else None)
