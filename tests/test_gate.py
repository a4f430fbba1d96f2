"""When it is no use to send: what the gate makes of the answers to all callers."""

from __future__ import annotations

import random

import anyio
import pytest

from flipsnack_async import (
    AuthenticationError,
    CollectionUnavailableError,
    MaintenanceError,
)
from flipsnack_async._gate import Gate

pytestmark = pytest.mark.anyio

MAINTENANCE = MaintenanceError(22, "Maintenance mode", "user.getStats")


async def test_c4_an_answer_to_an_older_call_ends_no_maintenance() -> None:
    """
    What was sent before the maintenance began, and succeeds late, says nothing of its end.
    """
    gate = Gate()
    sent = anyio.current_time()
    await anyio.sleep(1)
    gate.learn(MAINTENANCE, sent)
    await anyio.sleep(1)
    gate.learn(None, sent)
    with pytest.raises(MaintenanceError):
        gate.check()

    await anyio.sleep(gate.seconds_to_probe())
    gate.check()  # the probe
    with pytest.raises(MaintenanceError):
        gate.check()
    gate.learn(None, anyio.current_time())
    gate.check()


async def test_each_caller_gets_an_error_of_his_own() -> None:
    """
    The same error raised in many tasks would gather the tracebacks of all.
    """
    gate = Gate()
    rejection = AuthenticationError(41, "Invalid credentials", "user.getStats")
    for _ in range(3):
        gate.check()
        gate.learn(rejection, anyio.current_time())
    raised = []
    for _ in range(2):
        with pytest.raises(AuthenticationError) as caught:
            gate.check()
        raised.append(caught.value)

    assert raised[0] is not raised[1]
    gate.learn(None, anyio.current_time())
    with pytest.raises(AuthenticationError):
        gate.check()
    assert str(rejection) == str(raised[0])


async def test_where_there_was_no_maintenance_nobody_waits_for_its_end() -> None:
    """
    Whoever waits for the end of a maintenance that never began goes on at once.
    """
    began = anyio.current_time()
    await Gate().wait(1000)

    assert began == anyio.current_time()


async def test_c4_probes_become_rarer(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    From half a minute on the pauses before probes double, up to five minutes; later all over.
    """
    chosen = []

    def choose(least: float, most: float) -> float:
        chosen.append((least, most))
        return least

    monkeypatch.setattr(random, "uniform", choose)
    expected = [(30, 60), (60, 120), (120, 240), (150, 300), (150, 300)]
    gate = Gate()
    for times in (1, 2):
        began = anyio.current_time()
        gate.learn(MAINTENANCE, began)
        for least, _ in expected[:-1]:
            assert least == pytest.approx(gate.seconds_to_probe())
            await anyio.sleep(least - 0.5)
            with pytest.raises(MaintenanceError):
                gate.check()
            await anyio.sleep(0.5)
            gate.check()
            gate.learn(MAINTENANCE, anyio.current_time())
        assert times * expected == chosen
        gate.learn(None, began)  # sent the moment it began
        gate.check()


async def test_c12_three_rejections_in_a_row_are_needed() -> None:
    """
    An answer that rejects no credentials, be it a refusal, shows that they are not wrong.
    """
    gate = Gate()
    rejection = AuthenticationError(41, "Invalid credentials", "user.getStats")
    for answer in (None, CollectionUnavailableError(43, "Not yours", "any")):
        for _ in range(2):
            gate.learn(rejection, anyio.current_time())
        gate.learn(answer, anyio.current_time())
    for _ in range(2):
        gate.learn(rejection, anyio.current_time())
        gate.check()
    gate.learn(rejection, anyio.current_time())
    with pytest.raises(AuthenticationError):
        gate.check()
