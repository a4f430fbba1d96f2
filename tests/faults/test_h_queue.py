"""H1, H2, H5, H12 to H15: who waits for quota, and what clocks may do to him."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime, tzinfo
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import attrs
import httpx
import pytest
import trio
from anyio.lowlevel import checkpoint
from inner import Inner
from scripted import client
from test_quota_judged import RATES, Limits, Traffic, blame, quota_of, send, stand_still

from flipsnack_async import Flipsnack, Quota, Rate, _core
from flipsnack_async.quota import Lane
from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

Start: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, None]]], object]


# --- H1, H2


@attrs.define
class Caller:
    """Wait in line for one call; be cancelled there, or with the permit in hand, or served."""

    lane: Lane
    comes_at: float
    patience: float
    fate: str
    admitted_at: float = inf
    left_at: float = inf

    async def call(self, quota: Quota) -> None:
        await anyio.sleep_until(self.comes_at)
        with anyio.move_on_after(self.patience) as scope:
            async with quota.permit(lane=self.lane, deadline=inf) as permit:
                self.admitted_at = anyio.current_time()
                scope.deadline = inf
                if self.fate == "cancelled":
                    scope.cancel()
                    await anyio.sleep_forever()
                permit.answered() if self.fate == "answered" else permit.unsent()
        self.left_at = anyio.current_time()


@pytest.mark.parametrize("seed", range(10))
async def test_h1_h2_whoever_is_cancelled_takes_nothing_and_overtakes_nobody(seed: int) -> None:
    """
    Callers leave the line or their permits at random: all others go in order, no permit is lost.
    """
    chance = random.Random(seed)  # noqa: S311 - no secret
    limit, per, linger = 3, 10.0, 7.0
    quota = Quota(Rate(limit, per=per), linger=linger)
    callers = [
        Caller(
            lane=chance.choice(["interactive", "bulk"]),
            comes_at=number + chance.random() / 2,
            patience=chance.choice([inf, inf, chance.uniform(0, 60)]),
            fate=chance.choice(["answered", "answered", "unsent", "cancelled"]),
        )
        for number in range(60)
    ]

    with anyio.fail_after(10_000):
        async with anyio.create_task_group() as tasks:
            for caller in callers:
                tasks.start_soon(caller.call, quota)

    served = [caller for caller in callers if caller.admitted_at < inf]
    assert 30 < len(served) < 60
    assert len(served) == quota.statistics().admitted
    assert all(caller.admitted_at < inf for caller in callers if caller.patience == inf)
    for caller in served:
        of_lane = [other for other in served if other.lane == caller.lane]
        assert of_lane == sorted(of_lane, key=lambda other: other.admitted_at)
        if caller.lane == "bulk":
            waiting = [
                other
                for other in callers
                if other.lane == "interactive"
                and other.comes_at < caller.admitted_at < min(other.admitted_at, other.left_at)
            ]
            assert [] == waiting
    costs = {"answered": per, "cancelled": linger + per, "unsent": 0.0}
    for at in {caller.admitted_at for caller in served}:
        out = [c for c in served if c.admitted_at <= at < c.admitted_at + costs[c.fate]]
        assert len(out) <= limit
    await anyio.sleep(linger + 1.01 * per)
    assert [limit] == list(quota.statistics().free.values())


# --- H5


async def views(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=b'{"code": 20, "data": {"views": 7}}')


def memory() -> int:
    """Measure what the process has in memory, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@asynccontextmanager
