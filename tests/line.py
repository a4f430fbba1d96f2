"""Callers of a quota, who wait in line and note when they were admitted."""

from __future__ import annotations

from math import inf
from typing import Any

import anyio
from anyio.abc import TaskStatus

from flipsnack_async import Quota
from flipsnack_async.quota import Permit


class Line:
    """Callers of one quota: who was admitted, and when."""

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.start = anyio.current_time()
        self.admitted: dict[Any, float] = {}

    async def call(
        self,
        name: Any,
        scope: anyio.CancelScope | None = None,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
        **asked: Any,
    ) -> None:
        """
        Wait in line, in the lane that was *asked* for, and be answered at once.

        Goes from telling *task_status* to standing in line in one step. A
        turn that never comes fails the test instead of hanging it.
        """
        task_status.started()
        with anyio.fail_after(10_000), scope or anyio.CancelScope():
            async with self.quota.permit(**{"deadline": inf, **asked}) as permit:
                self.admitted[name] = anyio.current_time() - self.start
                permit.answered()


async def taken(quota: Quota) -> Permit:
    """Be admitted, and stay so."""
    permit = quota.permit()
    await permit.__aenter__()
    return permit
