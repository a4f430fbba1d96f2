"""Awaiting a package: polite questions, a last one in time, and no export lost."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest
from scripted import client

from flipsnack_async import (
    ExportFailedError,
    ExportTimeoutError,
    Flipsnack,
    InvalidAnswerError,
    InvalidArgumentError,
    NoAnswerError,
    Package,
    QuotaWaitError,
    Rate,
)
from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio


async def test_an_export_ends_with_a_link_that_works() -> None:
    """
    The export is asked for until it is complete, and its link fetches the package.
    """
    box = Sandbox(export_seconds=20)
    seen: list[Package] = []
    async with client(box) as flipsnack:
        began = anyio.current_time()
        package = await flipsnack.collections.export(box.hashes[0], on_poll=seen.append)
        took = anyio.current_time() - began

    assert "COMPLETE" == package.status
    assert ["PROCESSING"] * (len(seen) - 1) + ["COMPLETE"] == [p.status for p in seen]
    assert 20 <= took <= 20 + 5 * 1.1
    assert package.resource_url is not None
    async with httpx.AsyncClient(transport=box.transport()) as downloads:
        assert (await downloads.get(package.resource_url)).content.startswith(b"PK")


async def test_the_first_question_comes_at_once() -> None:
    """
    A package that exists already costs one call and no wait.
    """
    box = Sandbox(export_seconds=0)
    async with client(box) as flipsnack:
        await flipsnack.collections.export(box.hashes[0])
        made = len(box.ledger)
        await flipsnack.collections.export(box.hashes[0])

    assert 1 == len(box.ledger) - made


async def test_a_long_job_is_asked_for_less_often() -> None:
    """
    The pause grows with the job: ten minutes cost far fewer calls than one every five seconds.
    """
    box = Sandbox(export_seconds=600)
    async with client(box) as flipsnack:
        await flipsnack.collections.export(box.hashes[0], within=900)

    assert len(box.ledger) < 45


async def test_a_last_question_is_fitted_in() -> None:
    """
    A package that is ready just before the end is not missed.
    """
    box = Sandbox(export_seconds=28, latency=0.1)
    async with client(box) as flipsnack:
        package = await flipsnack.collections.export(box.hashes[0], every=27, within=30)

    assert "COMPLETE" == package.status


async def test_a_time_out_loses_nothing() -> None:
    """
    After the time-out, asking again goes on with the same export.
    """
    box = Sandbox(export_seconds=100, latency=0.1)
    async with client(box) as flipsnack:
        began = anyio.current_time()
        with pytest.raises(ExportTimeoutError, match="same export") as caught:
            await flipsnack.collections.export(box.hashes[0], within=60)
        assert anyio.current_time() - began <= 60
        assert isinstance(caught.value, TimeoutError)

        await flipsnack.collections.export(box.hashes[0], within=60)
        assert 100 <= anyio.current_time() - began <= 115


async def test_within_holds_while_the_quota_is_empty() -> None:
    """
    Waiting for quota does not carry an export beyond its end.
    """
    box = Sandbox(export_seconds=100, rates=((1, 100.0),))
    async with client(box, rates=[Rate(1, per=100.0)]) as flipsnack:
        began = anyio.current_time()
        with pytest.raises(ExportTimeoutError):
            await flipsnack.collections.export(box.hashes[0], within=10)

    assert anyio.current_time() - began <= 10


async def use_up(flipsnack: Flipsnack) -> None:
    for _ in range(60):
        await flipsnack.user.get_stats()


async def test_a_wait_for_quota_does_not_shorten_within() -> None:
    """
    A first question that waited for half a minute is followed by others, while time is left.
    """
    box = Sandbox(export_seconds=5, convert_seconds=5)
    async with client(box) as flipsnack:
        await use_up(flipsnack)
        await anyio.sleep(25)
        began = anyio.current_time()
        await flipsnack.collections.export(box.hashes[0], within=60)
        assert 25 <= anyio.current_time() - began <= 40

        created = await flipsnack.collections.create(b"%PDF-1.4\n", title="Spring")
        await use_up(flipsnack)
        await flipsnack.collections.wait_until_converted(created, within=100)


async def test_a_wait_for_the_answer_before_does_not_shorten_within() -> None:
    """
    Where one question took most of the time, one more is asked before it is over.
    """
    box = Sandbox(export_seconds=15)
    async with client(box) as flipsnack:
        await use_up(flipsnack)
        await anyio.sleep(2)
        package = await flipsnack.collections.export(box.hashes[0], within=67)

    assert "COMPLETE" == package.status


@pytest.mark.parametrize("max_wait", [None, 5.0])
async def test_what_was_never_asked_is_no_time_out(max_wait: float | None) -> None:
    """
    Where the quota has no call in time, that is said at once, and nothing is sent.
    """
    box = Sandbox()
    async with client(box) as flipsnack:
        await use_up(flipsnack)
        hurried = flipsnack.with_options(max_wait=max_wait)
        for awaiting in (hurried.collections.export, hurried.collections.wait_until_converted):
            with pytest.raises(QuotaWaitError, match="no call free"):
                await awaiting(box.hashes[0], within=30)

    assert 60 == len(box.ledger)


@pytest.mark.parametrize(("within", "problem"), [(100, "no question"), (300, "no whole answer")])
async def test_a_time_out_says_that_nobody_answered(within: float, problem: str) -> None:
    """
    An export of which nothing was ever heard is not told to be merely slow.
    """
    box = Sandbox()
    box.fail("collection.downloadHTML", lost=True, times=None)
    async with client(box) as flipsnack:
        began = anyio.current_time()
        with pytest.raises(ExportTimeoutError, match=problem) as caught:
            await flipsnack.collections.export(box.hashes[0], within=within)

    assert within - 1 <= anyio.current_time() - began <= within
    assert within < 300 or isinstance(caught.value.__cause__, NoAnswerError)


async def test_answers_that_tell_nothing_are_asked_past() -> None:
    """
    A few foreign answers in a row delay an export, and only many end it.
    """
    box = Sandbox(export_seconds=0)
    box.fail("*", body="<html>Not now</html>", times=6)
    async with client(box) as flipsnack:
        assert "COMPLETE" == (await flipsnack.collections.export(box.hashes[0])).status

        box.fail("*", body="<html>Not now</html>", times=None)
        made = len(box.ledger)
        with pytest.raises(InvalidAnswerError, match="page"):
            await flipsnack.collections.export(box.hashes[0])

    assert len(box.ledger) - made <= 20


async def test_a_failed_export_says_so() -> None:
    """
    FAILED ends the waiting with an error that names the collection.
    """
    box = Sandbox()
    box.fail_export(box.hashes[0])
    async with client(box) as flipsnack:
        with pytest.raises(ExportFailedError) as caught:
            await flipsnack.collections.export(box.hashes[0])

    assert box.hashes[0] == caught.value.collection_hash


def packages(*data: dict[str, str]) -> httpx.MockTransport:
    rest = list(data)
    return httpx.MockTransport(
        lambda _: httpx.Response(
            200, json={"code": 20, "data": rest.pop(0) if len(rest) > 1 else rest[0]}
        )
    )


async def test_an_unknown_status_is_unfinished() -> None:
    """
    A word that nobody knows is waited out, and the known ones count in any case of letters.
    """
    transport = packages(
        {"status": "QUEUED"}, {"status": "complete", "resourceUrl": "https://example.com/a.zip"}
    )
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        package = await flipsnack.collections.export("fxh4k89")

    assert "https://example.com/a.zip" == package.resource_url


async def test_a_complete_package_has_a_link() -> None:
    """
    COMPLETE without a link is no answer to go on with.
    """
    async with Flipsnack("k", "s", transport=packages({"status": "COMPLETE"})) as flipsnack:
        with pytest.raises(InvalidAnswerError, match=r"data\.resourceUrl"):
            await flipsnack.collections.export("fxh4k89")


@pytest.mark.parametrize(
    "options", [{"every": 0}, {"within": -1}, {"every": float("inf")}], ids=str
)
async def test_durations_are_checked(options: dict[str, Any]) -> None:
    """
    A pause or end that makes no sense is named before a call.
    """
    box = Sandbox()
    async with client(box) as flipsnack:
        with pytest.raises(InvalidArgumentError, match=next(iter(options))):
            await flipsnack.collections.export(
                box.hashes[0], **{"every": 5, "within": 9, **options}
            )

    assert [] == box.ledger


async def test_f2_a_package_that_is_never_ready_costs_few_questions() -> None:
    """
    A job that hangs is asked for ever more seldom, and given up when the time is over.
    """
    box = Sandbox()
    box.stall_export(box.hashes[0])
    async with client(box) as flipsnack:
        began = anyio.current_time()
        with pytest.raises(ExportTimeoutError):
            await flipsnack.collections.export(box.hashes[0], within=1800.0)

    assert anyio.current_time() - began <= 1800
    late = [call for call in box.ledger if call.at - began > 300]
    assert len(late) <= 2 * 25
    assert len(box.ledger) < 60


async def test_a_loop_that_was_blocked_past_the_end_is_a_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Where the time was over before anybody could notice, the export timed out, and no more.
    """
    box = Sandbox()
    box.stall_export(box.hashes[0])
    clock, late = anyio.current_time, 0.0

    def block(_: Package) -> None:
        nonlocal late
        late = 60.0

    monkeypatch.setattr(anyio, "current_time", lambda: clock() + late)
    async with client(box) as flipsnack:
        with pytest.raises(ExportTimeoutError):
            await flipsnack.collections.export(box.hashes[0], within=30.0, on_poll=block)
