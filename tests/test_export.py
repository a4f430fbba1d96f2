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
    Package,
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
