"""The quota: a bucket that decides, as tables; a shell that waits, on a clock that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import deepcopy
from math import inf, nan
from typing import Any

import anyio
import attrs
import looptime
import pytest
from anyio.abc import TaskStatus
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flipsnack_async import Quota, Rate
from flipsnack_async.errors import InvalidArgumentError
from flipsnack_async.quota import DRIFT, Permit, QuotaStatistics, Token, TokenBucket

VENDOR = (Rate(5, per=1.0), Rate(60, per=60.0))

REACH, LINGER = 4.0, 30.0
PER = 10 * (1 + DRIFT)
A_MOMENT = 1e-6

bounded = settings(max_examples=60, derandomize=True, deadline=None)


# --- the rates


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("5/1s", (Rate(5, per=1.0),)),
        ("5/1s,60/60s", VENDOR),
        (" 5/1s , 60/60s ", VENDOR),
        ("3/0.5s", (Rate(3, per=0.5),)),
        ("999999999/999999999s", (Rate(999_999_999, per=999_999_999.0),)),
    ],
)
def test_rates_are_read_as_they_are_written(text: str, rates: tuple[Rate, ...]) -> None:
    """
    What the command line writes is read, blanks around it or not.
    """
    assert rates == Rate.parse(text)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "rates"),
        ("5", "rates"),
        ("5/1", "rates"),
        ("5/s", "rates"),
        ("/1s", "rates"),
        ("5/1s,", "rates"),
        ("5/1s;60/60s", "rates"),
        ("5 /1s", "rates"),
        ("-5/1s", "rates"),
        ("5/-1s", "rates"),
        ("5/.5s", "rates"),
        ("5/1e3s", "rates"),
        ("5/infs", "rates"),
        ("5/1m", "rates"),
        ("1_0/1s", "rates"),
        ("٥/1s", "rates"),  # noqa: RUF001 - the Arabic digit is the point
        ("1234567890/1s", "rates"),
        ("0/1s", "limit"),
        ("5/0s", "per"),
        ("5/0.0s", "per"),
    ],
)
def test_text_that_is_no_rate_is_refused(text: str, field: str) -> None:
    """
    Text that is no rate is refused, naming what is wrong with it.
    """
    with pytest.raises(InvalidArgumentError) as caught:
        Rate.parse(text)

    assert field == caught.value.field


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Rate(0, per=1.0), "limit"),
        (lambda: Rate(-1, per=1.0), "limit"),
        (lambda: Rate(True, per=1.0), "limit"),
        (lambda: Rate(2.0, per=1.0), "limit"),  # type: ignore[arg-type]
        (lambda: Rate("2", per=1.0), "limit"),  # type: ignore[arg-type]
        (lambda: Rate(2, per=0.0), "per"),
        (lambda: Rate(2, per=-1.0), "per"),
        (lambda: Rate(2, per=inf), "per"),
        (lambda: Rate(2, per=nan), "per"),
        (lambda: Quota(reach=-1.0), "reach"),
        (lambda: Quota(reach=inf), "reach"),
        (lambda: Quota(reach=nan), "reach"),
        (lambda: Quota(linger=-1.0), "linger"),
        (lambda: Quota(linger=inf), "linger"),
        (lambda: Quota(linger=nan), "linger"),
        (lambda: Quota(linger=None), "linger"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_named(make: Callable[[], object], field: str) -> None:
    """
    A rate or a quota that makes no sense is refused when it is made, naming the argument.
    """
    with pytest.raises(InvalidArgumentError) as caught:
        make()

    assert field == caught.value.field


def test_rates_and_quotas_show_what_they_allow() -> None:
    """
    A rate reads as it is parsed, and a quota names its rates.
    """
    assert "3/0.5s" == str(Rate(3, per=0.5))
    assert VENDOR == Rate.parse(",".join(map(str, VENDOR)))
    assert "Quota(5/1s, 60/60s)" == repr(Quota(*VENDOR))


# --- the bucket

Event = tuple[float, str, str]


def told(rates: tuple[Rate, ...], reach: float | None, *events: Event) -> TokenBucket:
    """Make a bucket and tell it *events*: when, of which call, what."""
    bucket = TokenBucket(rates, reach, LINGER)
    tokens: dict[str, Token] = {}
    for at, call, what in events:
        if what == "take":
            tokens[call] = bucket.take(at)
        elif what == "unsent":
            bucket.unsent(tokens[call])
        else:
            getattr(bucket, what)(tokens[call], at)
    return bucket


@pytest.mark.parametrize(
    ("reach", "events", "end"),
    [
        pytest.param(REACH, [(0.2, "a", "answered")], 0.2, id="answered"),
        pytest.param(REACH, [], inf, id="not a word"),
        pytest.param(REACH, [(1, "a", "abandoned")], 31, id="abandoned: linger later"),
        pytest.param(REACH, [(1, "a", "sent")], inf, id="sent, no sign of life"),
        pytest.param(REACH, [(1, "a", "sent"), (3, "b", "answered")], 5, id="sign of life"),
        pytest.param(REACH, [(1, "a", "sent"), (1, "b", "answered")], 5, id="sign at once"),
        pytest.param(REACH, [(1, "a", "sent"), (9, "b", "answered")], 5, id="sign beyond reach"),
        pytest.param(REACH, [(0.5, "b", "answered"), (1, "a", "sent")], inf, id="sign too early"),
        pytest.param(REACH, [(3, "b", "answered")], inf, id="sign before the last byte"),
        pytest.param(
            REACH, [(1, "a", "sent"), (3, "b", "abandoned")], inf, id="given up: no sign of life"
        ),
        pytest.param(
            REACH,
            [(1, "a", "sent"), (2, "b", "answered"), (3, "a", "answered")],
            3,
            id="answered within reach",
        ),
        pytest.param(
            REACH,
            [(1, "a", "sent"), (2, "b", "answered"), (9, "a", "answered")],
            5,
            id="answered beyond reach",
        ),
        pytest.param(
            REACH, [(1, "a", "sent"), (2, "a", "abandoned")], 32, id="sent, abandoned, no sign"
        ),
        pytest.param(
            REACH,
            [(1, "a", "sent"), (2, "a", "abandoned"), (3, "b", "answered")],
            5,
            id="sent, abandoned, sign",
        ),
        pytest.param(
            REACH,
            [(2, "a", "abandoned"), (3, "b", "answered")],
            32,
            id="abandoned before the last byte: no reach",
        ),
        pytest.param(None, [(1, "a", "answered")], 1, id="absolute: answered"),
        pytest.param(None, [(1, "a", "sent"), (3, "b", "answered")], inf, id="absolute: no guess"),
        pytest.param(
            None,
            [(1, "a", "sent"), (2, "a", "abandoned"), (3, "b", "answered")],
            32,
            id="absolute: abandoned",
        ),
        # Said twice, or too late
        pytest.param(
            REACH,
            [(1, "a", "sent"), (2, "a", "sent"), (3, "b", "answered")],
            5,
            id="sent twice",
        ),
        pytest.param(REACH, [(1, "a", "answered"), (9, "a", "answered")], 1, id="answered twice"),
        pytest.param(REACH, [(1, "a", "abandoned"), (9, "a", "abandoned")], 31, id="left twice"),
        pytest.param(REACH, [(1, "a", "answered"), (2, "a", "abandoned")], 1, id="left after all"),
        pytest.param(
            REACH,
            [(1, "a", "answered"), (2, "a", "sent"), (3, "b", "answered")],
            1,
            id="sent after the answer",
        ),
        pytest.param(
            REACH, [(1, "a", "abandoned"), (6, "a", "answered")], 6, id="answered after all"
        ),
        pytest.param(
            REACH, [(1, "a", "abandoned"), (99, "a", "answered")], 31, id="answered beyond linger"
        ),
    ],
)
def test_a_token_is_back_per_after_the_end(
    reach: float | None, events: list[Event], end: float
) -> None:
    """
    A token is back *per*, stretched by the drift, after its call's end, and not a moment before.
    """
    bucket = told((Rate(9, per=10.0),), reach, (0, "a", "take"), (0, "b", "take"), *events)
    back = end + PER if end < inf else 1e9

    before, after = bucket.free(back - A_MOMENT), bucket.free(back + A_MOMENT)

    assert (0 if end == inf else 1) == after[0] - before[0]
    others = sum(what in ("answered", "abandoned") and call == "b" for _, call, what in events)
    assert 9 - (end == inf) - (1 - others) == bucket.free(1e9)[0]


@pytest.mark.parametrize(
    "events",
    [
        [(1, "a", "unsent")],
        [(1, "a", "unsent"), (1, "a", "unsent")],
        [(1, "a", "unsent"), (1, "a", "sent"), (1, "b", "answered")],
        [(1, "a", "unsent"), (1, "a", "answered")],
        [(1, "a", "unsent"), (1, "a", "abandoned")],
        [(1, "a", "sent"), (1, "a", "unsent"), (1, "b", "answered")],
        [(1, "a", "abandoned"), (1, "a", "unsent")],
    ],
    ids=lambda events: ", ".join(f"{call} {what}" for _, call, what in events),
)
def test_what_was_not_sent_takes_nothing(events: list[Event]) -> None:
    """
    A call of which not a byte left gives its tokens back at once, once, whatever else is said.
    """
    bucket = told(VENDOR, REACH, (0, "a", "take"), (0, "b", "take"), *events)

    assert [4, 59] == bucket.free(1)
    # In the end all are there but the other's, if it lasts, and none that came back twice.
    held = 0 if (1, "b", "answered") in events else 1
    assert [5 - held, 60 - held] == bucket.free(1e9)


def test_a_call_takes_a_token_out_of_every_bucket() -> None:
    """
    A call takes one token of every rate at once, and each comes back in its own time.
    """
    bucket = TokenBucket(VENDOR, REACH, LINGER)
    for _ in range(5):
        bucket.answered(bucket.take(0.0), 0.5)

    assert [0, 55] == bucket.free(0.5)
    assert pytest.approx(0.5 + 1 * (1 + DRIFT)) == bucket.free_at()
    assert [5, 55] == bucket.free(0.5 + 1.001)
    assert [5, 55] == bucket.free(0.5 + 60.0)
    assert [5, 60] == bucket.free(0.5 + 60.016)


@pytest.mark.parametrize(
    ("events", "free_at"),
    [
        pytest.param([], -inf, id="nothing taken"),
        pytest.param([(0, "a", "take")], -inf, id="one left"),
        pytest.param([(0, "a", "take"), (0, "b", "take")], inf, id="only an answer can tell"),
        pytest.param(
            [(0, "a", "take"), (0, "b", "take"), (3, "b", "answered")], 3 + PER, id="one answered"
        ),
        pytest.param(
            [(0, "a", "take"), (0, "b", "take"), (3, "b", "answered"), (2, "a", "answered")],
            2 + PER,
            id="the first to end is the first back",
        ),
        pytest.param(
            [(0, "a", "take"), (0, "b", "take"), (3, "b", "answered"), (4, "a", "unsent")],
            -inf,
            id="one not sent",
        ),
    ],
)
def test_free_at_says_when_every_bucket_has_a_token(events: list[Event], free_at: float) -> None:
    """
    The next call may go when each bucket has a token: in the past, at a time, or nobody knows.
    """
    assert pytest.approx(free_at) == told((Rate(2, per=10.0),), REACH, *events).free_at()


def test_without_rates_nothing_is_held_back() -> None:
    """
    A bucket without rates has always room.
    """
    bucket = told((), REACH, (0, "a", "take"), (0, "b", "take"))

    assert -inf == bucket.free_at()
    assert [] == bucket.free(0)
    assert 7.0 == bucket.through_at(1000, 7.0)


@bounded
@example(end=262143.05613008747, per=1.0)
@given(end=st.floats(0, 1e7), per=st.floats(0.01, 1e5))
def test_a_token_that_may_be_taken_is_counted(end: float, per: float) -> None:
    """
    The moment a token may be taken it counts as free, and never fewer than none are left.
    """
    bucket = TokenBucket([Rate(1, per=per)], REACH, LINGER)
    bucket.answered(bucket.take(end), end)
    free_at = bucket.free_at()

    assert [1] == bucket.free(free_at)
    bucket.take(free_at)
    assert [0] == bucket.free(free_at)


@pytest.mark.parametrize("ends", [["answered"], ["abandoned"], ["answered", "abandoned"]])
def test_a_day_of_calls_costs_no_memory(ends: list[str]) -> None:
    """
    What a bucket remembers is bounded by its rates, answered or given up, not by its age.
    """
    bucket = TokenBucket(VENDOR, REACH, LINGER)
    now = 0.0
    for end in ends * 2000:
        now = max(now, bucket.free_at())
        token = bucket.take(now)
        bucket.sent(token, now)
        getattr(bucket, end)(token, now)

    assert 200 > len(bucket._ends)
    assert 200 > len(bucket._silent)


@attrs.frozen
class Life:
    """Be a bucket of the vendor's rates in mid-life, with its calls under way."""

    bucket: TokenBucket
    under_way: list[Token]
    now: float

    def through_at(self, calls: int) -> float:
        """Live on: answer every call at once, and say when the last of so many went out."""
        life = deepcopy(self)
        for token in life.under_way:
            life.bucket.answered(token, life.now)
        at = life.now
        for _ in range(calls):
            at = max(at, life.bucket.free_at())
            life.bucket.answered(life.bucket.take(at), at)
        return at