async def native_tasks() -> AsyncGenerator[Start]:
    """Start tasks of the backend's own, since a task of anyio's weighs as much as a call."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        async with trio.open_nursery() as nursery:
            yield nursery.start_soon
    else:
        async with asyncio.TaskGroup() as tasks:
            yield lambda work: tasks.create_task(work())


async def test_h5_ten_thousand_tasks_on_one_client(anyio_backend_name: str) -> None:
    """
    Of 10,000 calls that wait at once each is served, lane by lane, in the order of their coming.

    On trio they are 2000, which shows the order as well.
    """
    half = 5000 if anyio_backend_name == "asyncio" else 1000
    came: dict[Lane, list[int]] = {"bulk": [], "interactive": []}
    served: dict[Lane, list[int]] = {"bulk": [], "interactive": []}
    lanes: list[Lane] = []

    async def call(view: Flipsnack, lane: Lane, number: int) -> None:
        came[lane].append(number)
        assert 7 == (await view.user.get_stats()).views
        served[lane].append(number)
        lanes.append(lane)

    async with Flipsnack("k", "s", transport=Inner(views)) as flipsnack:
        for _ in range(5):  # so that nobody who comes now can go at once
            await flipsnack.user.get_stats()
        before = memory()
        async with native_tasks() as start:
            for lane in came:
                view = flipsnack.with_options(lane=lane)
                for number in range(half):
                    start(partial(call, view, lane, number))
            await anyio.sleep(0.1)
            waiting = flipsnack.quota.statistics().waiting
            grown = memory() - before

    assert {"interactive": half, "poll": 0, "bulk": half} == waiting
    assert ["interactive"] * half + ["bulk"] * half == lanes
    assert came == served
    assert grown < 100e6 * half / 5000


# --- H13, H14


@pytest.mark.parametrize("limits", RATES.values(), ids=RATES)
async def test_h13_after_a_night_asleep_there_is_no_burst(
    anyio_backend_name: str, limits: Limits
) -> None:
    """
    When a laptop wakes up after eight hours, all that is due goes out within the limits.
    """
    traffic = Traffic(quota_of(limits), random.Random(13))  # noqa: S311 - no secret

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send, traffic, 150, 150)
        for _ in range(2):
            await anyio.sleep(3.3)
            stand_still(anyio_backend_name, 8 * 3600)

    assert [] == blame(traffic.arrivals, limits)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_h14_coarse_timers_admit_nobody_early() -> None:
    """
    Where a loop wakes its tasks up to 16 ms too early, no window has a call too many.
    """
    loop = asyncio.get_running_loop()
    loop._clock_resolution = 0.016  # type: ignore[attr-defined]
    quota = Quota(Rate(3, per=0.1))
    arrivals: list[float] = []

    async def call() -> None:
        async with quota.permit() as permit:
            arrivals.append(loop.time())
            permit.answered()

    async def keep_awake() -> None:
        while len(arrivals) < 18:
            await checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep_awake)
        for _ in range(18):
            tasks.start_soon(call)

    assert [] == blame(arrivals, [(3, 0.1)])


# --- H12, H15


class JumpingClock(datetime):
    """Be a wall clock that is set an hour forward, then two back, and so on."""

    read = 0

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> JumpingClock:
        cls.read += 1
        return cls.fromtimestamp(1_767_225_600 + 3600 * (-1) ** cls.read, tz)


async def test_h12_a_wall_clock_that_jumps_changes_no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whatever the wall clock is set to with each call, they go on at the same pace, none refused.
    """
    monkeypatch.setattr(_core, "datetime", JumpingClock)
    box = Sandbox(collections=150, count_refused=True)
    began = anyio.current_time()

    async with client(box) as flipsnack, flipsnack.harvest(list(box.hashes)) as rows:
        assert [None] * 150 == [row.error async for row in rows]

    assert JumpingClock.read >= 150
    assert {20} == {entry.code for entry in box.ledger}
    assert 120 < anyio.current_time() - began < 135


async def test_h15_a_loop_that_was_blocked_catches_up_within_the_limits(
    anyio_backend_name: str,
) -> None:
    """
    After code of the caller's has blocked the loop for 30 s, again and again, no call is refused.
    """
    box = Sandbox(collections=150, latency=0.1, count_refused=True)

    async with client(box) as flipsnack, flipsnack.harvest(list(box.hashes)) as rows:
        for _ in range(15):
            assert [None] * 10 == [(await anext(rows)).error for _ in range(10)]
            stand_still(anyio_backend_name, 30)

    assert {20} == {entry.code for entry in box.ledger}
