"""Who goes first, what a call may be told instead of waiting, and what uploads may hold."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest
from line import Line, taken

from flipsnack_async import APIError, Flipsnack, Quota, QuotaWaitError, Rate, RateLimitError
from flipsnack_async._buckets import DRIFT
from flipsnack_async.quota import Lane
from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

VENDOR = (Rate(5, per=1.0), Rate(60, per=60.0))
LANES: tuple[Lane, ...] = ("interactive", "poll", "bulk")
PER = 10 * (1 + DRIFT)
NOBODY = {"interactive": 0, "poll": 0, "bulk": 0}


def client(box: Sandbox, **options: Any) -> Flipsnack:
    return Flipsnack(box.api_key, box.api_secret, transport=box.transport(), **options)


async def emptied(quota: Quota) -> None:
    """Take every token that is there, and be answered at once."""
    for _ in range(min(quota.statistics().free.values())):
        (await taken(quota)).answered()


# --- precedence


async def test_lanes_go_in_their_order_and_first_come_first_served_inside() -> None:
    """
    Of those who wait, interactive calls go before polls, and polls before bulk.
    """
    quota = Quota(Rate(5, per=10.0))
    line = Line(quota)
    await emptied(quota)

    async with anyio.create_task_group() as tasks:
        for lane, number in [("bulk", 6), ("poll", 2), ("interactive", 2)]:
            for place in range(number):
                await tasks.start(
                    lambda name, lane, **kw: line.call(name, lane=lane, **kw),
                    f"{lane} {place}",
                    lane,
                )

    admitted = list(line.admitted)
    assert ["interactive 0", "interactive 1", "poll 0", "bulk 0", "bulk 1"] == admitted[:5]
    assert {"poll 1", "bulk 2", "bulk 3", "bulk 4", "bulk 5"} == set(admitted[5:])
    assert sorted(name for name in admitted if "bulk" in name) == [
        name for name in admitted if "bulk" in name
    ]
    in_turn = [pytest.approx(PER, abs=1e-3)] * 5 + [pytest.approx(2 * PER, abs=1e-3)] * 5
    assert in_turn == list(line.admitted.values())


async def test_an_interactive_call_overtakes_at_any_time() -> None:
    """
    Who comes late to a higher lane goes with the next token, and moves the others by one.
    """
    quota = Quota(Rate(1, per=10.0))
    line = Line(quota)
    await emptied(quota)

    async with anyio.create_task_group() as tasks:
        for place in range(3):
            await tasks.start(lambda name, **kw: line.call(name, lane="bulk", **kw), place)
        await anyio.sleep(1.5 * PER)
        await tasks.start(line.call, "late")

    assert [0, "late", 1, 2] == list(line.admitted)
    in_turn = [pytest.approx(n * PER, abs=1e-3) for n in (1, 2, 3, 4)]
    assert in_turn == list(line.admitted.values())


async def test_polls_get_a_fifth_while_others_wait() -> None:
    """
    While bulk waits, any minute has at most twelve polls, and yet is full.
    """
    quota = Quota(*VENDOR)
    line = Line(quota)

    async with anyio.create_task_group() as tasks:
        # Bulk comes first: the very first calls find free tokens, and ask for no share.
        for number in range(240):
            await tasks.start(lambda n, **kw: line.call(("bulk", n), lane="bulk", **kw), number)
        for number in range(60):
            await tasks.start(lambda n, **kw: line.call(("poll", n), lane="poll", **kw), number)

    assert 300 == len(line.admitted)
    times = sorted(line.admitted.values())
    assert 241 <= times[-1] <= 60 * 4 + 11 + 1
    minutes = Counter(int(at // 60.1) for (lane, _), at in line.admitted.items() if lane == "poll")
    assert {12} == set(minutes.values())
    polls = sorted(at for (lane, _), at in line.admitted.items() if lane == "poll")
    assert all(late - early >= 60 for early, late in zip(polls, polls[12:], strict=False))


async def test_polls_alone_have_it_all() -> None:
    """
    While nobody else waits, polls go at full pace.
    """
    line = Line(Quota(*VENDOR))

    async with anyio.create_task_group() as tasks:
        for number in range(60):
            tasks.start_soon(lambda n: line.call(n, lane="poll"), number)

    assert pytest.approx(11, abs=0.1) == max(line.admitted.values())


async def test_a_poll_that_has_had_its_share_blocks_nobody() -> None:
    """
    A poll that has to wait for its share lets bulk and interactive calls pass at once.
    """
    quota = Quota(Rate(5, per=10.0))
    line = Line(quota)
    blocker = [await taken(quota) for _ in range(5)]
    async with anyio.create_task_group() as tasks:
        for name in range(3):
            await tasks.start(lambda n, **kw: line.call(n, lane="poll", **kw), f"poll {name}")
        await tasks.start(lambda n, **kw: line.call(n, lane="bulk", **kw), "bulk")
        for permit in blocker:
            permit.unsent()
    # One poll is the fifth; bulk does not wait for the other two.
    assert ["poll 0", "bulk"] == list(line.admitted)[:2]
    assert 0.0 == line.admitted["bulk"]


@pytest.mark.parametrize("seed", range(3))
async def test_a_reserve_keeps_interactive_calls_quick_in_a_storm(seed: int) -> None:
    """
    With *reserve* one interactive call a minute is through within a second and a round trip.
    """
    quota = Quota(*VENDOR, reserve=1)
    chance = random.Random(seed)  # noqa: S311 - no secret
    round_trip = 0.2
    took: list[float] = []
    left = iter(range(500))

    async def work() -> None:
        for _ in left:
            async with quota.permit(lane="bulk") as permit:
                permit.sent()
                await anyio.sleep(round_trip)
                permit.answered()

    async def ask() -> None:
        while True:
            await anyio.sleep(chance.uniform(61, 80))
            began = anyio.current_time()
            async with quota.permit() as permit:
                permit.sent()
                await anyio.sleep(round_trip)
                permit.answered()
            took.append(anyio.current_time() - began)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        async with anyio.create_task_group() as storm:
            for _ in range(500):
                storm.start_soon(work)
        tasks.cancel_scope.cancel()

    assert 5 <= len(took)
    assert max(took) <= 1 + round_trip + 0.01


async def test_a_reserve_costs_bulk_no_more_than_itself() -> None:
    """
    Bulk keeps the pace of the rates less the reserve.
    """
    quota = Quota(*VENDOR, reserve=1)
    start = anyio.current_time()

    async def work() -> None:
        async with quota.permit(lane="bulk") as permit:
            await anyio.sleep(0.2)
            permit.answered()

    async with anyio.create_task_group() as tasks:
        for _ in range(590):
            tasks.start_soon(work)

    floor = 60 * 9 + 58 // 4
    assert floor <= anyio.current_time() - start <= floor / 0.98


# --- answers instead of waits


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("bound", ["max_wait", "deadline", "scope"])
async def test_who_would_wait_too_long_is_told_at_once(lane: Lane, bound: str) -> None:
    """
    Where the wait is foreseen to be too long, nobody queues, nothing is taken, no time passes.
    """
    quota = Quota(Rate(1, per=10.0))
    line = Line(quota)
    await emptied(quota)
    async with anyio.create_task_group() as tasks:
        await tasks.start(line.call, "patient")
        await anyio.sleep(1)
        before, now = quota.statistics(), anyio.current_time()
        asked: dict[str, float] = {
            "max_wait": {"max_wait": 2 * PER - 1.1},
            "deadline": {"deadline": now + 2 * PER - 1.1},
            "scope": {},
        }[bound]

        with anyio.CancelScope(deadline=now + 2 * PER - 1.1 if bound == "scope" else float("inf")):
            with pytest.raises(QuotaWaitError) as caught:
                async with quota.permit(lane=lane, **cast(Any, asked)):
                    raise AssertionError("admitted")

        assert now == anyio.current_time()
        assert before == quota.statistics()
        assert pytest.approx(2 * PER - 1, abs=1e-3) == caught.value.retry_after

    assert pytest.approx(PER, abs=1e-3) == line.admitted["patient"]
    assert 2 == quota.statistics().admitted


@pytest.mark.parametrize("bound", ["max_wait", "deadline", "scope"])
async def test_who_has_time_enough_waits(bound: str) -> None:
    """
    A wait that is foreseen to end in time is waited, and ends in time.
    """
    quota = Quota(Rate(1, per=10.0))
    await emptied(quota)
    start = anyio.current_time()
    asked: dict[str, float] = {
        "max_wait": {"max_wait": PER + 0.1},
        "deadline": {"deadline": start + PER + 0.1},
        "scope": {},
    }[bound]

    with anyio.fail_after(PER + 0.1 if bound == "scope" else None):
        async with quota.permit(**cast(Any, asked)):
            pass

    assert pytest.approx(PER, abs=1e-3) == anyio.current_time() - start


@pytest.mark.parametrize("deadline", [-1.0, 0.0, 0.1])
async def test_a_free_token_needs_no_patience(deadline: float) -> None:
    """
    Where a token is free, *max_wait* 0 and a deadline that is over admit all the same.
    """
    quota = Quota(Rate(2, per=10.0))

    async with quota.permit(max_wait=0):
        pass
    async with quota.permit(deadline=anyio.current_time() + deadline):
        pass

    with pytest.raises(QuotaWaitError):
        async with quota.permit(max_wait=0):
            pass


@pytest.mark.parametrize("seed", range(10))
async def test_retry_after_is_right_to_within_a_latency(seed: int) -> None:
    """
    Who comes back after *retry_after* and one latency passes, and by more too early does not.
    """
    latency = 0.3
    chance = random.Random(seed)  # noqa: S311 - no secret
    quota = Quota(*VENDOR)

    async def call() -> None:
        async with quota.permit() as permit:
            permit.sent()
            await anyio.sleep(latency)
            permit.answered()

    async def passes() -> float:
        try:
            async with quota.permit(max_wait=0) as permit:
                permit.unsent()
        except QuotaWaitError as error:
            return error.retry_after
        return 0.0

    async with anyio.create_task_group() as tasks:
        told = 0.0
        for _ in range(chance.choice([200, 40])):
            while told := await passes():
                if chance.random() < 0.3:
                    break
                await anyio.sleep(chance.uniform(0, 1))
            if told and chance.random() < 0.5:
                break
            if not told:
                tasks.start_soon(call)
                await anyio.sleep(chance.uniform(0, 0.05))
        while not (told := await passes()):
            tasks.start_soon(call)
            await anyio.lowlevel.checkpoint()

        if told > latency + 0.01:
            await anyio.sleep(told - latency - 0.01)
            assert await passes() > 0
            await anyio.sleep(latency + 0.01)
        else:
            await anyio.sleep(told)
        await anyio.sleep(latency + 0.01)
        assert 0.0 == await passes()


async def test_ten_thousand_waiting_change_no_answer() -> None:
    """
    With 10,000 in line the foreseen wait is right, and a reserved token is still free at once.
    """
    quota = Quota(*VENDOR, reserve=1)
    line = Line(quota)

    async with anyio.create_task_group() as tasks:
        for number in range(10_000):
            tasks.start_soon(lambda n: line.call(n, lane="bulk"), number)
        await anyio.sleep(0.5)
        waiting = quota.statistics().waiting["bulk"]

        with pytest.raises(QuotaWaitError) as caught:
            async with quota.permit(lane="bulk", max_wait=3600):
                pass
        async with quota.permit(max_wait=0) as permit:
            permit.unsent()

        assert 10_000 - 4 == waiting == quota.statistics().waiting["bulk"]
        # 59 a minute, 4 a second: the 10,001st is the 30th of its minute.
        expected = 60 * (1 + DRIFT) * (10_000 // 59) + (10_000 % 59) // 4 - 0.5
        assert pytest.approx(expected, abs=0.5) == caught.value.retry_after
        tasks.cancel_scope.cancel()

    assert NOBODY == quota.statistics().waiting


@pytest.mark.parametrize("others", [0, 30])
@pytest.mark.parametrize("calls", [1, 6, 130])
@pytest.mark.parametrize("lane", LANES)
async def test_an_estimate_is_what_then_happens(lane: Lane, calls: int, others: int) -> None:
    """
    So many more calls of a lane are through when it was foreseen, but for a latency a window.
    """
    latency = 0.2
    quota = Quota(*VENDOR, reserve=1)
    through: list[float] = []

    async def call(lane: Lane, noted: list[float]) -> None:
        async with quota.permit(lane=lane) as permit:
            noted.append(anyio.current_time())
            permit.sent()
            await anyio.sleep(latency)
            permit.answered()

    async with anyio.create_task_group() as tasks:
        for _ in range(others):
            tasks.start_soon(call, "interactive", [])
            tasks.start_soon(call, "bulk", [])
        await anyio.sleep(0.01)
        start = anyio.current_time()
        estimate = quota.estimate(calls, lane=lane)
        for _ in range(calls):
            tasks.start_soon(call, lane, through)

    took = max(through) - start
    windows = 1 + took / 60 + min(12, took)
    assert estimate - 0.01 <= took + latency
    assert took <= estimate + latency * windows + 0.1


async def test_a_clients_calls_are_told_at_once() -> None:
    """
    With *max_wait* a call that would wait longer raises, and nothing is sent.
    """
    box = Sandbox()
    async with client(box) as flipsnack:
        hurried = flipsnack.with_options(max_wait=0.5)
        for _ in range(5):
            await hurried.user.get_stats()

        start = anyio.current_time()
        with pytest.raises(QuotaWaitError) as caught:
            await hurried.user.get_stats()

        assert start == anyio.current_time()
        assert 5 == len(box.ledger)
        await anyio.sleep(caught.value.retry_after)
        await hurried.user.get_stats()
        # And with more patience than is needed, the call waits.
        for _ in range(9):
            await flipsnack.with_options(max_wait=2).user.get_stats()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("code", [31, 32, 22])
@pytest.mark.parametrize("max_wait", [0.0, 3.0, 20.0, 100.0])
async def test_all_waits_of_a_call_together_are_bounded(
    code: int, max_wait: float, seed: int
) -> None:
    """
    Quota and back-off waits of one call sum up to *max_wait* at most, and end in the refusal.
    """
    random.seed(seed)  # the back-off is spread at random
    box = Sandbox()
    box.fail("*", code=code, times=None)
    async with client(box) as flipsnack:
        start = anyio.current_time()
        with pytest.raises(APIError) as caught:
            await flipsnack.with_options(max_wait=max_wait).user.get_stats()
        took = anyio.current_time() - start

    assert code == caught.value.code
    assert took <= max_wait + 0.01
    assert max_wait < 100 or len(box.ledger) > 1


async def test_a_deadline_bounds_a_clients_waits_without_a_cancellation() -> None:
    """
    Inside `anyio.fail_after` a call that cannot be in time says so before its time is over.
    """
    box = Sandbox()
    box.fail("*", code=32, times=None)
    async with client(box) as flipsnack:
        with anyio.fail_after(30):
            with pytest.raises(RateLimitError):
                await flipsnack.user.get_stats()

        for _ in range(3):
            with anyio.fail_after(1), pytest.raises(QuotaWaitError):
                await flipsnack.user.get_stats()


async def test_a_deadline_cuts_a_harvest_off_and_fails_no_row() -> None:
    """
    A harvest in a block that ends after 70 s has rows of 70 s, and none for want of quota.
    """
    box = Sandbox(collections=200)
    rows_seen = []
    async with client(box) as flipsnack:
        with anyio.move_on_after(70) as scope:
            async with flipsnack.harvest(list(box.hashes)) as rows:
                rows_seen.extend([row async for row in rows])
                raise AssertionError("200 calls in 70 s")
        assert scope.cancelled_caught
        assert NOBODY == flipsnack.quota.statistics().waiting

    assert 60 < len(box.ledger) <= 120
    assert {20} == {call.code for call in box.ledger}


async def test_rows_under_a_deadline_are_all_good() -> None:
    """
    Whatever rows come before the deadline, none of them is an error.
    """
    box = Sandbox(collections=200)
    errors = []
    number = 0
    async with client(box) as flipsnack:
        with anyio.move_on_after(70):
            async with flipsnack.harvest(list(box.hashes)) as rows:
                async for row in rows:
                    number += 1
                    errors.append(row.error)

    assert {None} == set(errors)
    assert 90 <= number <= 120


# --- uploads


@pytest.mark.parametrize(("limit", "share"), [(1, 1), (2, 1), (5, 2), (60, 30)])
async def test_uploads_hold_half_of_any_rate(limit: int, share: int) -> None:
    """
    Half of a rate's calls may be uploads, at least one; further ones wait, and block nobody.
    """
    quota = Quota(Rate(limit, per=10.0))
    uploads = Line(quota)
    async with anyio.create_task_group() as tasks:
        held = []
        for _ in range(share):
            permit = quota.permit(upload=True, max_wait=0)
            held.append(await permit.__aenter__())
        for name in range(3):
            await tasks.start(lambda n, **kw: uploads.call(n, upload=True, **kw), name)
        others = []
        for _ in range(limit - share):
            permit = quota.permit(max_wait=0)
            others.append(await permit.__aenter__())
        assert 3 == quota.statistics().waiting["interactive"]
        assert [0] == list(quota.statistics().free.values())
        for permit in others:
            permit.unsent()
        await anyio.sleep(100)
        assert {} == uploads.admitted
        held[0].answered()

    assert pytest.approx(100 + PER, abs=1e-3) == uploads.admitted[0]
    assert all(late - early >= PER - 1e-6 for early, late in pairwise(uploads.admitted.values()))


async def test_uploads_keep_their_tokens_until_answered() -> None:
    """
    A sign of life brings back no upload's tokens, however long ago its last byte left.
    """
    quota = Quota(Rate(4, per=10.0), reach=4.0)
    upload = await quota.permit(upload=True).__aenter__()
    upload.sent()
    plain = await taken(quota)
    plain.sent()
    await anyio.sleep(1)
    (await taken(quota)).answered()
    await anyio.sleep(1000)

    assert [3] == list(quota.statistics().free.values())
    upload.answered()
    await anyio.sleep(PER + 0.01)
    assert [4] == list(quota.statistics().free.values())


async def test_long_uploads_slow_nobody_down() -> None:
    """
    Beside two uploads that take minutes, other calls keep 0.95 of the pace.
    """
    quota = Quota(*VENDOR)
    for _ in range(2):
        (await quota.permit(upload=True).__aenter__()).sent()
    start = anyio.current_time()

    async def work() -> None:
        async with quota.permit(lane="bulk") as permit:
            permit.sent()
            await anyio.sleep(0.1)
            permit.answered()

    async with anyio.create_task_group() as tasks:
        for _ in range(600):
            tasks.start_soon(work)

    assert 600 / (anyio.current_time() - start) >= 0.95 * 600 / (551 + 60)


async def test_an_upload_given_up_gives_its_share_back() -> None:
    """
    An upload that is cancelled frees its share *linger* later, one that was not sent at once.
    """
    quota = Quota(Rate(2, per=10.0), linger=7.0)
    async with quota.permit(upload=True) as permit:
        permit.unsent()
    async with quota.permit(upload=True, max_wait=0):
        pass

    with pytest.raises(QuotaWaitError) as caught:
        async with quota.permit(upload=True, max_wait=0):
            pass

    assert pytest.approx(7 + PER) == caught.value.retry_after
