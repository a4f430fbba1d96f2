"""The quota's shell: it waits, on a clock that jumps."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from math import inf, nan

import anyio
import attrs
import looptime
import pytest
from anyio.abc import TaskStatus
from line import Line, taken

from flipsnack_async import Quota, Rate
from flipsnack_async._buckets import DRIFT
from flipsnack_async.errors import ConfigurationError, InvalidArgumentError, QuotaWaitError
from flipsnack_async.quota import Lane, Permit, QuotaStatistics

VENDOR = (Rate(5, per=1.0), Rate(60, per=60.0))

PER = 10 * (1 + DRIFT)
NOBODY: Mapping[Lane, int] = {"interactive": 0, "poll": 0, "bulk": 0}


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Quota(reach=-1.0), "reach"),
        (lambda: Quota(reach=inf), "reach"),
        (lambda: Quota(reach=nan), "reach"),
        (lambda: Quota(linger=-1.0), "linger"),
        (lambda: Quota(linger=inf), "linger"),
        (lambda: Quota(linger=nan), "linger"),
        (lambda: Quota(linger=None), "linger"),  # type: ignore[arg-type]
        (lambda: Quota(5), "rates"),  # type: ignore[arg-type]
        (lambda: Quota(*VENDOR, "5/1s"), "rates"),  # type: ignore[arg-type]
        (lambda: Quota(*VENDOR, reserve=-1), "reserve"),
        (lambda: Quota(*VENDOR, reserve=5), "reserve"),
        (lambda: Quota(reserve=1), "reserve"),
        (lambda: Quota(*VENDOR, reserve=True), "reserve"),
        (lambda: Quota(*VENDOR, reserve=1.0), "reserve"),  # type: ignore[arg-type]
        (lambda: Quota().permit(lane="fast"), "lane"),  # type: ignore[arg-type]
        (lambda: Quota().permit(lane=""), "lane"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_named(make: Callable[[], object], field: str) -> None:
    """
    What makes no sense is refused when a quota or a permit is made, naming the argument.
    """
    with pytest.raises(InvalidArgumentError) as caught:
        make()

    assert field == caught.value.field


def test_a_quota_names_its_rates() -> None:
    """
    A quota shows what it allows.
    """
    assert "Quota(5/1s, 60/60s)" == repr(Quota(*VENDOR))


@pytest.mark.anyio
async def test_first_come_first_served() -> None:
    """
    Callers are admitted in the order in which they came, those who come later too.
    """
    line = Line(Quota(Rate(2, per=1.0)))

    async with anyio.create_task_group() as tasks:
        for name in range(10):
            await tasks.start(line.call, name)
        await anyio.sleep(1.5)
        for name in range(10, 20):
            await tasks.start(line.call, name)

    assert list(range(20)) == list(line.admitted)
    by_pairs = [pytest.approx(name // 2 * (1 + DRIFT), abs=1e-4) for name in range(20)]
    assert by_pairs == list(line.admitted.values())


@pytest.mark.anyio
async def test_nobody_overtakes_a_waiter_whose_turn_has_come() -> None:
    """
    Who comes at the very instant a token is back stands behind those who wait for it.
    """
    quota = Quota(Rate(1, per=60.0))
    line = Line(quota)
    permit = await taken(quota)

    async with anyio.create_task_group() as tasks:
        await tasks.start(line.call, "patient")
        permit.unsent()
        # In the same step, so that nobody has been woken yet
        await line.call("late")

    assert ["patient", "late"] == list(line.admitted)


@pytest.mark.anyio
@pytest.mark.parametrize("asleep", [0.0, 3.0])
@pytest.mark.parametrize("gone", [[0], [2], [4], [0, 1], [1, 0], [3, 4], [0, 2, 4]])
async def test_a_cancelled_waiter_takes_nothing_and_delays_nobody(
    gone: list[int], asleep: float
) -> None:
    """
    Whoever leaves the line, first, middle or last, the others are served as if he had never come.
    """
    quota = Quota(Rate(1, per=10.0))
    line = Line(quota)
    scopes = [anyio.CancelScope() for _ in range(5)]
    (await taken(quota)).answered()

    async with anyio.create_task_group() as tasks:
        for name, scope in enumerate(scopes):
            await tasks.start(line.call, name, scope)
        await anyio.sleep(asleep)
        for name in gone:
            scopes[name].cancel()

    stayed = [name for name in range(5) if name not in gone]
    assert stayed == list(line.admitted)
    in_turn = [pytest.approx(place * PER, abs=1e-4) for place in range(1, len(stayed) + 1)]
    assert in_turn == list(line.admitted.values())
    assert 1 + len(stayed) == quota.statistics().admitted
    assert NOBODY == quota.statistics().waiting


@pytest.mark.anyio
@pytest.mark.parametrize("first", ["the turn", "the cancellation"])
async def test_a_turn_that_comes_with_its_cancellation_loses_no_token(first: str) -> None:
    """
    A waiter whose turn and cancellation come in one instant leaves the token to the next.
    """
    quota = Quota(Rate(1, per=60.0))
    line = Line(quota)
    permit = await taken(quota)
    scope = anyio.CancelScope()

    async def wait(*, task_status: TaskStatus[None]) -> None:
        task_status.started()
        with scope:
            async with quota.permit():
                await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        await tasks.start(wait)
        await tasks.start(line.call, "next")
        if first == "the turn":
            permit.unsent()
            scope.cancel()
        else:
            scope.cancel()
            permit.unsent()

    assert {"next": 0.0} == line.admitted
    assert 2 == quota.statistics().admitted


@pytest.mark.anyio
async def test_a_deadline_at_the_instant_of_the_turn_loses_no_token() -> None:
    """
    A waiter whose deadline is the very time of his turn either goes or leaves the token.
    """
    quota = Quota(Rate(1, per=10.0))
    (await taken(quota)).answered()
    at = anyio.current_time() + quota.statistics().next_in
    line = Line(quota)

    async with anyio.create_task_group() as tasks:
        await tasks.start(line.call, "hurried", anyio.CancelScope(deadline=at))
        await tasks.start(line.call, "patient")

    admitted = list(line.admitted)
    assert admitted in (["patient"], ["hurried", "patient"])
    assert pytest.approx(len(admitted) * PER, abs=1e-4) == line.admitted["patient"]


@pytest.mark.anyio
async def test_a_caller_cancelled_before_he_came_takes_nothing() -> None:
    """
    Who asks for a permit in a cancelled scope leaves every token where it is.
    """
    quota = Quota(*VENDOR)

    with anyio.CancelScope() as scope:
        scope.cancel()
        async with quota.permit():
            await anyio.sleep_forever()

    assert [5, 60] == list(quota.statistics().free.values())


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["returns", "raises", "is cancelled"])
async def test_leaving_without_a_word_counts_as_sent_and_unanswered(how: str) -> None:
    """
    However a caller leaves, with nothing said its token is back *linger* and *per* later.
    """
    quota = Quota(Rate(1, per=10.0), linger=7.0)
    line = Line(quota)

    async def leave() -> None:
        async with quota.permit():
            await anyio.sleep(2)
            if how == "raises":
                raise OSError
            if how == "is cancelled":
                scope.cancel()
                await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        try:
            await leave()
        except OSError:
            assert how == "raises"
    await line.call("next")

    assert pytest.approx(2 + 7 + PER, abs=1e-4) == line.admitted["next"]


@pytest.mark.anyio
async def test_what_is_said_after_leaving_still_counts() -> None:
    """
    An answer told after the block was left brings the token back from the answer on.
    """
    quota = Quota(Rate(1, per=10.0))
    line = Line(quota)
    async with quota.permit() as permit:
        pass

    async with anyio.create_task_group() as tasks:
        await tasks.start(line.call, "next")
        await anyio.sleep(3)
        permit.refused()

    assert pytest.approx(3 + PER, abs=1e-4) == line.admitted["next"]
    assert 1 == quota.statistics().refused


@pytest.mark.anyio
async def test_a_token_given_back_wakes_who_sleeps_for_another() -> None:
    """
    A waiter who sleeps until a known time goes at once when a token turns up before.
    """
    quota = Quota(Rate(2, per=10.0))
    line = Line(quota)
    (await taken(quota)).answered()
    permit = await taken(quota)

    async with anyio.create_task_group() as tasks:
        await tasks.start(line.call, "next")
        await anyio.sleep(4)
        permit.unsent()

    assert pytest.approx(4, abs=1e-4) == line.admitted["next"]


@pytest.mark.anyio
async def test_a_slow_answer_costs_no_more_than_reach() -> None:
    """
    A call's token is back *reach* and *per* after its last byte left, if another was answered.
    """
    quota = Quota(Rate(2, per=10.0), reach=4.0)
    line = Line(quota)
    async with anyio.create_task_group() as tasks:
        (await taken(quota)).sent()
        await anyio.sleep(1)
        (await taken(quota)).answered()
        await tasks.start(line.call, "token of the answered")
        await tasks.start(line.call, "token of the slow")

    assert pytest.approx(1 + PER, abs=1e-4) == line.admitted["token of the answered"]
    assert pytest.approx(4 + PER, abs=1e-4) == line.admitted["token of the slow"]


@pytest.mark.anyio
async def test_a_quota_without_rates_admits_at_once() -> None:
    """
    A quota without rates keeps nobody waiting.
    """
    line = Line(Quota())

    async with anyio.create_task_group() as tasks:
        for name in range(100):
            tasks.start_soon(line.call, name)

    assert {0.0} == set(line.admitted.values())


@pytest.mark.anyio
@pytest.mark.parametrize("calls", [1, 5, 6, 60, 61, 130, 400])
async def test_an_idle_quota_knows_when_so_many_calls_are_through(calls: int) -> None:
    """
    The estimate of an idle quota is the time in which so many calls, answered at once, go out.
    """
    quota = Quota(*VENDOR)
    line = Line(quota)
    estimate = quota.estimate(calls)

    async with anyio.create_task_group() as tasks:
        for name in range(calls):
            tasks.start_soon(line.call, name)

    assert pytest.approx(max(line.admitted.values()), abs=1e-3) == estimate
    floor = 60 * ((calls - 1) // 60) + (calls - 1) % 60 // 5
    assert floor <= estimate <= floor * 1.0003


@pytest.mark.anyio
async def test_an_estimate_counts_those_who_wait() -> None:
    """
    Calls to come stand behind those that wait, and no calls take no time.
    """
    quota = Quota(Rate(1, per=10.0))
    line = Line(quota)
    assert 0.0 == quota.estimate(0)
    (await taken(quota)).answered()

    async with anyio.create_task_group() as tasks:
        for name in range(3):
            await tasks.start(line.call, name)
        assert pytest.approx(4 * PER) == quota.estimate(1)
        assert pytest.approx(3 * PER) == quota.estimate(0)


@pytest.mark.anyio
async def test_statistics_are_a_snapshot() -> None:
    """
    Statistics say what is free, waiting, next, admitted and refused at one moment, for ever.
    """
    second, minute = Rate(2, per=1.0), Rate(3, per=10.0)
    quota = Quota(second, minute)
    line = Line(quota)
    idle = quota.statistics()
    (await taken(quota)).answered()
    under_way = await taken(quota)
    async with anyio.create_task_group() as tasks:
        await tasks.start(line.call, "one")
        await tasks.start(line.call, "other")
        busy = quota.statistics()

        assert {second: 0, minute: 1} == busy.free
        assert pytest.approx(1 + DRIFT) == busy.next_in
        assert (2, 0) == (busy.admitted, busy.refused)
        assert {"interactive": 2, "poll": 0, "bulk": 0} == busy.waiting
        await anyio.sleep(1.5)
        third = quota.statistics()
        assert {second: 0, minute: 0} == third.free
        # Two of the minute's three are answered, and of those the first is the first back.
        assert pytest.approx(PER - 1.5, abs=1e-4) == third.next_in
        under_way.unsent()
    await anyio.sleep(20)
    (await taken(quota)).refused()

    assert QuotaStatistics({second: 2, minute: 3}, NOBODY, 0.0, 0, 0, 0.0) == idle
    assert (5, 1) == (quota.statistics().admitted, quota.statistics().refused)
    # The server counted three in ten seconds, and knew of none of ours.
    assert pytest.approx(18) == quota.statistics().foreign
    assert (2, 0) == (busy.waiting["interactive"], busy.refused)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        busy.admitted = 0  # type: ignore[misc]


@pytest.mark.anyio
async def test_only_an_answer_can_tell() -> None:
    """
    While every token is with a call under way, the next admission is infinitely far.
    """
    quota = Quota(Rate(1, per=10.0))
    permit = await taken(quota)

    assert inf == quota.statistics().next_in
    permit.answered()
    assert pytest.approx(PER) == quota.statistics().next_in


# --- cancelled by asyncio itself, on its own loop


class Queue:
    """Tasks of asyncio's own that wait for one token; each admitted one hands it on at once."""

    def __init__(self, waiters: int) -> None:
        self.quota = Quota(Rate(1, per=3600.0))
        self.admitted: list[int] = []
        self.tasks = [asyncio.create_task(self._wait(name)) for name in range(waiters)]

    async def _wait(self, name: int) -> None:
        async with self.quota.permit() as permit:
            self.admitted.append(name)
            await asyncio.sleep(0)
            permit.unsent()

    async def formed(self) -> Permit:
        """Take the token and let the line form behind it."""
        permit = await taken(self.quota)
        await asyncio.sleep(0)
        assert len(self.tasks) == self.quota.statistics().waiting["interactive"]
        return permit

    async def served(self, *gone: int) -> None:
        """See that the *gone* were cancelled, that all others were served and no token is lost."""
        async with asyncio.timeout(5):
            ends = await asyncio.gather(*self.tasks, return_exceptions=True)
        cancelled = [isinstance(end, asyncio.CancelledError) for end in ends]
        assert [name in gone for name in range(len(ends))] == cancelled
        assert [name for name in range(len(ends)) if name not in gone] == self.admitted
        assert [1] == list(self.quota.statistics().free.values())
        assert NOBODY == self.quota.statistics().waiting


