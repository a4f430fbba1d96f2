"""What is tried again, when, and what is said where it is not: all of it without a client."""

from __future__ import annotations

import logging
import random
from contextlib import nullcontext
from typing import Any

import anyio
import pytest

from flipsnack_async import (
    AuthenticationError,
    Collection,
    CollectionUnavailableError,
    ConnectionFailedError,
    Effect,
    FlipsnackError,
    InvalidAnswerError,
    MaintenanceError,
    NoAnswerError,
    QuotaWaitError,
    RateLimitError,
    UploadOutcomeUnknownError,
)
from flipsnack_async._actions import Action
from flipsnack_async._gate import Gate
from flipsnack_async._retry import Patience, RetryBudget, persist

pytestmark = pytest.mark.anyio

DELETION = Action("collection.deleteCollection", type(None), Effect.CONVERGENT)
UPDATE = Action("collection.update", dict, Effect.CONVERGENT)
READING = Action("user.getStats", dict, Effect.READ)
CREATION = Action("collection.create", Collection, Effect.ONCE)
UNKNOWN = Action("flipbook.publish", dict, Effect.ONCE)

GONE = CollectionUnavailableError(43, "Not yours", "any")
UNSENT = ConnectionFailedError("no connection")
LOST = NoAnswerError("no answer")
PAGE = InvalidAnswerError("any", "a page came instead of an answer")
LATE = QuotaWaitError(3.0)


class Uniform:
    """Choose the longest pause there may be, and note between which two it was chosen."""

    def __init__(self) -> None:
        self.chosen: list[tuple[float, float]] = []

    def __call__(self, least: float, most: float) -> float:
        self.chosen.append((least, most))
        return most


@pytest.fixture
def uniform(monkeypatch: pytest.MonkeyPatch) -> Uniform:
    uniform = Uniform()
    monkeypatch.setattr(random, "uniform", uniform)
    return uniform


async def call(
    action: Action[Any],
    *outcomes: object,
    gate: Gate | None = None,
    attempts: int = 9,
    max_wait: float | None = None,
) -> Any:
    """Carry out an action whose attempts end in these ways, one after the other."""
    script = list(outcomes)
    its_patience = Patience(max_wait, None)

    async def attempt(what: Action[Any], patience: Patience) -> Any:
        assert (action, its_patience) == (what, patience)
        outcome = script.pop(0)
        if isinstance(outcome, FlipsnackError):
            raise outcome
        return outcome

    try:
        return await persist(
            attempt,
            action,
            attempts=attempts,
            budget=RetryBudget(),
            patience=its_patience,
            gate=gate or Gate(),
            until_closed=nullcontext,
        )
    finally:
        assert [] == script


# --- budget and patience


async def test_c19_ten_repetitions_and_then_as_many_as_were_earned() -> None:
    """
    A budget pays ten repetitions, one more for ten successes, and never saves up more than ten.
    """
    budget = RetryBudget()
    for _ in range(100):
        budget.earn()
    assert [True] * 10 + [False] * 2 == [budget.spend() for _ in range(12)]

    for _ in range(9):
        budget.earn()
    assert not budget.spend()
    budget.earn()
    assert [True, False] == [budget.spend() for _ in range(2)]


async def test_patience_ends() -> None:
    """
    A pause is allowed up to what is left of the patience, to the last moment.
    """
    patience = Patience(5.0, None)
    assert patience.allows(5.0)
    assert not patience.allows(5.01)
    patience.waited(3.0)
    assert patience.allows(2.0)
    assert not patience.allows(2.01)
    patience.waited(9.0)
    assert patience.allows(0.0)
    assert not patience.allows(0.01)


async def test_a_deadline_of_ones_own_counts_instead_of_the_scopes() -> None:
    """
    The surrounding deadline bounds the pauses of those who were given none.
    """
    with anyio.fail_after(2):  # noqa: ASYNC100  only looked at
        assert Patience(None, None).allows(1.9)
        assert not Patience(None, None).allows(2.1)
        own = Patience(None, anyio.current_time() + 5)
        assert own.allows(5.0)
        assert not own.allows(5.1)


# --- pauses


@pytest.mark.parametrize(
    ("failure", "pauses"),
    [
        (LOST, [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (0, 30), (0, 30)]),
        (UNSENT, [(0, 1), (0, 2), (0, 4)]),
        (
            RateLimitError(31, "a second", "any"),
            [(1, 2), (2, 4), (4, 8), (8, 16), (16, 32), (30, 60), (30, 60)],
        ),
        (RateLimitError(32, "a minute", "any"), [(5, 10), (10, 20), (20, 40), (30, 60), (30, 60)]),
    ],
    ids=["lost", "unsent", "31", "32"],
)
async def test_each_pause_is_longer_up_to_a_limit(
    uniform: Uniform, failure: FlipsnackError, pauses: list[tuple[float, float]]
) -> None:
    """
    Pauses double from failure to failure, are chosen by chance, and are really waited for.
    """
    began = anyio.current_time()
    assert {"views": 1} == await call(READING, *[failure] * len(pauses), {"views": 1})

    assert pauses == uniform.chosen
    assert pytest.approx(sum(most for _, most in pauses)) == anyio.current_time() - began


