"""One command's conversation with Flipsnack, or with a sandbox."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import anyio
import click

from flipsnack_async import Flipsnack, Quota

from ._extras import needing
from ._failures import log_on_stderr
from ._settings import Settings

T = TypeVar("T")

# Seconds for an answer that a person waits for; harvests have all the time they need.
PATIENCE = 120.0


def converse(settings: Settings, work: Callable[[Flipsnack], Awaitable[T]]) -> T:
    """Carry out *work* with a client, from connecting to hanging up."""

    async def conversation() -> T:
        async with _client(settings) as flipsnack:
            return await work(flipsnack)

    with log_on_stderr(settings.verbose):
        return anyio.run(conversation)


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


def _client(settings: Settings) -> Flipsnack:
    if settings.sandbox:
        with needing("sandbox"):
            from ._sandboxes import client_of_sandbox
        return client_of_sandbox(settings.rates)
    return Flipsnack.from_env(quota=Quota(*settings.rates) if settings.rates else None)