@pytest.mark.asyncio
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("gone", [(0,), (2,), (4,), (0, 1, 2), (1, 0), (3, 4)])
async def test_a_task_cancelled_natively_takes_nothing_and_delays_nobody(
    gone: tuple[int, ...], times: int
) -> None:
    """
    Cancelled by asyncio, once or twice, first, middle or last: the others get the token.
    """
    queue = Queue(5)
    permit = await queue.formed()

    for name in gone:
        for _ in range(times):
            queue.tasks[name].cancel()
    await asyncio.sleep(0)
    permit.unsent()

    await queue.served(*gone)


@pytest.mark.asyncio
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("first", ["the turn", "the cancellation"])
async def test_a_turn_that_comes_with_a_native_cancellation_loses_no_token(
    first: str, times: int
) -> None:
    """
    A task whose turn and cancellation come in one step of the loop leaves the token to the next.
    """
    queue = Queue(2)
    permit = await queue.formed()

    if first == "the turn":
        permit.unsent()
    for _ in range(times):
        queue.tasks[0].cancel()
    if first == "the cancellation":
        permit.unsent()

    await queue.served(0)


@pytest.mark.asyncio
@pytest.mark.parametrize("steps", range(6))
async def test_a_line_that_is_cancelled_one_by_one_reaches_its_last(steps: int) -> None:
    """
    Each is cancelled while it learns that it is first, at whichever step; the last is served.
    """
    queue = Queue(4)
    permit = await queue.formed()

    for task in queue.tasks[:3]:
        task.cancel()
        for _ in range(steps):
            await asyncio.sleep(0)
    permit.unsent()

    await queue.served(0, 1, 2)


