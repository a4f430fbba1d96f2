"""Somebody else uses the key: what refusals teach, and how little of the key is wasted."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from hashlib import md5
from itertools import pairwise
from statistics import median

import anyio
import attrs
import httpx
import pytest

from flipsnack_async import Flipsnack, Quota, Rate
from flipsnack_async._rivalry import LONGEST_PATIENCE, Rivalry
from flipsnack_async.sandbox import Sandbox

SECOND, MINUTE = VENDOR = (Rate(5, per=1.0), Rate(60, per=60.0))


# --- the estimate


@pytest.mark.parametrize(
    ("rate", "out", "foreign", "a_minute"),
    [
        # One of those out is the refused call itself.
        (MINUTE, 61, [0, 0], 0),
        (MINUTE, 31, [0, 30], 30),
        (MINUTE, 1, [0, 60], 60),
        (MINUTE, 0, [0, 60], 60),
        (SECOND, 3, [3, 0], 180),
    ],
)
def test_what_we_did_not_use_somebody_else_did(
    rate: Rate, out: int, foreign: list[int], a_minute: float
) -> None:
    """
    At a refusal, the calls of others are the limit less those of ours that were counted.
    """
    rivalry = Rivalry(VENDOR)

    rivalry.refused(rate, out, 1, 0.0)

    assert foreign == rivalry.foreign
    assert a_minute == rivalry.foreign_per_minute


def test_several_refusals_count_as_one_estimate() -> None:
    """
    Refused calls hold tokens and are not counted: a second refusal adds no foreign call.
    """
    rivalry = Rivalry(VENDOR)

    rivalry.refused(MINUTE, 31, 31, 0.0)
    rivalry.refused(MINUTE, 32, 32, 0.1)

    assert [0, 30] == rivalry.foreign


def test_a_trial_gives_all_back_and_fails_at_double_the_price() -> None:
    """
    After a window all tokens are given back for trial; each failed trial doubles the wait.
    """
    rivalry = Rivalry(VENDOR)
    now, waits = 0.0, []
    rivalry.refused(MINUTE, 31, 31, now)
    for number in range(6):
        waits.append(round((rivalry.trial_at - now) / 60))
        assert not rivalry.advance(rivalry.trial_at - 0.001)
        now = rivalry.trial_at
        assert rivalry.advance(now)
        assert [0, 0] == rivalry.foreign
        assert rivalry.is_single_file(now)
        assert rivalry.is_single_file(now + 59.9)
        now += 30
        rivalry.refused(MINUTE, 31, 100 + 31 * number, now)

    assert [1, 2, 4, 8, 8, 8] == waits
    assert LONGEST_PATIENCE == max(waits)


def test_a_trial_that_succeeds_ends_the_rivalry() -> None:
    """
    A window of trial without a refusal, and nothing is left of it: the next begins anew.
    """
    rivalry = Rivalry(VENDOR)
    rivalry.refused(MINUTE, 31, 31, 0.0)
    assert rivalry.advance(60.0)
    rivalry.refused(MINUTE, 31, 90, 90.0)
    assert rivalry.advance(210.0)

    assert not rivalry.advance(271.0)

    assert not rivalry.is_single_file(271.0)
    rivalry.refused(MINUTE, 31, 300, 1000.0)
    assert 1060.0 == rivalry.trial_at


def test_refusals_of_ours_hold_tokens_for_their_window_only() -> None:
    """
    Of the tokens that are out those of refused calls are left out, as long as they are out.
    """
    rivalry = Rivalry(VENDOR)
    for now, out, foreign in ((0.0, 5, 1), (0.5, 4, 3), (2.0, 4, 3), (2.5, 3, 4)):
        rivalry.refused(SECOND, out, 1, now)
        assert [foreign, 0] == rivalry.foreign


def test_refusals_in_a_row_double_the_pause() -> None:
    """
    Where no call comes through between two refusals the next one waits, up to a window.
    """
    rivalry = Rivalry(VENDOR)
    rivalry.refused(MINUTE, 31, 10, 0.0)
    assert rivalry.pause_until < 0

    pauses = []
    for number in range(1, 8):
        rivalry.refused(MINUTE, 31, 10 + number, 100.0 * number)
        pauses.append(rivalry.pause_until - 100.0 * number)
    assert [2, 4, 8, 16, 32, 60, 60] == pauses

    rivalry.refused(MINUTE, 31, 50, 1000.0)
    assert rivalry.pause_until < 1000
    rivalry.refused(MINUTE, 31, 51, 1001.0)
    assert 1003.0 == rivalry.pause_until


# --- the whole


class Server:
    """Count calls as they arrive, whoever makes them, and refuse those that are too many."""

    def __init__(self, *, count_refused: bool) -> None:
        self.count_refused = count_refused
        self._arrivals = [deque[float]() for _ in VENDOR]

    def refuses(self) -> float | None:
        """Return the period of the rate that a call exceeds that arrives now."""
        now = anyio.current_time()
        exceeded = None
        for rate, arrivals in zip(VENDOR, self._arrivals, strict=True):
            while arrivals and arrivals[0] <= now - rate.per:
                arrivals.popleft()
            if len(arrivals) >= rate.limit:
                exceeded = exceeded or rate.per
        if exceeded is None or self.count_refused:
            for arrivals in self._arrivals:
                arrivals.append(now)
        return exceeded


@attrs.define
class Contest:
    """Let us and a rival call one server, and note whose calls were let in when."""

    server: Server
    chance: random.Random
    quota: Quota = attrs.field(factory=lambda: Quota(*VENDOR))
    ours: list[float] = attrs.field(factory=list)
    refused: list[float] = attrs.field(factory=list)
    theirs: list[float] = attrs.field(factory=list)  # those that fill the server's windows

    async def work(self) -> None:
        while True:
            async with self.quota.permit() as permit:
                await anyio.sleep(self.chance.uniform(0, 0.25))
                period = self.server.refuses()
                now = anyio.current_time()
                (self.ours if period is None else self.refused).append(now)
                permit.sent()
                await anyio.sleep(self.chance.uniform(0, 0.25))
                if period is None:
                    permit.answered()
                else:
                    permit.refused(per=period)
            if period is not None:
                await anyio.sleep(self.chance.uniform(1, 2))

    async def compete(self, pause: Callable[[], float], until: float) -> None:
        while anyio.current_time() < until:
            await anyio.sleep(pause())
            if self.server.refuses() is None or self.server.count_refused:
                self.theirs.append(anyio.current_time())

    async def run(self, seconds: float, pause: Callable[[], float], head_start: float) -> float:
        """Compete for so many seconds, and return when we began."""
        began = anyio.current_time() + head_start
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.compete, pause, began + seconds)
            await anyio.sleep(head_start)
            self.theirs.clear()
            for _ in range(30):
                tasks.start_soon(self.work)
            await anyio.sleep(seconds)
            tasks.cancel_scope.cancel()
        return began


def contest(seed: int, *, count_refused: bool = True) -> Contest:
    return Contest(Server(count_refused=count_refused), random.Random(seed))  # noqa: S311 - no secret


def in_minutes(times: list[float], start: float, minutes: int) -> list[int]:
    return [sum(start + 60 * n <= t < start + 60 * (n + 1) for t in times) for n in range(minutes)]


@pytest.mark.anyio
@pytest.mark.parametrize("count_refused", [True, False])
@pytest.mark.parametrize("jitter", [0.0, 0.3])
@pytest.mark.parametrize("every", [2.0, 6.0])
async def test_what_a_rival_leaves_is_used(
    every: float, jitter: float, count_refused: bool
) -> None:
    """
    Beside a steady rival 0.9 of what he leaves is used, at less than 3 refused calls in a hundred.
    """
    minutes = 22
    both = contest(1, count_refused=count_refused)
    pause = lambda: every * both.chance.uniform(1 - jitter, 1 + jitter)  # noqa: E731

    await both.run(60 * minutes, pause, head_start=120)

    assert len(both.ours) >= 600
    left = 60 * minutes - len(both.theirs)
    assert len(both.ours) >= 0.9 * left
    assert len(both.refused) <= 0.03 * (len(both.ours) + len(both.refused))
    assert len(both.refused) == both.quota.statistics().refused


@pytest.mark.anyio
@pytest.mark.parametrize("every", [2.0, 4.0])
async def test_the_estimate_of_a_rival_is_close(every: float) -> None:
    """
    The statistics say how many calls a minute a steady rival makes, to within a sixth.
    """
    both = contest(2)
    seen: list[float] = []

    async def look() -> None:
        while True:
            await anyio.sleep(10)
            seen.append(both.quota.statistics().foreign)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        await both.run(1200, lambda: every, head_start=120)
        tasks.cancel_scope.cancel()

    truth = len(both.theirs) / 20
    assert truth * 5 / 6 <= median(n for n in seen if n) <= truth * 7 / 6


@pytest.mark.anyio
@pytest.mark.parametrize("count_refused", [True, False])
async def test_a_rival_that_takes_all_is_asked_about_twice_a_minute_at_most(
    count_refused: bool,
) -> None:
    """
    Where nothing is left, the probes are few, so that refused calls alone do not fill the windows.
    """
    both = contest(3, count_refused=count_refused)

    began = await both.run(1200, lambda: 0.2, head_start=65)

    probes = in_minutes(both.refused, began, 20)
    assert sum(probes[1:]) <= 2 * 19
    assert 0 < sum(probes[10:])


@pytest.mark.anyio
@pytest.mark.parametrize("count_refused", [True, False])
@pytest.mark.parametrize("every", [0.2, 2.0])
async def test_the_pace_returns_when_the_rival_stops(every: float, count_refused: bool) -> None:
    """
    Within the longest patience and two windows after the rival's last call we have it all.
    """
    both = contest(4, count_refused=count_refused)
    stop = anyio.current_time() + 65 + 540

    def pause() -> float:
        return every if anyio.current_time() < stop else 1e6

    await both.run(540 + 60 * 14, pause, head_start=65)

    minutes = in_minutes(both.ours, stop, 14)
    assert min(minutes[LONGEST_PATIENCE + 2 :]) >= 57
    assert 0.0 == both.quota.statistics().foreign


@pytest.mark.anyio
@pytest.mark.parametrize("count_refused", [True, False])
async def test_after_a_restart_a_used_up_minute_costs_few_probes(count_refused: bool) -> None:
    """
    A new process in a minute that the last one used up asks one call at a time, ever less often.
    """
    both = contest(5, count_refused=count_refused)
    for _ in range(60):
        assert both.server.refuses() is None
        await anyio.sleep(0.21)

    began = await both.run(300, lambda: 1e6, head_start=0.3)

    first_answer = both.refused[0] + 0.25
    probes = [at for at in both.refused if at > first_answer]
    assert len(both.refused) - len(probes) <= 5
    assert len(probes) <= 8
    assert all(late - early >= 0.5 for early, late in pairwise(probes))
    assert sum(in_minutes(both.ours, began, 5)[2:]) >= 57 * 3


async def rival_calls(box: Sandbox, requests: Iterator[httpx.Request], every: float) -> None:
    """Call the sandbox with the same key, by a client that knows nothing of us."""
    async with httpx.AsyncClient(transport=box.transport()) as client:
        for request in requests:
            await anyio.sleep(every)
            await client.send(request)


def signed_by_hand(box: Sandbox) -> httpx.Request:
    text = f"{box.api_secret}actionuser.getStatsapiKey{box.api_key}"
    signature = md5(text.encode(), usedforsecurity=False).hexdigest()
    params = {"action": "user.getStats", "apiKey": box.api_key, "signature": signature}
    return httpx.Request("GET", "https://api.flipsnack.com/v1/", params=params)


@pytest.mark.anyio
async def test_a_harvest_beside_a_rival_is_whole() -> None:
    """
    600 collections are harvested beside a rival with the same key; no row is lost to refusals.
    """
    random.seed(6)
    box = Sandbox(collections=600, count_refused=True, latency=0.1)
    errors = []

    async with anyio.create_task_group() as tasks:
        requests = (signed_by_hand(box) for _ in iter(int, 1))
        tasks.start_soon(rival_calls, box, requests, 2.0)
        async with Flipsnack(box.api_key, box.api_secret, transport=box.transport()) as flipsnack:
            start = anyio.current_time()
            async with flipsnack.harvest(list(box.hashes)) as rows:
                errors = [row.error async for row in rows]
            took = anyio.current_time() - start
        tasks.cancel_scope.cancel()

    assert [None] * 600 == errors
    ours = [call for call in box.ledger if call.action == "collection.getStats"]
    refused = [call for call in ours if call.code in (31, 32)]
    assert len(refused) <= 0.03 * len(ours)
    rivals = [call for call in box.ledger if call.action == "user.getStats" and call.code == 20]
    left = took - len(rivals)
    assert 600 >= 0.9 * left
