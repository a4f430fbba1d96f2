"""Ask again and again how far a job of the vendor's is, politely."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio

from . import _checks
from .errors import (
    FlipsnackError,
    InvalidAnswerError,
    NoAnswerError,
    QuotaWaitError,
    StillProcessingError,
)

T = TypeVar("T")

JITTER: Final = 0.1
MARGIN: Final = 0.02
# A job that has taken longer than ten times *every* is asked for at a tenth of its age.
PATIENCE: Final = 0.1
# Seconds: what takes longer waited for quota or was repeated, and tells nothing of the next answer.
SLOW: Final = 5.0
MOST_UNANSWERED: Final = 5


async def poll(
    ask: Callable[[], Awaitable[T]],
    *,
    every: Callable[[], float],
    within: float,
    from_first_answer: bool = False,
    on_poll: Callable[[T], object] | None,
    is_finished: Callable[[T], bool],
    too_late: Callable[[str], FlipsnackError],
) -> T:
    """
    Ask at once and then *every* so many seconds, until an answer is the last one.

    *every* is asked anew each time: how often one may ask depends on who else does.

    The pause is jittered and grows for long jobs; a last question is fitted
    into *within*, which counts from now or *from_first_answer* on. After that
    *too_late* makes the error, of what went wrong in the end, if anything
    did. A refusal because the collection is being converted counts as an
    answer that isn't the last, and so do a few in a row that tell nothing.
    """
    _checks.seconds("every", every())
    _checks.seconds("within", within)
    _checks.function("on_poll", on_poll)
    answered_at: float | None = None
    unanswered = 0  # in a row
    failure: FlipsnackError | None = None
    now = anyio.current_time()
    with anyio.CancelScope(deadline=math.inf if from_first_answer else now + within) as scope:
        while True:
            asked = now
            try:
                answer = await ask()
            except StillProcessingError:
                failure = None
            except QuotaWaitError as error:
                was_sent = answered_at is not None or failure is not None
                if not was_sent or asked + error.retry_after < scope.deadline:
                    raise  # the latter for the caller's own sake
                failure = failure or error
                break
            except (NoAnswerError, InvalidAnswerError) as error:
                unanswered += 1
                if unanswered == MOST_UNANSWERED or getattr(error, "field", None):
                    raise
                failure = error
            else:
                failure = None
                if on_poll is not None:
                    on_poll(answer)
                if is_finished(answer):
                    return answer
            now = anyio.current_time()
            if failure is None:
                unanswered = 0
                if answered_at is None:
                    answered_at = now
                    scope.deadline = min(scope.deadline, now + within)
            age = 0.0 if answered_at is None else now - answered_at
            pause = _pause(every(), within, asked, now, age, scope.deadline)
            if pause is None:
                break
            await anyio.sleep(pause)
            now = anyio.current_time()
    if failure is not None:
        failure.with_traceback(None)  # it may be kept for hours, in a row
    problem = "no question was answered" if answered_at is None else ""
    raise too_late(str(failure or problem)) from failure


def _pause(
    every: float, within: float, asked: float, now: float, age: float, deadline: float
) -> float | None:
    """Say how long to wait before the next question; None where there is no time for one."""
    pause = max(every, PATIENCE * age)
    pause *= random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 no secret
    # Early enough for the answer to come in time, judging by how long this one took.
    took = min(now - asked, SLOW, within / 10)
    last = deadline - max(2 * took, MARGIN * min(every, within))
    if asked + took >= last:
        return None
    # A question that was late because it waited is not the last one while time is left.
    return min(pause, max(last - now, (deadline - now) / 2, 0.0))