@pytest.mark.asyncio
async def test_a_native_timeout_in_the_line_loses_no_token() -> None:
    """
    A caller that `asyncio.timeout` takes out of the line leaves the token to the next.
    """
    queue = Queue(1)
    permit = await queue.formed()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), queue.quota.permit():
            raise AssertionError("admitted without a token")
    permit.unsent()

    await queue.served()


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("early", [-1e-6, 0.0, 1e-6])
def test_a_native_cancellation_at_the_time_of_the_turn_is_not_swallowed(
    early: float, times: int
) -> None:
    """
    A task cancelled while its own wait runs out ends cancelled, or was admitted before; never both.
    """

    async def run() -> None:
        quota = Quota(Rate(1, per=4.0))
        line = Line(quota)
        (await taken(quota)).answered()
        loop = asyncio.get_running_loop()
        waiter = asyncio.create_task(line.call("cancelled"))
        following = asyncio.create_task(line.call("following"))
        await asyncio.sleep(0)
        turn = loop.time() + quota.statistics().next_in
        for _ in range(times):
            loop.call_at(turn - early, waiter.cancel)

        (end, _) = await asyncio.gather(waiter, following, return_exceptions=True)

        assert ("cancelled" in line.admitted) == (end is None)
        assert 1 + len(line.admitted) == quota.statistics().admitted
        in_turn = [pytest.approx(4 * (1 + DRIFT) * n, abs=1e-4) for n in (1, 2)]
        assert in_turn[: len(line.admitted)] == list(line.admitted.values())

    with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(start=0)) as runner:
        runner.run(run())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_h7_a_quota_stays_in_its_event_loop(backend: str) -> None:
    """
    In another event loop, whose clock is another, a quota admits nobody, and says so.
    """
    quota = Quota(*VENDOR)
    anyio.run(taken, quota, backend=backend)
    with pytest.raises(ConfigurationError, match="quota: belongs to another event loop"):
        anyio.run(taken, quota, backend=backend)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
