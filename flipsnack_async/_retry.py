"""
Which failure of which action may be tried again, and when.

What decides is the action's effect, never the HTTP verb: the vendor deletes
by GET.

    effect       not one byte left   no answer, or none of the API's   refused   maintenance
    read         again               again                             wait      wait
    convergent   again               again                             wait      wait
    once         again               outcome unknown                   wait      wait

Failures use up the attempts. Refusals and maintenance don't, since nothing
was carried out: they end with the caller's patience. What a deletion that got
no answer finds gone when it is repeated was deleted by it.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, Final, TypeAlias, TypeGuard, TypeVar

import anyio
import tenacity

from ._actions import Action, Effect
from ._gate import Gate
from .errors import (
    CollectionUnavailableError,
    ConnectionFailedError,
    FlipsnackError,
    InvalidAnswerError,
    MaintenanceError,
    NoAnswerError,
    QuotaWaitError,
    RateLimitError,
    UploadOutcomeUnknownError,
)

T = TypeVar("T")

logger = logging.getLogger("flipsnack_async")

WAIT_AND_AGAIN: Final = (MaintenanceError, RateLimitError)
LONGEST_BACKOFF: Final = 30.0
# Ends the wait in its block when the client is closed.
UntilClosed: TypeAlias = Callable[[], AbstractContextManager[object]]


class RetryBudget:
    """
    Keep an outage from multiplying calls: repeating costs what ten successes earn.

    One budget serves all callers of a client, so that thousands of them don't
    each spend their attempts on a server that is down.
    """

    COST: Final = 10
    FULL: Final = 10 * COST

    def __init__(self) -> None:
        self._left = self.FULL

    def earn(self) -> None:
        self._left = min(self.FULL, self._left + 1)

    def spend(self) -> bool:
        if self._left < self.COST:
            return False
        self._left -= self.COST
        return True


class Patience:
    """
    Know how much longer one call may wait, for quota and between attempts together.

    *left* is in seconds, *deadline* a time of the event loop's clock, None the
    surrounding scope's.
    """

    def __init__(self, max_wait: float | None, deadline: float | None) -> None:
        self.left = math.inf if max_wait is None else max_wait
        self.deadline = deadline

    def waited(self, seconds: float) -> None:
        self.left = max(0.0, self.left - seconds)

    def allows(self, pause: float) -> bool:
        deadline = self.deadline
        if deadline is None:
            deadline = anyio.current_effective_deadline()
        return pause <= self.left and anyio.current_time() + pause <= deadline


class Tries:
    """Decide after each failure of one call whether and when it goes out again."""

    def __init__(
        self,
        effect: Effect,
        attempts: int,
        budget: RetryBudget,
        patience: Patience,
        gate: Gate,
        until_closed: UntilClosed,
    ) -> None:
        self._effect = effect
        self._attempts = attempts
        self._budget = budget
        self._patience = patience
        self._gate = gate
        self._until_closed = until_closed
        self._failed = 0
        self._refused = 0
        self._in_maintenance = False
        self.refusal: FlipsnackError | None = None
        self.left_open: FlipsnackError | None = None  # by an attempt that may have been carried out

    def may_repeat(self, error: BaseException) -> bool:
        """Say whether to try again. Allows only what it knows: cancellation must never match."""
        self._in_maintenance = isinstance(error, MaintenanceError)
        if isinstance(error, WAIT_AND_AGAIN):
            self._refused += 1
            self.refusal = error
            return True
        if is_inconclusive(error) and self._effect is not Effect.ONCE:
            self.left_open = error
        elif not isinstance(error, ConnectionFailedError) or error.untrusted:
            return False
        self._failed += 1
        return self._failed < self._attempts and self._budget.spend()

    def pause(self, state: tenacity.RetryCallState) -> float:
        """Choose the seconds to wait, spread at random so that callers don't return in step."""
        error = _failure(state)
        if isinstance(error, MaintenanceError):
            return self._gate.seconds_to_probe()
        if isinstance(error, RateLimitError):
            return _spread(1.0 if error.code == 31 else 5.0, self._refused, longest=60.0)
        return random.uniform(0, min(LONGEST_BACKOFF, 0.5 * 2**self._failed))  # noqa: S311 no secret

    def too_late(self, state: tenacity.RetryCallState) -> bool:
        """Say whether the caller's patience ends before the next try."""
        return not self._patience.allows(state.upcoming_sleep)

    def tell(self, state: tenacity.RetryCallState) -> None:
        """Log why a call waits, for whoever wonders what takes so long."""
        logger.info("%s; again in %.1f s", _failure(state), state.upcoming_sleep)

    async def sleep(self, seconds: float) -> None:
        """Wait, but through maintenance no longer than it lasts."""
        began = anyio.current_time()
        with self._until_closed():
            if self._in_maintenance:
                await self._gate.wait(seconds)
            else:
                await anyio.sleep(seconds)
        self._patience.waited(anyio.current_time() - began)


