"""What the vendor may answer, limit and refuse, C1 to C21."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import anyio
import httpx
import pytest
from scripted import answering, client, done, page, refused

from flipsnack_async import (
    APIError,
    AuthenticationError,
    CollectionUnavailableError,
    ConnectionFailedError,
    Flipsnack,
    FlipsnackError,
    HarvestRow,
    InvalidAnswerError,
    InvalidRequestError,
    NoAnswerError,
    Quota,
    QuotaWaitError,
    Rate,
    StillProcessingError,
    UploadOutcomeUnknownError,
)
from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

PDF = b"%PDF-1.7\n..."
STATS = done(views=7, api_uploads_left=53)


class Server(httpx.AsyncBaseTransport):
    """Answer by a rule of the time and the number of the call, 0.1 s after it came."""

    def __init__(self, rule: Callable[[float, int], dict[str, Any]]) -> None:
        self._rule = rule
        self.arrivals: list[float] = []
        self.first_answer_at: float | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        now = anyio.current_time()
        self.arrivals.append(now)
        answer = self._rule(now, len(self.arrivals))
        await anyio.sleep(0.1)
        self.first_answer_at = self.first_answer_at or anyio.current_time()
        return httpx.Response(200, json=answer)


def most_in(seconds: float, times: list[float]) -> int:
    """Count the most that fall into any so many seconds."""
    return max((sum(t <= u < t + seconds for u in times) for t in times), default=0)


async def all_of(number: int, call: Callable[[int], Any]) -> list[Any]:
    """Make so many calls at once, and return what each returned or raised."""
    ends: list[Any] = [None] * number

    async def carry_out(index: int) -> None:
        try:
            ends[index] = await call(index)
        except FlipsnackError as error:
            ends[index] = error

    async with anyio.create_task_group() as tasks:
        for index in range(number):
            tasks.start_soon(carry_out, index)
    return ends


# --- C1, C3: HTTP's own words


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_c1_a_server_error_is_tried_again_with_growing_pauses(status: int) -> None:
    """
    After a 5xx a read goes out again, each time after a pause whose bound doubles.
    """
    transport, seen = answering(page(status), page(status), page(status), STATS)
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        began = anyio.current_time()
        assert 7 == (await flipsnack.user.get_stats()).views
        took = anyio.current_time() - began

    assert 4 == len(seen)
    assert 0 < took <= 1 + 2 + 4


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_c1_after_a_server_error_an_upload_is_open(status: int) -> None:
    """
    A gateway's error may hide a success, so an upload is not sent again after one.
    """
    transport, seen = answering(page(status), done(collectionHash="new1"))
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        with pytest.raises(UploadOutcomeUnknownError):
            await flipsnack.collections.create(PDF)

    assert 1 == len(seen)


async def test_c3_http_429_is_waited_for_and_its_permit_spent() -> None:
    """
    A call of any effect that HTTP refuses goes out again after a while, and both were calls.
    """
    transport, seen = answering(page(429), STATS, page(429), done(collectionHash="new1"))
    async with Flipsnack("k", "s", transport=transport, attempts=1) as flipsnack:
        for call in (flipsnack.user.get_stats(), flipsnack.collections.create(PDF)):
            began = anyio.current_time()
            await call
            assert 5 <= anyio.current_time() - began <= 180
        statistics = flipsnack.quota.statistics()

    assert 4 == len(seen) == statistics.admitted
    assert 2 == statistics.refused


# --- C4: maintenance


async def test_c4_an_hour_of_maintenance_costs_two_probes_a_minute_and_no_call() -> None:
    """
    Fifty callers, new ones among them all the time, wait for an hour, and every one succeeds.
    """
    hour = 3600.0
    began = anyio.current_time()
    server = Server(lambda now, _: refused(22) if now < began + hour else STATS)
    successes: list[float] = []
    async with Flipsnack("k", "s", transport=server, attempts=1) as flipsnack:

        async def call(index: int) -> None:
            await anyio.sleep(max(0, index - 25) * 100)  # half of them come while it lasts
            match index % 3:
                case 0:
                    await flipsnack.user.get_stats()
                case 1:
                    await flipsnack.call("new.action")
                case _:
                    await flipsnack.with_options(lane="bulk").user.get_stats()
            successes.append(anyio.current_time())

        ends = await all_of(50, call)

    assert not [end for end in ends if isinstance(end, Exception)]
    assert server.first_answer_at is not None
    burst = [at for at in server.arrivals if at < server.first_answer_at]
    assert len(burst) <= 5
    probes = [at for at in server.arrivals[len(burst) :] if at < began + hour]
    assert most_in(60.0, probes) <= 2
    assert hour / 300 <= len(probes) <= hour / 30
    assert 50 == len(server.arrivals) - len(burst) - len(probes)
    assert min(successes) <= began + hour + 300 + 0.2
    assert max(successes) <= min(successes) + 12


async def test_c4_who_waits_goes_on_when_a_probe_succeeds() -> None:
    """
    When the probe of one caller is answered, the others do not sleep on until their own.
    """
    server = Server(lambda _, number: refused(22) if number <= 8 else STATS)
    times: list[float] = []
    async with Flipsnack("k", "s", transport=server, rates=()) as flipsnack:

        async def call(_: int) -> None:
            await flipsnack.user.get_stats()
            times.append(anyio.current_time())

        await all_of(7, call)

    assert 7 == len(times)
    assert max(times) <= min(times) + 0.11


async def test_c4_a_probe_that_is_cancelled_ends_no_wait() -> None:
    """
    Where the caller that probed is gone, another one probes, after a pause as always.
    """
    began = anyio.current_time()
    server = Server(lambda now, _: refused(22) if now < began + 100 else STATS)
    views: list[int | None] = []
    async with Flipsnack("k", "s", transport=server) as flipsnack:

        async def call() -> None:
            views.append((await flipsnack.user.get_stats()).views)

        async with anyio.create_task_group() as others, anyio.create_task_group() as cancelled:
            cancelled.start_soon(call)
            await anyio.sleep(0.01)
            others.start_soon(call)
            others.start_soon(call)
            while len(server.arrivals) < 4:  # noqa: ASYNC110 - whoever it is, he is the probe
                await anyio.sleep(0.05)
            cancelled.cancel_scope.cancel()
        took = anyio.current_time() - began

    assert [7, 7] == views
    assert 100 < took <= 100 + 300
    assert most_in(60.0, server.arrivals[3:]) <= 2


async def test_c4_a_harvest_pauses_and_loses_nothing() -> None:
    """
    A harvest in whose middle maintenance lies has every row, and probes while it waits.
    """
    hashes = [f"hash{n}" for n in range(150)]
    began = anyio.current_time()
    server = Server(lambda now, _: refused(22) if 70 <= now - began < 1270 else STATS)
    async with Flipsnack("k", "s", transport=server) as flipsnack:
        async with flipsnack.harvest(hashes) as rows:
            gathered = [row async for row in rows]

    assert sorted(hashes) == sorted(row.collection_hash for row in gathered)
    assert not [row for row in gathered if row.error]
    during = [at for at in server.arrivals if 70 + 1 <= at - began < 1270]
    assert most_in(60.0, during) <= 2
    assert len(server.arrivals) <= 150 + 5 + 1200 / 30


async def test_c4_a_short_deadline_is_told_of_the_maintenance() -> None:
    """
    Who cannot wait for the next probe is told why, at once, and the server is not asked again.
    """
    transport, seen = answering(refused(22, "Maintenance mode"))
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        hurried = flipsnack.with_options(max_wait=5.0)
        began = anyio.current_time()
        for _ in range(20):
            with pytest.raises(APIError, match="Maintenance mode") as caught:
                await hurried.user.get_stats()
            assert 22 == caught.value.code
        assert began == anyio.current_time()

    assert 1 == len(seen)


# --- C5, C6: rates


async def test_c5_all_callers_pause_after_a_31() -> None:
    """
    After a second's refusal nobody sends for that second, and the refused call counts as one.
    """
    box = Sandbox()
    box.fail("user.getStats", code=31)
    async with client(box, attempts=1) as flipsnack:
        ends = await all_of(6, lambda _: flipsnack.user.get_stats())

    assert not [end for end in ends if isinstance(end, Exception)]
    first = box.ledger[0]
    assert 31 == first.code
    at_once = [call for call in box.ledger if call.at == first.at]
    later = [call.at for call in box.ledger if call.at > first.at]
    assert len(at_once) <= 5
    assert min(later) >= first.at + 1
    assert [20] * 6 == [call.code for call in box.ledger if call is not first]


async def test_c6_a_32_is_waited_for_up_to_a_minute() -> None:
    """
    After a minute's refusal a call goes out again within 5 to 60 s, and so does an upload.
    """
    no = refused(32, "Requests per minute limit exceeded")
    transport, seen = answering(no, STATS, no, done(collectionHash="new1"))
    async with Flipsnack("k", "s", transport=transport, rates=[Rate(60, per=60.0)]) as flipsnack:
        for call in (flipsnack.user.get_stats(), flipsnack.collections.create(PDF)):
            began = anyio.current_time()
            await call
            assert 5 <= anyio.current_time() - began <= 60 + 1

    assert 4 == len(seen)


@pytest.mark.parametrize("max_wait", [10.0, 20.0])
async def test_c7_the_question_for_the_count_is_part_of_the_wait(max_wait: float) -> None:
    """
    The call that finds out what a 32 means waits on the upload's account, not on one of its own.
    """
    random.seed(1)  # the back-off is spread at random
    transport, _ = answering(*[refused(32, ""), STATS] * 9)
    async with Flipsnack("k", "s", transport=transport, rates=[Rate(1, per=5.0)]) as flipsnack:
        began = anyio.current_time()
        with pytest.raises(APIError):
            await flipsnack.with_options(max_wait=max_wait).collections.create(PDF)

    assert anyio.current_time() - began <= max_wait + 0.01


# --- C10 to C14: what waiting does not help


async def test_c10_a_call_on_what_is_processed_raises_at_once() -> None:
    """
    A single call does not wait for a conversion.
    """
    box = Sandbox(convert_seconds=60.0)
    async with client(box) as flipsnack:
        created = await flipsnack.collections.create(PDF)
        began = anyio.current_time()
        with pytest.raises(StillProcessingError):
            await flipsnack.collections.update(created, title="Spring")
        with pytest.raises(StillProcessingError):
            await flipsnack.collections.download_html(created)
        assert began == anyio.current_time()

    assert [20, 38, 38] == [call.code for call in box.ledger]


async def test_c10_who_waits_asks_one_call_at_a_time() -> None:
    """
    An export waits through the conversion, at one call every so many seconds.
    """
    box = Sandbox(convert_seconds=60.0, export_seconds=20.0)
    async with client(box) as flipsnack:
        created = await flipsnack.collections.create(PDF)
        package = await flipsnack.collections.export(created, every=5.0)

    assert package.resource_url
    asked = [call for call in box.ledger if call.action == "collection.downloadHTML"]
    assert [38] == sorted({call.code for call in asked} - {20}, key=str)
    assert all(4 <= later.at - earlier.at <= 10 for earlier, later in pairwise(asked))


@pytest.mark.parametrize("code", [30, 40, 42, 46, 47])
async def test_c11_what_is_wrong_stays_wrong(code: int) -> None:
    """
    A call that the vendor finds wrong is not sent again; the error names it and nothing it held.
    """
    transport, seen = answering(refused(code))
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        for call in (
            flipsnack.collections.get_stats("canary1"),
            flipsnack.collections.update("canary1", title="canary2"),
            flipsnack.call("new.action", {"name": "canary3"}),
            flipsnack.collections.create(PDF, title="canary4"),
        ):
            with pytest.raises(APIError) as caught:
                await call
            assert code == caught.value.code
            assert caught.value.action in str(caught.value)
            assert "canary" not in f"{caught.value!r} {caught.value}"
            assert (code in (30, 40, 42)) == isinstance(caught.value, InvalidRequestError)

    assert 4 == len(seen)


@pytest.mark.parametrize("codes", [(41, 41, 41), (44, 44, 44), (41, 44, 41)])
async def test_c12_after_three_rejections_nothing_is_sent(codes: tuple[int, ...]) -> None:
    """
    Three wrong credentials in a row shut a client and its views; a new client calls again.
    """
    transport, seen = answering(*map(refused, codes), STATS)
    flipsnack = Flipsnack("k", "s", transport=transport)
    for code in codes:
        with pytest.raises(AuthenticationError) as caught:
            await flipsnack.user.get_stats()
        assert code == caught.value.code
    assert 3 == len(seen)

    view = flipsnack.with_options(lane="bulk", attempts=9)
    for call in (
        flipsnack.user.get_stats,
        lambda: view.collections.get_stats("hash1"),
        lambda: flipsnack.call("new.action"),
        lambda: flipsnack.collections.create(PDF),
    ):
        with pytest.raises(AuthenticationError) as caught:
            await call()
        assert codes[-1] == caught.value.code
    with pytest.raises(AuthenticationError):
        async with flipsnack.harvest(["hash1"]) as rows:
            await anext(rows)
    assert 3 == len(seen)
    # What was never sent costs no quota either.
    assert [2, 57] == list(flipsnack.quota.statistics().free.values())
    await flipsnack.aclose()

    async with Flipsnack("k", "s", transport=transport) as another:
        assert 7 == (await another.user.get_stats()).views


async def test_c12_a_success_in_between_resets() -> None:
    """
    Only rejections in a row count: a client that is let in between goes on.
    """
    transport, seen = answering(*[refused(41), refused(44), STATS] * 5, refused(43), STATS)
    async with Flipsnack("k", "s", transport=transport, rates=()) as flipsnack:
        for _ in range(5):
            for _ in range(2):
                with pytest.raises(AuthenticationError):
                    await flipsnack.user.get_stats()
            await flipsnack.user.get_stats()

    assert 15 == len(seen)


async def test_c12_failures_in_between_reset_nothing() -> None:
    """
    A lost answer or a gateway's page says nothing of the credentials.
    """
    transport, seen = answering(
        refused(41),
        httpx.ReadError(""),
        page(502),
        refused(41),
        httpx.ConnectError(""),
        refused(41),
    )
    async with Flipsnack("k", "s", transport=transport, rates=(), attempts=1) as flipsnack:
        for _ in range(9):
            with pytest.raises(FlipsnackError):
                await flipsnack.user.get_stats()

    assert 6 == len(seen)


async def test_c13_a_key_revoked_in_the_middle_ends_a_harvest() -> None:
    """
    The rows before the rejection are kept, the harvest ends with it, and little more is sent.
    """
    server = Server(lambda _, number: STATS if number <= 30 else refused(41))
    rows_seen: list[HarvestRow] = []
    async with Flipsnack("k", "s", transport=server) as flipsnack:
        with pytest.raises(AuthenticationError) as caught:
            async with flipsnack.harvest([f"hash{n}" for n in range(100)]) as rows:
                async for row in rows:
                    rows_seen.append(row)

    assert 41 == caught.value.code
    assert not [row for row in rows_seen if row.error]
    assert 25 <= len(rows_seen) <= 30
    assert len(server.arrivals) <= 30 + 5


async def test_c14_what_is_gone_is_a_row_of_its_own() -> None:
    """
    A collection that was deleted is asked for once and recorded with the vendor's code.
    """
    box = Sandbox(collections=20)
    hashes = box.hashes
    box.remove(hashes[3])
    async with client(box) as flipsnack:
        async with flipsnack.harvest(hashes) as rows:
            errors = {row.collection_hash: row.error async for row in rows}

    gone = errors.pop(hashes[3])
    assert isinstance(gone, CollectionUnavailableError)
    assert 43 == gone.code
    assert [None] * 19 == list(errors.values())
    assert 20 == len(box.ledger)


# --- C15, C16: somebody else uses the key


async def test_c15_beside_another_process_we_yield_and_get_on() -> None:
    """
    A rival who takes half of the minute slows us down, without a storm of refusals.
    """
    box = Sandbox()
    async with client(box) as flipsnack, client(box, quota=Quota()) as rival:
        ours, theirs = flipsnack.with_options(lane="bulk"), rival.with_options(max_wait=0.0)
        done_by_us = 0

        async def work() -> None:
            nonlocal done_by_us
            while True:
                await ours.collections.get_stats(box.hashes[0])
                done_by_us += 1

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(work)
            for _ in range(300):
                await anyio.sleep(2.0)
                with suppress(APIError):
                    await theirs.user.get_stats()
            tasks.cancel_scope.cancel()

    refusals = [c for c in box.ledger if c.action == "collection.getStats" and c.code in (31, 32)]
    assert done_by_us >= 0.9 * 10 * 30
    assert len(refusals) <= 0.1 * done_by_us


async def test_c16_where_refused_calls_count_the_wait_ends_all_the_same() -> None:
    """
    A server that counts refused calls, too, is not kept shut by our own repetitions.
    """
    box = Sandbox(count_refused=True)
    async with client(box, quota=Quota(Rate(5, per=1.0), Rate(60, per=60.0))) as before:
        await all_of(60, lambda _: before.user.get_stats())
    async with client(box, quota=Quota(Rate(5, per=1.0), Rate(60, per=60.0))) as flipsnack:
        began = anyio.current_time()
        ends = await all_of(40, lambda _: flipsnack.user.get_stats())
        took = anyio.current_time() - began

    assert not [end for end in ends if isinstance(end, Exception)]
    assert len([call for call in box.ledger if call.code in (31, 32)]) <= 20
    assert took <= 4 * 60


# --- C18 to C20: crowds


async def test_c18_a_crowd_in_bulk_keeps_nobody_waiting() -> None:
    """
    Behind 1,000 calls in bulk, with a reserve, a poll and a user's call leave within 2 s.
    """
    server = Server(lambda _, number: STATS)
    quota = Quota(Rate(5, per=1.0), Rate(60, per=60.0), reserve=2)
    took: dict[str, list[float]] = {"interactive": [], "poll": []}
    async with Flipsnack("k", "s", transport=server, quota=quota) as flipsnack:

        async def ask(lane: Any) -> None:
            began = anyio.current_time()
            await flipsnack.with_options(lane=lane).user.get_stats()
            took[lane].append(anyio.current_time() - began)

        bulk = flipsnack.with_options(lane="bulk")
        async with anyio.create_task_group() as tasks:
            for _ in range(1_000):
                tasks.start_soon(bulk.user.get_stats)
            for _ in range(5):
                await anyio.sleep(70)
                tasks.start_soon(ask, "poll")
                tasks.start_soon(ask, "interactive")
            await anyio.sleep(30)
            waiting = quota.statistics().waiting
            tasks.cancel_scope.cancel()

    assert [5, 5] == [len(times) for times in took.values()]
    assert max(took["interactive"] + took["poll"]) <= 2
    assert 0.9 * 380 <= len(server.arrivals)  # and nobody starves
    assert 1_000 - 460 <= waiting["bulk"] <= 1_000 - 300


@pytest.mark.parametrize(
    ("callers", "failure", "kind"),
    [
        (1_000, page(503), InvalidAnswerError),
        (1_000, httpx.ReadError(""), NoAnswerError),
        (1_000, httpx.ConnectError("refused"), ConnectionFailedError),
    ],
    ids=["page", "reset", "refused"],
)
async def test_c19_an_outage_is_not_multiplied(
    callers: int, failure: Any, kind: type[Exception]
) -> None:
    """
    However many callers a server has that is down, they make at most a tenth more calls.
    """
    transport, seen = answering(failure)
    async with Flipsnack("k", "s", transport=transport, rates=()) as flipsnack:
        began = anyio.current_time()
        ends = await all_of(callers, lambda _: flipsnack.user.get_stats())
        took = anyio.current_time() - began

    assert {kind} == {type(end) for end in ends}
    assert callers <= len(seen) <= 1.1 * callers
    assert took <= 60


async def test_c19_what_is_left_of_an_outage_is_soon_over() -> None:
    """
    When the server is back, calls succeed at once, and repeating is soon affordable again.
    """
    good = [STATS] * 200
    transport, seen = answering(*[page(503)] * 1100, *good, page(503), STATS)
    async with Flipsnack("k", "s", transport=transport, rates=()) as flipsnack:
        await all_of(1000, lambda _: flipsnack.user.get_stats())
        while len(seen) < 1300:
            with pytest.raises(InvalidAnswerError) if len(seen) < 1100 else anyio.CancelScope():
                await flipsnack.user.get_stats()
        assert 7 == (await flipsnack.user.get_stats()).views

    assert 1302 == len(seen)


async def test_c20_a_deadline_shorter_than_the_queue_is_told_first() -> None:
    """
    Who cannot be served in time is told how long it would take, and nothing of his is sent.
    """
    server = Server(lambda _, number: STATS)
    async with Flipsnack("k", "s", transport=server, rates=[Rate(1, per=10.0)]) as flipsnack:
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(flipsnack.user.get_stats)
            await anyio.sleep(0.2)
            began = anyio.current_time()
            for seconds in (1.0, 20.0, 30.0):
                with anyio.fail_after(seconds), pytest.raises(QuotaWaitError) as caught:
                    await flipsnack.collections.update("hash1", title="Spring")
                with pytest.raises(QuotaWaitError):
                    await flipsnack.with_options(max_wait=seconds).user.get_stats()
            assert began == anyio.current_time()
            assert 1 == len(server.arrivals)
            assert 39 < caught.value.retry_after < 41
            with anyio.fail_after(50):
                await flipsnack.user.get_stats()

    assert 5 == len(server.arrivals)


# --- C21: other limits


@pytest.mark.parametrize("limits", [((3, 1.0), (30, 60.0)), ((5, 1.0), (60, 60.0)), ((1, 2.0),)])
async def test_c21_limits_are_a_setting(limits: tuple[tuple[int, float], ...]) -> None:
    """
    Under limits of any size that both sides agree on, no call is refused and none is wasted.
    """
    box = Sandbox(rates=limits)
    async with client(box, rates=[Rate(limit, per=per) for limit, per in limits]) as flipsnack:
        began = anyio.current_time()
        await all_of(90, lambda _: flipsnack.user.get_stats())
        took = anyio.current_time() - began

    assert [20] * 90 == [call.code for call in box.ledger]
    slowest = max(per / limit for limit, per in limits)
    assert took <= 90 * slowest * 1.05
