"""The main job: every collection once, as fast as the limits allow, whatever happens to some."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest
from scripted import client

from flipsnack_async import (
    AuthenticationError,
    Collection,
    CollectionUnavailableError,
    Flipsnack,
    HarvestRow,
    InvalidAnswerError,
    InvalidArgumentError,
)
from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio


async def gather(rows: Any) -> list[HarvestRow]:
    return [row async for row in rows]


def floor(calls: int) -> float:
    """Count the seconds that so many calls take at least under 5 a second and 60 a minute."""
    minutes, rest = divmod(calls - 1, 60)
    return minutes * 60 + rest // 5


async def test_a_harvest_has_one_row_for_each_collection() -> None:
    """
    Without refs, all that the account lists is harvested, each once and with its numbers.
    """
    box = Sandbox(collections=120)
    async with client(box) as flipsnack:
        async with flipsnack.harvest(pages=True) as rows:
            gathered = await gather(rows)
            progress = rows.progress
        one = await flipsnack.collections.get_stats(box.hashes[7], pages=True)

    assert sorted(box.hashes) == sorted(row.collection_hash for row in gathered)
    assert one in [row.stats for row in gathered]
    assert {20} == {call.code for call in box.ledger}
    assert (120, 0, 120) == (progress.done, progress.failed, progress.total)
    assert len(box.ledger) - 1 == progress.calls
    assert 0 == progress.seconds_left


@pytest.mark.parametrize("window", ["sliding", "fixed"])
async def test_a_harvest_keeps_the_pace_and_is_never_refused(window: Any) -> None:
    """
    300 collections take the least time that both limits allow, and a hundredth more at the most.
    """
    box = Sandbox(collections=300, latency=0.1, window=window, count_refused=True)
    async with client(box) as flipsnack:
        began = anyio.current_time()
        async with flipsnack.harvest() as rows:
            gathered = await gather(rows)
        took = anyio.current_time() - began

    assert 300 == len(gathered)
    assert {20} == {call.code for call in box.ledger}
    assert floor(len(box.ledger)) / took >= 0.99


async def test_refs_of_any_kind() -> None:
    """
    Hashes and objects, from a list, a generator or an async generator; each hash is asked once.
    """
    box = Sandbox(rates=())
    a, b, c = box.hashes[:3]

    async def later() -> AsyncIterator[str | Collection]:
        for ref in (a, Collection(b), a, c):
            await anyio.sleep(1)
            yield ref

    async with client(box, rates=()) as flipsnack:
        kinds: list[Any] = [[a, Collection(b), a, c], iter([a, b, b, c]), later()]
        for refs in kinds:
            async with flipsnack.harvest(refs) as rows:
                assert {a, b, c} == {row.collection_hash for row in await gather(rows)}
                assert 3 == rows.progress.calls == rows.progress.total


async def test_a_failure_is_a_row() -> None:
    """
    A collection that can't be had stops nobody; its row holds the error instead of numbers.
    """
    box = Sandbox()
    wrong = "zzzzzzzz99"
    async with client(box) as flipsnack:
        async with flipsnack.harvest([box.hashes[0], wrong, "", box.hashes[1]]) as rows:
            gathered = {row.collection_hash: row for row in await gather(rows)}

            assert 2 == rows.progress.failed
    assert isinstance(gathered[wrong].error, CollectionUnavailableError)
    assert isinstance(gathered[""].error, InvalidArgumentError)
    assert gathered[wrong].stats is None
    assert all((row.stats is None) is (row.error is not None) for row in gathered.values())


@pytest.mark.parametrize("code", [41, 44])
async def test_wrong_credentials_end_a_harvest(code: int) -> None:
    """
    When the key stops working the error itself is raised, and nobody goes on calling.
    """
    box = Sandbox(collections=40)
    async with client(box) as flipsnack:
        taken = []
        with pytest.raises(AuthenticationError):
            async with flipsnack.harvest(list(box.hashes)) as rows:
                async for row in rows:
                    taken.append(row)
                    if len(taken) == 10:
                        box.fail("collection.getStats", code=code, times=None)

    assert 10 <= len(taken) < 40
    assert len(box.ledger) <= len(taken) + 8


async def test_a_listing_that_fails_ends_the_harvest() -> None:
    """
    An account that can't be listed has no rows: its error is raised, not an exception group.
    """
    box = Sandbox()
    box.fail("collection.getList", code=40)
    async with client(box) as flipsnack:
        with pytest.raises(Exception, match="code 40"):
            async with flipsnack.harvest() as rows:
                await gather(rows)


async def test_what_was_listed_is_harvested_before_the_list_is_complained_of() -> None:
    """
    One collection that cannot be read, among others, costs no row: its error comes after them.
    """
    box = Sandbox(collections=3)
    listed: list[dict[str, str]] = [{"collectionHash": name} for name in box.hashes]
    listed.insert(1, {"collectionTitle": "without a hash"})
    body = json.dumps({"code": 20, "data": {"collections": listed, "collectionCount": 4}})
    box.fail("collection.getList", body=body, times=2)
    hashes = []
    async with client(box) as flipsnack:
        with pytest.raises(InvalidAnswerError, match="collectionHash: is missing"):
            async with flipsnack.harvest() as rows:
                async for row in rows:
                    hashes.append(row.collection_hash)

    assert set(box.hashes) == set(hashes)


async def test_what_the_callers_iterator_raises_comes_through() -> None:
    """
    An error in the refs is the caller's own, and comes back as it was.
    """

    async def refs() -> AsyncIterator[str]:
        yield box.hashes[0]
        raise LookupError("mine")

    box = Sandbox()
    async with client(box) as flipsnack:
        with pytest.raises(LookupError, match="mine"):
            async with flipsnack.harvest(refs()) as rows:
                await gather(rows)


async def test_an_error_in_the_block_is_not_wrapped() -> None:
    """
    What the caller raises while harvesting leaves the block as it is.
    """
    async with client(Sandbox()) as flipsnack:
        with pytest.raises(LookupError, match="mine"):
            async with flipsnack.harvest() as rows:
                async for _ in rows:
                    raise LookupError("mine")


async def test_leaving_early_leaves_nothing_behind() -> None:
    """
    After a break no call goes out any more, and the client works on.
    """
    box = Sandbox(latency=0.1)
    async with client(box) as flipsnack:
        async with flipsnack.harvest() as rows:
            async for _ in rows:
                break
        made = len(box.ledger)
        await anyio.sleep(100)
        assert made == len(box.ledger)

        await flipsnack.user.get_stats()
        assert {0} == set(flipsnack.quota.statistics().waiting.values())


async def test_cancelling_a_harvest_leaves_nothing_behind() -> None:
    """
    A deadline around a harvest ends it, and all tokens come back in time.
    """
    box = Sandbox(collections=200, latency=0.1)
    async with client(box) as flipsnack:
        with anyio.move_on_after(30) as scope:
            async with flipsnack.harvest() as rows:
                await gather(rows)
        assert scope.cancelled_caught

        await anyio.sleep(120)
        assert [5, 60] == list(flipsnack.quota.statistics().free.values())


async def test_a_slow_reader_slows_the_harvest() -> None:
    """
    Not more calls are made ahead of the reader than may run at once.
    """
    box = Sandbox()
    async with client(box, rates=()) as flipsnack:
        async with flipsnack.harvest(list(box.hashes), at_once=3) as rows:
            await anext(rows)
            await anyio.sleep(100)
            assert 4 == len(box.ledger)

            assert 39 == len(await gather(rows))


async def test_at_once_bounds_the_calls_under_way() -> None:
    """
    No more calls than asked for run at the same time.
    """
    running, most = 0, 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(1)
        running -= 1
        return httpx.Response(200, json={"code": 20, "data": {}})

    async with Flipsnack("k", "s", transport=httpx.MockTransport(answer), rates=()) as flipsnack:
        async with flipsnack.harvest([f"hash{n}" for n in range(50)], at_once=7) as rows:
            await gather(rows)

    assert 7 == most


async def test_what_a_transport_of_ones_own_raises_ends_a_harvest() -> None:
    """
    An error that is neither ours nor the HTTP library's comes out of the harvest as it is.
    """

    async def broken(request: httpx.Request) -> httpx.Response:
        raise LookupError("no such route")

    async with Flipsnack("k", "s", transport=httpx.MockTransport(broken)) as flipsnack:
        with pytest.raises(LookupError, match="no such route"):
            async with flipsnack.harvest(["hash1", "hash2"]) as rows:
                await gather(rows)


async def test_the_total_is_known_long_before_the_end() -> None:
    """
    The listing is read ahead of the statistics, so that the time left can be told.
    """
    box = Sandbox(collections=200)
    async with client(box) as flipsnack, flipsnack.harvest() as rows:
        async for _ in rows:
            if rows.progress.total is not None:
                break

        assert 200 == rows.progress.total
        assert rows.progress.done < 50


async def test_arguments_are_checked_before_a_call() -> None:
    """
    A wrong date or number raises when the harvest is described, not in each of its rows.
    """
    box = Sandbox()
    async with client(box) as flipsnack:
        with pytest.raises(InvalidArgumentError, match="start_date"):
            flipsnack.harvest(start_date="yesterday")
        with pytest.raises(InvalidArgumentError, match="at_once"):
            flipsnack.harvest(at_once=0)

    assert [] == box.ledger


async def test_progress_knows_what_is_left() -> None:
    """
    With the number of collections known, the seconds left follow from the quota.
    """
    box = Sandbox(collections=200)
    async with client(box) as flipsnack:
        began = anyio.current_time()
        async with flipsnack.harvest(list(box.hashes)) as rows:
            async for _ in rows:
                if rows.progress.done == 90:
                    guess = (anyio.current_time() - began) + (rows.progress.seconds_left or 0)
        took = anyio.current_time() - began

    assert guess == pytest.approx(took, rel=0.02)


async def test_a_harvest_pauses_through_maintenance() -> None:
    """
    Maintenance in the middle costs time and no rows.
    """
    box = Sandbox(collections=40)
    box.fail("collection.getStats", code=22, times=20)
    async with client(box) as flipsnack, flipsnack.harvest() as rows:
        gathered = await gather(rows)

    assert 40 == len(gathered)
    assert not [row for row in gathered if row.error]
