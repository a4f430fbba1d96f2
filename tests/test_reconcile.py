"""What became of an upload that got no answer: told from facts, or not told."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import anyio
import httpx
import pytest
from scripted import answering, client, done, page, refused

from flipsnack_async import (
    ConnectionFailedError,
    FileRejectedError,
    Flipsnack,
    InvalidArgumentError,
    UploadOutcomeUnknownError,
)
from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

PDF = b"%PDF-1.7 a document"


async def lost(flipsnack: Flipsnack, **settings: Any) -> UploadOutcomeUnknownError:
    """Upload, and catch that nothing is known of it."""
    with pytest.raises(UploadOutcomeUnknownError) as caught:
        await flipsnack.collections.create(PDF, **settings)
    return caught.value


async def test_e2_an_upload_that_worked_is_found() -> None:
    """
    An upload whose answer got torn is found by the count and its title, in three calls.
    """
    box = Sandbox(collections=60)
    box.fail("collection.create", torn=True)
    async with client(box) as flipsnack:
        await flipsnack.user.get_stats()
        error = await lost(flipsnack, title="Spring & Summer 100 %")
        before = len(box.ledger)
        outcome = await flipsnack.collections.reconcile(error)

    assert outcome.created is True
    assert outcome.collection is not None
    assert box.hashes[0] == outcome.collection.collection_hash
    assert 1000 == error.uploads_left_before
    assert len(box.ledger) - before <= 3


async def test_e2_an_upload_that_did_not_work_is_told() -> None:
    """
    Where the count did not change, nothing was created, even if something else has that title.
    """
    box = Sandbox(collections=3)
    box.fail("collection.create", reset=True)
    async with client(box) as flipsnack:
        listed = [collection async for collection in flipsnack.collections.list()]
        await flipsnack.user.get_stats()
        error = await lost(flipsnack, title=listed[0].title)

        assert (await flipsnack.collections.reconcile(error)).created is False


async def test_a_slow_server_gets_time_before_a_no() -> None:
    """
    A document that arrived in full may still be at work on: the count is looked at twice.
    """
    transport, _seen = answering(
        done(api_uploads_left=9),
        httpx.ReadError("reset"),
        done(api_uploads_left=9),
        done(api_uploads_left=8),
        done(collections=[{"collectionHash": "new1", "collectionTitle": "Late"}]),
    )
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        await flipsnack.user.get_stats()
        error = await lost(flipsnack, title="Late")
        began = anyio.current_time()
        outcome = await flipsnack.collections.reconcile(error, settle=25.0)

    assert outcome.created is True
    assert 25 == pytest.approx(anyio.current_time() - began, abs=0.1)


@pytest.mark.parametrize("mine", [True, False], ids=["mine created", "mine not created"])
async def test_e2_a_rival_uploader_does_not_deceive(mine: bool) -> None:
    """
    Uploads of others lower the count too: only the title tells, and where it doesn't, nothing does.
    """
    box = Sandbox(collections=3)
    async with client(box) as flipsnack, client(box, quota=flipsnack.quota) as rival:
        await flipsnack.user.get_stats()
        box.fail("collection.create", torn=mine, reset=not mine)
        error = await lost(flipsnack, title="Mine")
        await rival.collections.create(PDF, title="Theirs")

        outcome = await flipsnack.collections.reconcile(error)

    assert (True if mine else None) is outcome.created


@pytest.mark.parametrize(
    ("title", "titles", "why"),
    [
        ("Spring", ["Spring", "Spring", "Summer"], "several collections have its title"),
        ("Spring", ["Spring 2", "spring"], "no collection has its title"),
        (None, ["Spring"], "without a title"),
    ],
)
async def test_e2_two_that_match_are_no_answer(
    title: str | None, titles: Sequence[str], why: str
) -> None:
    """
    Where the title doesn't single one out, it stays unknown, and the reason is told.
    """
    listed = [{"collectionHash": f"h{n}", "collectionTitle": t} for n, t in enumerate(titles)]
    transport, _ = answering(
        done(api_uploads_left=9),
        httpx.ReadError("reset"),
        done(api_uploads_left=8),
        done(collections=listed, collectionCount=len(listed)),
    )
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        await flipsnack.user.get_stats()
        outcome = await flipsnack.collections.reconcile(await lost(flipsnack, title=title))

    assert outcome.created is None
    assert why in outcome.reason


async def test_another_upload_of_the_same_title_is_not_mistaken_for_it() -> None:
    """
    What this client created and was told so is not what got lost.
    """
    box = Sandbox(collections=0)
    async with client(box) as flipsnack:
        await flipsnack.user.get_stats()
        await flipsnack.collections.create(PDF, title="Spring")
        box.fail("collection.create", reset=True)
        error = await lost(flipsnack, title="Spring")
        await flipsnack.collections.create(PDF, title="Spring")
        outcome = await flipsnack.collections.reconcile(error)

    assert 999 == error.uploads_left_before
    assert outcome.created is None


@pytest.mark.parametrize("created", [True, False])
async def test_without_a_count_nothing_is_told(created: bool) -> None:
    """
    Where the count before is not known, a collection of that title may be an older one.
    """
    box = Sandbox(collections=0, convert_seconds=60.0)
    async with client(box) as flipsnack:
        await flipsnack.collections.create(PDF, title="Spring")
    async with client(box) as flipsnack:
        box.fail("collection.create", torn=created, reset=not created)
        error = await lost(flipsnack, title="Spring")
        outcome = await flipsnack.collections.reconcile(error)

    assert error.uploads_left_before is None
    assert outcome.created is None


async def test_what_never_left_whole_was_not_created_by_us() -> None:
    """
    A document that was cut off is not the upload that was counted, whatever has its title.
    """
    box = Sandbox(collections=1)
    async with client(box) as flipsnack:
        [old] = [collection async for collection in flipsnack.collections.list()]
        await flipsnack.user.get_stats()
        box.fail("collection.create", reset=True)
        error = await lost(flipsnack, title=old.title)
        error.body_complete = False
        box.uploads_left -= 1  # somebody else's upload
        outcome = await flipsnack.collections.reconcile(error)

    assert outcome.created is None
    assert "had not left whole" in outcome.reason


async def test_a_count_that_may_hold_the_upload_is_no_evidence() -> None:
    """
    What is asked for while an upload is under way may count it already, and is not believed.
    """
    box = Sandbox(collections=0)

    class Hanging(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await box.transport().handle_async_request(request)
            if request.method == "POST":
                await anyio.sleep(10)
                raise httpx.ReadError("lost")
            return response

    async with Flipsnack(box.api_key, box.api_secret, transport=Hanging()) as flipsnack:
        await flipsnack.user.get_stats()
        errors: list[UploadOutcomeUnknownError] = []

        async def upload() -> None:
            errors.append(await lost(flipsnack, title="Mine"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(upload)
            await anyio.sleep(5)
            assert 999 == (await flipsnack.user.get_stats()).api_uploads_left
        outcome = await flipsnack.collections.reconcile(errors[0])
        assert outcome.created is True
        # What was found is known from now on: the next one of that title is another.
        await flipsnack.user.get_stats()
        errors[0].uploads_left_before = 1000
        assert (await flipsnack.collections.reconcile(errors[0])).created is None


async def test_an_open_outcome_spoils_the_count() -> None:
    """
    After an upload of which nothing is known, the next one has no count to go by, until asked.
    """
    transport, _ = answering(
        done(api_uploads_left=9), page(504), page(504), done(api_uploads_left=8), page(504)
    )
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        await flipsnack.user.get_stats()
        counts = [(await lost(flipsnack)).uploads_left_before for _ in range(2)]
        await flipsnack.user.get_stats()
        counts.append((await lost(flipsnack)).uploads_left_before)

    assert [9, None, 8] == counts


@pytest.mark.parametrize("before", [httpx.ConnectError("down"), refused(45)])
async def test_what_was_surely_not_created_spoils_no_count(before: Any) -> None:
    """
    An upload that never left, or was refused, leaves the count as it was.
    """
    transport, _ = answering(done(api_uploads_left=9), before, page(504))
    async with Flipsnack("k", "s", transport=transport, attempts=1) as flipsnack:
        await flipsnack.user.get_stats()
        with pytest.raises((ConnectionFailedError, FileRejectedError)):
            await flipsnack.collections.create(PDF)

        assert 9 == (await lost(flipsnack)).uploads_left_before


@pytest.mark.parametrize("after", [9, 1000])
async def test_a_new_month_tells_nothing(after: int) -> None:
    """
    A count that may have begun anew is no sign of anything, not even if it is the same.
    """
    transport, _ = answering(
        done(api_uploads_left=9), page(504), done(api_uploads_left=after), done(collections=[])
    )
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        await flipsnack.user.get_stats()
        error = await lost(flipsnack, title="Spring")
        assert error.sent_at is not None
        error.sent_at -= timedelta(days=32)
        outcome = await flipsnack.collections.reconcile(error)

    assert outcome.created is None
    assert "not known for sure" in outcome.reason


@pytest.mark.parametrize("wrong", [None, ValueError("x"), "error"])
async def test_only_the_error_itself_is_evidence(wrong: Any) -> None:
    """
    What is no such error is told before any call.
    """
    transport, seen = answering(done())
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        with pytest.raises(InvalidArgumentError, match="UploadOutcomeUnknownError"):
            await flipsnack.collections.reconcile(wrong)

    assert [] == seen


async def test_e9_a_success_without_a_hash_is_not_known_either() -> None:
    """
    An answer that says done and not what was made is evidence to reconcile, not a collection.
    """
    transport, _ = answering(done(api_uploads_left=9), done(collectionTitle="Spring"))
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        await flipsnack.user.get_stats()
        error = await lost(flipsnack, title="Spring")

    assert "data.collectionHash" in error.reason
    assert error.body_complete is True
    assert 9 == error.uploads_left_before


async def test_the_evidence_crosses_processes() -> None:
    """
    An error that was pickled or copied is reconciled as well as the first one.
    """
    box = Sandbox(collections=3)
    box.fail("collection.create", torn=True)
    async with client(box) as flipsnack:
        await flipsnack.user.get_stats()
        error = await lost(flipsnack, title="Mine")
    error = pickle.loads(pickle.dumps(copy.copy(error)))  # noqa: S301  our own bytes
    async with client(box) as flipsnack:
        outcome = await flipsnack.collections.reconcile(error)

    assert len(PDF) == error.size
    assert outcome.created is True


async def test_only_uploads_are_reconciled() -> None:
    """
    Of another action's unknown outcome nothing can be found out.
    """
    transport, seen = answering(httpx.ReadError("reset"))
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        with pytest.raises(UploadOutcomeUnknownError, match="look before calling again") as caught:
            await flipsnack.call("some.action")
        with pytest.raises(InvalidArgumentError, match=r"is of some\.action"):
            await flipsnack.collections.reconcile(caught.value)

    assert 1 == len(seen)
    assert (None, None) == (caught.value.size, caught.value.body_complete)
