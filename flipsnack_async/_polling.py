"""Ask again and again how far a job of the vendor's is, politely."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from . import _checks
from .errors import QuotaWaitError, StillProcessingError

T = TypeVar("T")

JITTER = 0.1
MARGIN = 0.02
# A job that has taken longer than ten times *every* is asked for at a tenth of its age.
PATIENCE = 0.1


async def poll(
    ask: Callable[[], Awaitable[T]],
    *,
    every: Callable[[], float],
    within: float,
    on_poll: Callable[[T], object] | None,
    is_finished: Callable[[T], bool],
) -> T | None:
    """
    Ask at once and then *every* so many seconds, until an answer is the last one.

    *every* is asked anew each time: how often one may ask depends on who else does.

    The pause is jittered and grows for long jobs; a last question is fitted
    into *within*, after which None is returned. A refusal because the
    collection is being converted counts as an answer that isn't the last.
    """
    _checks.seconds("every", every())
    _checks.seconds("within", within)
    _checks.function("on_poll", on_poll)
    began = anyio.current_time()
    with anyio.CancelScope(deadline=began + within):
        while True:
            asked = anyio.current_time()
            try:
                answer = await ask()
            except StillProcessingError:
                pass
            except QuotaWaitError as error:
                if asked + error.retry_after < began + within:
                    raise  # for the caller's own sake
                break
            else:
                if on_poll is not None:
                    on_poll(answer)
                if is_finished(answer):
                    return answer
            now = anyio.current_time()
            pause = max(every(), PATIENCE * (now - began))
            pause *= random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 no secret
            # Early enough for the answer to come in time, judging by how long this one took.
            last = began + within - max(2 * (now - asked), MARGIN * min(every(), within))
            if last <= now:
                break
            await anyio.sleep(min(pause, last - now))
    return None