def _failure(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def is_inconclusive(error: BaseException) -> TypeGuard[NoAnswerError | InvalidAnswerError]:
    """Say whether *error* leaves open what became of the call."""
    # An envelope with a wrong field tells that much, and would come back the same.
    return isinstance(error, NoAnswerError) or (
        isinstance(error, InvalidAnswerError) and error.field is None
    )


async def persist(
    attempt: Callable[[Action[T], Patience], Awaitable[T]],
    action: Action[T],
    *,
    attempts: int,
    budget: RetryBudget,
    patience: Patience,
    gate: Gate,
    until_closed: UntilClosed,
) -> T:
    """Carry out *action*, as often as its effect, *attempts*, *budget* and *patience* allow."""
    try:
        # By itself: tenacity costs as much as decoding does, and few calls need it.
        reply = await attempt(action, patience)
    except FlipsnackError as error:
        first = error
    else:
        budget.earn()
        return reply
    tries = Tries(action.effect, attempts, budget, patience, gate, until_closed)
    reply = await _persist_after(first, attempt, action, tries, patience)
    budget.earn()
    return reply


async def _persist_after(
    first: FlipsnackError,
    attempt: Callable[[Action[T], Patience], Awaitable[T]],
    action: Action[T],
    tries: Tries,
    patience: Patience,
) -> T:
    failures = [first]

    async def next_attempt() -> T:
        if failures:
            raise failures.pop()
        return await attempt(action, patience)

    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(tries.may_repeat),
        wait=tries.pause,
        stop=tries.too_late,
        before_sleep=tries.tell,
        sleep=tries.sleep,
        reraise=True,
    )
    try:
        reply: T = await retrying(next_attempt)
    except QuotaWaitError:
        # It says that nothing was sent, which is not true of all the attempts.
        before = tries.left_open or tries.refusal
        if before is None:
            raise
        instead: FlipsnackError = before
    except CollectionUnavailableError:
        if not action.deletes or tries.left_open is None:
            raise
        return action.reply()
    except FlipsnackError as error:
        if action.effect is not Effect.ONCE or not _leaves_open(error, action):
            raise
        instead = UploadOutcomeUnknownError(action.name, str(error))
    else:
        return reply
    raise instead


def _leaves_open(error: FlipsnackError, action: Action[Any]) -> bool:
    """Say whether a call that must not be repeated may have been carried out, and that is all."""
    if not isinstance(error, InvalidAnswerError):
        return isinstance(error, NoAnswerError)
    # A success without the fields of its reply is of no use to go by; a bare one has none.
    return error.field in (None, "code") or action.reply is not dict


def _spread(first: float, times: int, *, longest: float) -> float:
    upper = min(longest, first * 2**times)
    return max(first, random.uniform(upper / 2, upper))  # noqa: S311 no secret
