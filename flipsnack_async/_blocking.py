"""Where everything that blocks goes: the disk must not stop the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from anyio import to_thread

T = TypeVar("T")


async def off_the_loop(function: Callable[..., T], *args: object) -> T:
    """Run *function* in a thread. A cancelled caller leaves only when it is done."""
    return await to_thread.run_sync(function, *args)