@st.composite
def lives(draw: st.DrawFn, reach: float | None) -> Life:
    """Draw up to 80 steps of a bucket's life, up to 3 s apart."""
    bucket = TokenBucket(VENDOR, reach, LINGER)
    under_way: list[Token] = []
    now = 0.0
    steps = st.tuples(st.sampled_from(["take", "take", "answered", "abandoned"]), st.floats(0, 3))
    for what, pause in draw(st.lists(steps, max_size=80)):
        now += pause
        if what == "take" and bucket.free_at() <= now:
            under_way.append(bucket.take(now))
            bucket.sent(under_way[-1], now)
        elif what != "take" and under_way:
            getattr(bucket, what)(under_way.pop(0), now)
    return Life(bucket, under_way, now)


@bounded
@given(life=lives(reach=None), calls=st.integers(0, 500))
def test_through_at_is_what_then_happens(life: Life, calls: int) -> None:
    """
    The predicted end of n calls is when the n-th goes out, if from now on all are answered at once.
    """
    assert pytest.approx(life.through_at(calls), abs=1e-6) == life.bucket.through_at(
        calls, life.now
    )


@bounded
@given(life=lives(reach=REACH), calls=st.integers(0, 500))
def test_through_at_promises_no_sign_of_life(life: Life, calls: int) -> None:
    """
    What a sign of life to come would win is not counted on: the prediction is never too early.
    """
    assert life.through_at(calls) - 1e-6 <= life.bucket.through_at(calls, life.now)


