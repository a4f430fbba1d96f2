"""
The quota before judges that know nothing of it: they see when calls arrive at a server.

Each judge has its own idea of "so many calls in so many seconds", the
vendor's being unknown. The calls come as badly as they may: late, lost,
given up, in any lane, cancelled in line and on their way, by a loop that stood
still, on a server whose clock is slow.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from math import floor, inf

import anyio
import attrs
import looptime
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from trio.testing import MockClock

from flipsnack_async import Quota, Rate
from flipsnack_async._buckets import Token, TokenBucket
from flipsnack_async.quota import Lane

Limits = Sequence[tuple[int, float]]

VENDOR: Limits = ((5, 1.0), (60, 60.0))
RATES: dict[str, Limits] = {
    "5/1s,60/60s": VENDOR,
    "3/0.5s": ((3, 0.5),),
    "2/1s,7/10s,11/60s": ((2, 1.0), (7, 10.0), (11, 60.0)),
}
LANES: tuple[Lane, ...] = ("interactive", "poll", "bulk")
SLOW = 1 - 200e-6
"""How fast the slowest server clock runs that must not refuse anybody."""


# --- the judges


def most_sliding(arrivals: Sequence[float], limit: int, per: float) -> float:
    """Count the calls of the fullest window of *per* seconds, wherever it begins."""
    window, most = deque[float](), 0
    for at in arrivals:
        window.append(at)
        while at - window[0] >= per:
            window.popleft()
        most = max(most, len(window))
    return most


def most_calendar(arrivals: Sequence[float], limit: int, per: float) -> float:
    """Count the calls of the fullest calendar window, whatever second the calendar began with."""
    offsets = [per * part / 20 for part in range(20)] + [at % per for at in arrivals[:40]]
    return max(
        max(Counter(floor((at - offset) / per) for at in arrivals).values(), default=0)
        for offset in offsets
    )


def most_opened(arrivals: Sequence[float], limit: int, per: float) -> float:
    """Count the calls of the fullest window, where the first call after a window opens the next."""
    opened, held, most = -inf, 0, 0
    for at in arrivals:
        if at - opened >= per:
            opened, held = at, 0
        held += 1
        most = max(most, held)
    return most


def most_poured(arrivals: Sequence[float], limit: int, per: float) -> float:
    """Measure the highest level of a bucket that loses *limit* calls in *per* seconds, evenly."""
    level, most, last = 0.0, 0.0, -inf
    for at in arrivals:
        level = max(0.0, level - (at - last) * limit / per) + 1
        most, last = max(most, level), at
    return most


JUDGES = {
    "sliding": most_sliding,
    "calendar": most_calendar,
    "opened by the first call": most_opened,
    "refilled": most_poured,
}
Judge = Callable[[Sequence[float], int, float], float]


def verdicts(arrivals: Sequence[float], limits: Limits) -> dict[str, bool]:
    """Hear all judges, on a good clock and on a slow one: was every window within its limit?"""
    clocks = {"": sorted(arrivals), ", slow clock": sorted(at * SLOW for at in arrivals)}
    return {
        f"{limit} in {per:g} s, {name}{clock}": judge(seen, limit, per) <= limit + 1e-9
        for clock, seen in clocks.items()
        for name, judge in JUDGES.items()
        for limit, per in limits
    }


def blame(arrivals: Sequence[float], limits: Limits) -> list[str]:
    """List the judges that would have refused a call."""
    return [name for name, good in verdicts(arrivals, limits).items() if not good]


@pytest.mark.parametrize(
    ("arrivals", "most", "level"),
    [
        ([], 0, 0),
        ([0.0, 0.0, 0.0], 3, 3),
        ([0.0, 0.0, 0.0, 0.0], 4, 4),
        ([0.0, 0.0, 0.0, 10.0, 10.0, 10.0], 3, 3),
        ([0.0, 0.0, 0.0, 2.0, 2.0, 2.0], 6, 5.4),
    ],
)
def test_judges_see_a_crowded_window(arrivals: list[float], most: int, level: float) -> None:
    """
    The judges of windows count the fullest, that of the bucket what has not run out of it yet.
    """
    seen = {name: judge(arrivals, 3, 10.0) for name, judge in JUDGES.items()}

    assert {name: level if name == "refilled" else most for name in JUDGES} == pytest.approx(seen)


@pytest.mark.parametrize(
    ("arrivals", "over"),
    [
        # The three calls to a window are late in one and early in the next.
        ([0.0, 9.0, 9.0, 10.0, 10.0, 11.0], {"sliding", "calendar", "refilled"}),
        # Three to a calendar window, and three after the first; never four at once or in a bucket.
        ([0.0, 5.0, 9.9, 10.0, 12.0, 14.9], {"sliding", "calendar"}),
    ],
)
def test_judges_differ(arrivals: list[float], over: set[str]) -> None:
    """
    Each judge has an idea of its own: the same calls are too many for some and not for others.
    """
    assert over == {name for name, judge in JUDGES.items() if judge(arrivals, 3, 10.0) > 3}


# --- traffic


@attrs.frozen
class Path:
    """Be the network: how long a call needs to arrive, and its answer to come back."""

    there: tuple[float, float]
    back: tuple[float, float]


QUICK = Path(there=(0.0, 0.25), back=(0.0, 0.25))
LONG = Path(there=(0.0, 3.9), back=(2.0, 8.0))
REACH, LINGER = 4.0, 30.0


@attrs.define
class Traffic:
    """Send calls through *quota* and note when they arrive, which nobody but the judges knows."""

    quota: Quota
    chance: random.Random
    arrivals: list[float] = attrs.field(factory=list)
    fates: Counter[str] = attrs.field(factory=Counter)

    async def call(self) -> None:
        """Send one call, and let it meet what may happen to it."""
        chance = self.chance
        fate = chance.choices(
            ["answered", "lost", "cancelled", "torn", "unsent", "impatient"], [70, 4, 8, 4, 6, 8]
        )[0]
        patience = chance.uniform(0, 20) if fate == "impatient" else inf
        path = LONG if chance.random() < 0.2 else QUICK
        with anyio.move_on_after(patience) as waiting:
            lane = chance.choice(LANES)
            upload = chance.random() < 0.1
            async with self.quota.permit(lane=lane, deadline=inf, upload=upload) as permit:
                waiting.deadline = inf
                self.fates[fate] += 1
                if fate == "unsent":
                    await anyio.sleep(chance.uniform(0, 3))
                    permit.unsent()
                    return
                await anyio.sleep(chance.choice([0.0, 0.0, 0.0, chance.uniform(0, 2)]))
                if fate == "torn":
                    # Its last byte never left here, and yet it may be counted, any time within
                    # *linger*.
                    self.arrive_in(chance.uniform(0, LINGER - 1))
                    return
                permit.sent()
                there, back = chance.uniform(*path.there), chance.uniform(*path.back)
                self.arrive_in(there)
                if fate == "cancelled":
                    with anyio.move_on_after(chance.uniform(0, there + back)):
                        await anyio.sleep_forever()
                elif fate == "lost":
                    await anyio.sleep(there + chance.uniform(0, 15))
                else:
                    await anyio.sleep(there + back)
                    permit.answered()

    def arrive_in(self, seconds: float) -> None:
        self.arrivals.append(anyio.current_time() + seconds)


async def send(traffic: Traffic, calls: int, workers: int) -> None:
    """Send so many calls, so many at once."""
    left = iter(range(calls))

    async def work() -> None:
        for _ in left:
            await traffic.call()

    with anyio.fail_after(1e6):
        async with anyio.create_task_group() as tasks:
            for _ in range(workers):
                tasks.start_soon(work)


def quota_of(limits: Limits, reach: float | None = REACH) -> Quota:
    return Quota(*(Rate(limit, per=per) for limit, per in limits), reach=reach, linger=LINGER)


judged = settings(
    max_examples=8,
    derandomize=True,
    deadline=None,
    # Every example runs on a loop of its own; the backend is only its name.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.anyio
@pytest.mark.parametrize("reach", [REACH, None])
@pytest.mark.parametrize("limits", RATES.values(), ids=RATES)
@judged
@given(chance=st.randoms(use_true_random=True), workers=st.sampled_from([8, 40, 120]))
async def test_no_judge_would_refuse_a_call(
    limits: Limits, reach: float | None, chance: random.Random, workers: int
) -> None:
    """
    However calls of any lane are delayed, lost or cancelled, no window holds more than its limit.
    """
    traffic = Traffic(quota_of(limits, reach), chance)

    await send(traffic, 120, workers)

    assert [] == blame(traffic.arrivals, limits)
    assert sum(traffic.fates.values()) == traffic.quota.statistics().admitted
    await anyio.sleep(LINGER + 61)
    assert [limit for limit, _ in limits] == list(traffic.quota.statistics().free.values())


@pytest.mark.anyio
async def test_the_judges_find_fault_with_counting_at_the_sending() -> None:
    """
    Calls whose end is told when they are sent are too many, if only the first few are late.
    """
    arrivals: list[float] = []
    quota = quota_of(VENDOR)

    for number in range(12):
        async with quota.permit() as permit:
            arrivals.append(anyio.current_time() + (0.25 if number < 5 else 0.0))
            permit.answered()

    assert [f"5 in 1 s, {name}" for name in JUDGES] == blame(arrivals, VENDOR)[:4]


def stand_still(backend: str, seconds: float) -> None:
    """Let time pass in which the loop runs nothing: a laptop asleep, a process stopped."""
    if backend == "trio":
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        clock.jump(seconds)
    else:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, looptime.LoopTimeEventLoop)
        loop.setup_looptime(start=loop.time() + seconds)


@pytest.mark.anyio
@pytest.mark.parametrize("limits", RATES.values(), ids=RATES)
async def test_a_loop_that_stood_still_sends_no_burst(
    anyio_backend_name: str, limits: Limits
) -> None:
    """
    After half a minute in which nothing ran, all that is due goes out within the limits.
    """
    traffic = Traffic(quota_of(limits), random.Random(2))  # noqa: S311 - no secret

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send, traffic, 150, 150)
        for _ in range(6):
            await anyio.sleep(3.3)
            before = anyio.current_time()
            stand_still(anyio_backend_name, 30)
            assert pytest.approx(30) == anyio.current_time() - before

    assert [] == blame(traffic.arrivals, limits)


# --- the pace


def floor_of(calls: int) -> float:
    """Say how long the vendor's rates take at least for so many calls."""
    return 60 * ((calls - 1) // 60) + ((calls - 1) % 60) // 5


async def seconds_for(calls: int, path: Path, chance: random.Random) -> float:
    """Send so many calls by 60 workers, and say how long it took until the last one arrived."""
    arrivals: list[float] = []
    quota = quota_of(VENDOR)
    left = iter(range(calls))

    async def work() -> None:
        for _ in left:
            async with quota.permit() as permit:
                permit.sent()
                await anyio.sleep(chance.uniform(*path.there))
                arrivals.append(anyio.current_time())
                await anyio.sleep(chance.uniform(*path.back))
                permit.answered()

    start = anyio.current_time()
    with anyio.fail_after(1e6):
        async with anyio.create_task_group() as tasks:
            for _ in range(60):
                tasks.start_soon(work)
    assert [] == blame(arrivals, VENDOR)
    return max(arrivals) - start


@pytest.mark.anyio
async def test_answers_of_a_fifth_of_a_second_keep_the_pace() -> None:
    """
    600 calls at 0.1 s each way take no more than a hundredth above the least possible.
    """
    path = Path(there=(0.1, 0.1), back=(0.1, 0.1))

    seconds = await seconds_for(600, path, random.Random(3))  # noqa: S311 - no secret

    assert 551 == floor_of(600)
    assert 551 <= seconds <= 551 / 0.99


@pytest.mark.anyio
@pytest.mark.parametrize(("calls", "pace"), [(600, 0.87), (300, 0.80)])
@pytest.mark.parametrize("seed", range(3))
async def test_answers_of_many_seconds_keep_most_of_the_pace(
    seed: int, calls: int, pace: float
) -> None:
    """
    Answers of 2 to 12 s cost a start and *reach* for each minute: 0.87 of the pace of 600 calls.

    60 calls take a minute to start with, 5 of them under way for *reach* and
    a second, and then 64 seconds again and again. Of 300 calls the start is
    the larger part, which leaves 0.80.
    """
    path = Path(there=(0.05, 0.25), back=(1.95, 11.75))

    seconds = await seconds_for(calls, path, random.Random(seed))  # noqa: S311 - no secret

    assert floor_of(calls) <= seconds <= floor_of(calls) / pace


# --- the bucket alone, word by word


@attrs.define(eq=False)
class Call:
    """Be one call as the world sees it: what was said of it, and whether it is at the server."""

    token: Token
    arrived: bool = False
    sent_at: float | None = None
    left_at: float | None = None  # when nobody listened any more, or the answer was here
    unsent: bool = False
    answered: bool = False


class Bucket(RuleBasedStateMachine):
    """
    Tell a bucket anything that can happen to calls, and let a judge count the arrivals.

    The world keeps what the quota's docstring assumes, and no more: a call
    arrives before its answer, within *reach* of its last byte, within *linger*
    of being given up.
    """

    @initialize(
        limits=st.sampled_from(list(RATES.values())),
        reach=st.sampled_from([None, 0.5, REACH]),
        linger=st.sampled_from([0.5, LINGER]),
    )
    def open(self, limits: Limits, reach: float | None, linger: float) -> None:
        self.limits, self.reach, self.linger = limits, reach, linger
        rates = [Rate(limit, per=per) for limit, per in limits]
        self.bucket = TokenBucket(rates, reach, linger)
        self.now = 0.0
        self.calls: list[Call] = []
        self.arrivals: list[float] = []

    def can_arrive(self, call: Call) -> bool:
        reached = (
            self.reach is None or call.sent_at is None or self.now <= call.sent_at + self.reach
        )
        lingers = call.left_at is None or self.now <= call.left_at + self.linger
        return reached and lingers and not (call.unsent or call.answered)

    def those(self, is_meant: Callable[[Call], bool]) -> list[Call]:
        return [call for call in self.calls if is_meant(call)]

    @rule(seconds=st.one_of(st.floats(0, 1), st.floats(0, 40)))
    def tick(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.now < self.bucket.free_at() < inf)
    @rule()
    def wait_for_a_token(self) -> None:
        self.now = self.bucket.free_at()

    @precondition(lambda self: self.bucket.free_at() <= self.now)
    @rule(several=st.integers(1, 5), arrive=st.booleans())
    def take(self, several: int, arrive: bool) -> None:
        for _ in range(several):
            if self.bucket.free_at() <= self.now:
                call = Call(self.bucket.take(self.now))
                self.calls.append(call)
                if arrive:
                    self._arrive(call)

    @precondition(lambda self: self.those(self.is_open))
    @rule(which=st.integers(0))
    def sent(self, which: int) -> None:
        call = self.pick(self.is_open, which)
        self.bucket.sent(call.token, self.now)
        call.sent_at = self.now if call.sent_at is None else call.sent_at

    @precondition(lambda self: self.those(self.is_on_its_way))
    @rule(which=st.integers(0))
    def arrive(self, which: int) -> None:
        self._arrive(self.pick(self.is_on_its_way, which))

    @precondition(lambda self: self.those(self.is_answerable))
    @rule(which=st.integers(0))
    def answer(self, which: int) -> None:
        call = self.pick(self.is_answerable, which)
        if not call.arrived:
            self._arrive(call)
        self.bucket.answered(call.token, self.now)
        call.answered = True
        call.left_at = self.now if call.left_at is None else call.left_at

    @precondition(lambda self: self.those(self.is_open))
    @rule(which=st.integers(0))
    def abandon(self, which: int) -> None:
        call = self.pick(self.is_open, which)
        self.bucket.abandoned(call.token, self.now)
        call.left_at = self.now

    @precondition(lambda self: self.those(self.is_unheard_of))
    @rule(which=st.integers(0))
    def unsent(self, which: int) -> None:
        call = self.pick(self.is_unheard_of, which)
        self.bucket.unsent(call.token)
        call.unsent, call.left_at = True, self.now

    @precondition(lambda self: self.those(self.is_over))
    @rule(which=st.integers(0), word=st.sampled_from(["sent", "answered", "abandoned"]))
    def say_it_again(self, which: int, word: str) -> None:
        """Say something of a call that is over: nothing can come of it."""
        getattr(self.bucket, word)(self.pick(self.is_over, which).token, self.now)

    @invariant()
    def no_window_holds_more_than_its_limit(self) -> None:
        assert [] == blame(self.arrivals, self.limits)

    @invariant()
    def tokens_are_between_none_and_all(self) -> None:
        # A moment later than now: what rounding does to the very moment has its own test.
        free = self.bucket.free(self.now + 1e-9)
        assert all(0 <= left <= limit for left, (limit, _) in zip(free, self.limits, strict=True))
        assert (0 < min(free)) == (self.bucket.free_at() <= self.now + 1e-9)

    def teardown(self) -> None:
        """See that no token is lost for ever: all is over, and its time has passed."""
        for call in self.those(self.is_open):
            self.bucket.abandoned(call.token, self.now)
        assert [limit for limit, _ in self.limits] == self.bucket.free(self.now + self.linger + 61)

    def is_open(self, call: Call) -> bool:
        return call.left_at is None

    def is_over(self, call: Call) -> bool:
        return call.unsent or call.answered

    def is_on_its_way(self, call: Call) -> bool:
        return not call.arrived and self.can_arrive(call)

    def is_answerable(self, call: Call) -> bool:
        return not call.answered and (call.arrived or self.can_arrive(call))

    def is_unheard_of(self, call: Call) -> bool:
        return self.is_open(call) and call.sent_at is None and not call.arrived

    def pick(self, is_meant: Callable[[Call], bool], which: int) -> Call:
        calls = self.those(is_meant)
        return calls[which % len(calls)]

    def _arrive(self, call: Call) -> None:
        call.arrived = True
        self.arrivals.append(self.now)


TestBucket = Bucket.TestCase
TestBucket.settings = settings(
    max_examples=60, stateful_step_count=50, derandomize=True, deadline=None
)