async def test_c4_maintenance_is_waited_out(uniform: Uniform) -> None:
    """
    In maintenance a call waits for its turn to probe, but no longer than the maintenance lasts.
    """
    maintenance = MaintenanceError(22, "Maintenance", "any")
    gate = Gate()
    gate.learn(maintenance, anyio.current_time())
    pause, began = gate.seconds_to_probe(), anyio.current_time()
    assert {} == await call(READING, maintenance, {}, gate=gate)
    assert pytest.approx(pause) == anyio.current_time() - began

    async with anyio.create_task_group() as tasks:
        began = anyio.current_time()
        gate = Gate()
        gate.learn(maintenance, began)
        tasks.start_soon(lambda: call(READING, maintenance, {}, gate=gate))
        await anyio.sleep(1)
        gate.learn(None, anyio.current_time())
    assert pytest.approx(1) == anyio.current_time() - began


async def test_why_a_call_waits_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """
    Whoever wonders what takes so long finds each failure in the log, and how long the pause is.
    """
    caplog.set_level(logging.INFO, "flipsnack_async")
    await call(READING, LOST, {})

    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"{LOST}; again in ")
    assert line.endswith(" s")


@pytest.mark.parametrize("attempts", [1, 2, 5])
@pytest.mark.parametrize("failure", [LOST, UNSENT])
async def test_attempts_are_counted(attempts: int, failure: FlipsnackError) -> None:
    """
    So many attempts may fail, refusals not counted, and the last failure is raised.
    """
    refusals = [RateLimitError(31, "a second", "any")] * 3
    with pytest.raises(type(failure)):
        await call(READING, *refusals, *[failure] * attempts, attempts=attempts)


async def test_all_pauses_together_are_bounded(uniform: Uniform) -> None:
    """
    A call is given up, with its last failure, when the next pause would outlast its patience.
    """
    began = anyio.current_time()
    with pytest.raises(NoAnswerError):
        await call(READING, LOST, LOST, LOST, LOST, max_wait=14.9)
    assert pytest.approx(1 + 2 + 4) == anyio.current_time() - began
    assert {} == await call(READING, LOST, LOST, LOST, LOST, {}, max_wait=15.1)

    with pytest.raises(RateLimitError):
        await call(READING, RateLimitError(32, "a minute", "any"), max_wait=9.9)


# --- what is said in the end


@pytest.mark.parametrize(
    ("action", "outcomes", "said"),
    [
        (READING, [LOST, LATE], LOST),
        (READING, [PAGE, LATE], PAGE),
        (READING, [refusal := RateLimitError(31, "a second", "any"), LATE], refusal),
        (READING, [refusal, LOST, LATE], LOST),
        (CREATION, [refusal, LATE], refusal),
        (READING, [UNSENT, LATE], LATE),
        (READING, [LATE], LATE),
        (READING, [LOST, rejection := AuthenticationError(41, "no", "any")], rejection),
        (READING, [wrong := InvalidAnswerError("any", "is no text", field="data.x")], wrong),
        (READING, [untrusted := ConnectionFailedError("no", untrusted=True)], untrusted),
        (DELETION, [GONE], GONE),
        (DELETION, [UNSENT, GONE], GONE),
        (UPDATE, [LOST, GONE], GONE),
        (UNKNOWN, [wrong], wrong),
        (UNKNOWN, [GONE], GONE),
    ],
)
async def test_what_ends_a_call_says_what_became_of_it(
    action: Action[Any], outcomes: list[FlipsnackError], said: FlipsnackError
) -> None:
    """
    The last failure is raised, unless it says that nothing was sent where something had been.
    """
    with pytest.raises(type(said)) as caught:
        await call(action, *outcomes)

    assert said is caught.value


async def test_what_a_lost_deletion_finds_gone_was_deleted_by_it() -> None:
    """
    A deletion that got no answer, and finds nothing when it is repeated, is done.
    """
    assert await call(DELETION, LOST, GONE) is None


@pytest.mark.parametrize(
    ("action", "failure"),
    [
        (CREATION, LOST),
        (CREATION, PAGE),
        (CREATION, InvalidAnswerError("any", "is missing", field="data.collectionHash")),
        (UNKNOWN, LOST),
        (UNKNOWN, PAGE),
        (UNKNOWN, InvalidAnswerError("any", "is missing", field="code")),
    ],
)
async def test_what_may_have_been_done_once_is_said_and_not_repeated(
    action: Action[Any], failure: FlipsnackError
) -> None:
    """
    Where nobody knows whether a call was carried out that must not be repeated, that is said.
    """
    with pytest.raises(UploadOutcomeUnknownError) as caught:
        await call(action, UNSENT, failure)

    assert (action.name, str(failure)) == (caught.value.action, caught.value.reason)