# --- the shell


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
    ) -> None:
        """
        Wait in line and be answered at once.

        Goes from telling *task_status* to standing in line in one step. A
        turn that never comes fails the test instead of hanging it.
        """
        task_status.started()
        with anyio.fail_after(10_000), scope or anyio.CancelScope():
            async with self.quota.permit() as permit:
                self.admitted[name] = anyio.current_time() - self.start
                permit.answered()


async def taken(quota: Quota) -> Permit:
    """Be admitted, and stay so."""
    permit = quota.permit()
    await permit.__aenter__()
    return permit


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
    assert 0 == quota.statistics().waiting


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
async def test_an_absolute_quota_waits_for_the_answer() -> None:
    """
    Without *reach* only its own answer brings a call's token back.
    """
    quota = Quota(Rate(2, per=10.0), reach=None)
    line = Line(quota)
    async with anyio.create_task_group() as tasks:
        slow = await taken(quota)
        slow.sent()
        (await taken(quota)).answered()
        await tasks.start(line.call, "token of the answered")
        await tasks.start(line.call, "third")
        await tasks.start(line.call, "token of the slow")
        await anyio.sleep(25)
        slow.answered()

    times = [PER, 2 * PER, 3 * PER]
    assert [pytest.approx(at, abs=1e-4) for at in times] == list(line.admitted.values())


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
    (await taken(quota)).refused()
    under_way = await taken(quota)
    async with anyio.create_task_group() as tasks:
        await tasks.start(line.call, "one")
        await tasks.start(line.call, "other")
        busy = quota.statistics()

        assert {second: 0, minute: 1} == busy.free
        assert pytest.approx(1 + DRIFT) == busy.next_in
        assert (2, 2, 1) == (busy.waiting, busy.admitted, busy.refused)
        await anyio.sleep(1.5)
        third = quota.statistics()
        assert {second: 0, minute: 0} == third.free
        # Two of the minute's three are answered, and of those the first is the first back.
        assert pytest.approx(PER - 1.5, abs=1e-4) == third.next_in
        under_way.unsent()

    assert QuotaStatistics({second: 2, minute: 3}, 0, 0.0, 0, 0) == idle
    assert 2 == busy.waiting
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        busy.waiting = 0  # type: ignore[misc]


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
        assert len(self.tasks) == self.quota.statistics().waiting
        return permit

    async def served(self, *gone: int) -> None:
        """See that the *gone* were cancelled, that all others were served and no token is lost."""
        async with asyncio.timeout(5):
            ends = await asyncio.gather(*self.tasks, return_exceptions=True)
        cancelled = [isinstance(end, asyncio.CancelledError) for end in ends]
        assert [name in gone for name in range(len(ends))] == cancelled
        assert [name for name in range(len(ends)) if name not in gone] == self.admitted
        assert [1] == list(self.quota.statistics().free.values())
        assert 0 == self.quota.statistics().waiting


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
