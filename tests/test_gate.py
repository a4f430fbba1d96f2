"""When it is no use to send: what the gate makes of the answers to all callers."""

from __future__ import annotations

import anyio
import pytest

from flipsnack_async import AuthenticationError, MaintenanceError
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
    assert str(rejection) == str(raised[0])