async def test_asyncio_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    In a program that has nothing to do with asyncio the clock is found all the same.
    """
    quota = Quota(Rate(1, per=10.0))
    monkeypatch.delitem(sys.modules, "asyncio")
    (await taken(quota)).answered()

    assert pytest.approx(PER) == quota.statistics().next_in


@pytest.mark.anyio
async def test_a_refusal_without_rates_is_counted() -> None:
    """
    A quota that holds nobody back counts refusals, and holds nobody back after them.
    """
    quota = Quota()
    for _ in range(2):
        (await taken(quota)).refused(per=1.0)

    statistics = quota.statistics()
    assert (2, 2, 0.0) == (statistics.refused, statistics.admitted, statistics.foreign)


@pytest.mark.anyio
@pytest.mark.parametrize(("per", "foreign"), [(1.0, 300), (2.0, 300), (60.0, 60), (None, 60)])
async def test_c15_a_refusal_is_about_the_rate_that_was_named(
    per: float | None, foreign: float
) -> None:
    """
    What others use is estimated for the rate that the server named, else for the longest.
    """
    quota = Quota(*VENDOR)
    (await taken(quota)).refused(per=per)

    assert foreign == quota.statistics().foreign


@pytest.mark.anyio
async def test_an_estimate_is_a_duration_and_minds_the_reserve() -> None:
    """
    Whatever the time, it is said how long a lane's next call would take, and that is waited for.
    """
    await anyio.sleep(1000)
    quota = Quota(Rate(2, per=10.0), reserve=1)
    (await taken(quota)).answered()

    assert [0.0, 0.0] == [quota.estimate(1), quota.estimate(0, lane="bulk")]
    wait = quota.estimate(1, lane="bulk")
    assert pytest.approx(PER) == wait
    line = Line(quota)
    with pytest.raises(QuotaWaitError):
        await line.call("hurried", lane="bulk", max_wait=wait - 0.001)
    await line.call("patient", lane="bulk", max_wait=wait)
    assert {"patient": pytest.approx(PER, abs=1e-4)} == line.admitted


@pytest.mark.anyio
async def test_calls_under_way_end_a_linger_from_now_for_whoever_comes_next() -> None:
    """
    What is handed to another quota counts calls that nobody answered as long as they may last.
    """
    await anyio.sleep(100)
    quota = Quota(Rate(5, per=60.0), linger=7.0, reach=None)
    (await taken(quota)).answered()
    await taken(quota)
    now = anyio.current_time()

    assert [now, now + 7] == quota.ends()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Quota(linger=-1.0), "linger: give a number of seconds, at least 0"),
        (lambda: Quota(reserve=1), "reserve: give a whole number below every rate's limit"),
        (lambda: Quota().permit(lane="fast"), "lane: give one of interactive, poll, bulk"),  # type: ignore[arg-type]
        (lambda: Rate(0, per=1.0), "limit: give a whole number of calls, at least 1"),
        (lambda: Rate(1, per=0.0), "per: give a number of seconds above 0"),
    ],
)
def test_what_to_give_instead_is_told(make: Callable[[], object], words: str) -> None:
    """
    Whoever gives what makes no sense learns what would.
    """
    with pytest.raises(InvalidArgumentError) as caught:
        make()

    assert words == str(caught.value)
