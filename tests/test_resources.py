"""What a client does with a collection: get, update, delete, embed, await its conversion."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest
from scripted import answering, client, done, page, refused

from flipsnack_async import (
    Collection,
    CollectionUnavailableError,
    ConversionFailedError,
    ConversionTimeoutError,
    Embed,
    Flipsnack,
    InvalidArgumentError,
    QuotaWaitError,
    Rate,
    StillProcessingError,
)
from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

PDF = b"%PDF-1.7 a document"


async def test_a_collection_is_asked_for() -> None:
    """
    What the vendor tells of a collection comes in the library's names, the rest in extra.
    """
    box = Sandbox()
    async with client(box) as flipsnack:
        listed = await anext(flipsnack.collections.list())
        found = await flipsnack.collections.get(listed)

    assert (listed.collection_hash, listed.title) == (found.collection_hash, found.title)
    assert "complete" == found.state
    assert found.thumbnail_url
    assert found.thumbnail_url.startswith("http")
    assert found.extra.keys() & {"thumb", "items"}


async def test_an_update_changes_what_is_given() -> None:
    """
    Only the settings that are given are sent, under the vendor's names, and the rest stays.
    """
    box = Sandbox()
    async with client(box) as flipsnack:
        before = await flipsnack.collections.get(box.hashes[0])
        after = await flipsnack.collections.update(
            before, title="50 % = ½ & more", height=700, params={"playerSettings[x]": True}
        )

    assert {
        "collectionHash": before.collection_hash,
        "title": "50 % = ½ & more",
        "collectionHeight": "700",
        "playerSettings[x]": "true",
    } == box.ledger[-1].params
    assert ("50 % = ½ & more", 700) == (after.title, after.height)
    assert (before.description, before.width) == (after.description, after.width)


async def test_an_update_of_nothing_is_refused() -> None:
    """
    An update without a setting would cost a call for nothing.
    """
    transport, seen = answering(done())
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        with pytest.raises(InvalidArgumentError, match="title: give this or another setting"):
            await flipsnack.collections.update("fxh4k89")

    assert [] == seen


@pytest.mark.parametrize("answer", [{"code": 20, "status": "OK"}, done(), done(new="field")])
async def test_an_update_that_answers_little_is_done_all_the_same(answer: Any) -> None:
    """
    What the vendor answers to an update is not documented: the hash asked for stands in.
    """
    transport, _ = answering(answer)
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        updated = await flipsnack.collections.update("fxh4k89", title="New")

    assert "fxh4k89" == updated.collection_hash


@pytest.mark.parametrize("answer", [{"code": 20, "status": "OK"}, done(collectionTitle="A")])
async def test_b12_a_collection_without_its_hash_is_no_answer(answer: Any) -> None:
    """
    What was asked for must be in the answer; its absence is not made up for.
    """
    transport, _ = answering(answer)
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        with pytest.raises(Exception, match=r"data(\.collectionHash)?: is missing"):
            await flipsnack.collections.get("fxh4k89")


@pytest.mark.parametrize("keeps", [True, False])
async def test_e13_a_new_hash_is_followed(keeps: bool) -> None:
    """
    Publishing gives a new hash: the answer has it, and where the old one is refused the error
    tells it, in every view of the client.
    """
    box = Sandbox(keep_old_hashes=keeps, collections=0)
    async with client(box) as flipsnack:
        draft = await flipsnack.collections.create(PDF, status="editable")
        draft = await flipsnack.collections.wait_until_converted(draft)
        final = await flipsnack.collections.update(draft, status="public")
        assert draft.collection_hash != final.collection_hash
        await flipsnack.collections.get_stats(final)

        view = flipsnack.with_options(max_wait=100.0)
        if keeps:
            await view.collections.get_stats(draft)
        else:
            with pytest.raises(CollectionUnavailableError, match=final.collection_hash) as caught:
                await view.collections.get_stats(draft)
            assert final.collection_hash == caught.value.moved_to


async def test_a_deleted_collection_is_gone() -> None:
    """
    Deleting returns nothing; what is gone already is told.
    """
    box = Sandbox()
    async with client(box) as flipsnack:
        first = box.hashes[0]
        assert None is await flipsnack.collections.delete(first)  # type: ignore[func-returns-value]
        with pytest.raises(CollectionUnavailableError, match="check the hash"):
            await flipsnack.collections.delete(first)

    assert first not in box.hashes


@pytest.mark.parametrize("by", ["method", "name"])
async def test_a_deletion_that_got_no_answer_may_find_its_work_done(by: str) -> None:
    """
    After a lost answer, gone means deleted; after a mere refusal it doesn't.
    """
    gone = refused(43, "Forbidden")

    async def delete(*answers: Any) -> None:
        transport, _ = answering(*answers)
        async with Flipsnack("k", "s", transport=transport) as flipsnack:
            if by == "method":
                await flipsnack.collections.delete("fxh4k89")
            else:
                action = "collection.deleteCollection"
                assert {} == await flipsnack.call(action, {"collectionHash": "fxh4k89"})

    await delete(httpx.ReadError("lost"), gone)
    await delete(page(502), refused(31), gone)
    for before in (refused(31), httpx.ConnectError("down")):
        with pytest.raises(CollectionUnavailableError):
            await delete(before, gone)


async def test_an_embed_is_html() -> None:
    """
    The embed code comes with what was asked for it, in the vendor's names.
    """
    box = Sandbox()
    async with client(box) as flipsnack:
        embed = await flipsnack.collections.get_embed(
            box.hashes[0], width=640, height=480, responsive=False, start_page=3
        )
        plain = await flipsnack.collections.get_embed(box.hashes[0])

    assert "<iframe" in embed.embed_code
    assert box.hashes[0] == embed.collection_hash
    assert {
        "collectionHash": box.hashes[0],
        "width": "640",
        "height": "480",
        "responsive": "false",
        "startPage": "3",
    } == box.ledger[0].params
    assert {"collectionHash": box.hashes[0]} == box.ledger[1].params
    assert isinstance(plain, Embed)


@pytest.mark.parametrize("options", [{"width": 0}, {"height": -1}, {"start_page": True}])
async def test_numbers_of_an_embed_are_checked(options: Any) -> None:
    """
    What is no size and no page is told by its name, and nothing is sent.
    """
    transport, seen = answering(done())
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        with pytest.raises(InvalidArgumentError) as caught:
            await flipsnack.collections.get_embed("fxh4k89", **options)

    assert caught.value.field in options
    assert [] == seen


async def test_a_conversion_is_awaited() -> None:
    """
    The collection is asked for at once and then every so often, until it is complete.
    """
    box = Sandbox(collections=0, convert_seconds=20)
    seen: list[Collection] = []
    async with client(box) as flipsnack:
        created = await flipsnack.collections.create(PDF)
        began = anyio.current_time()
        converted = await flipsnack.collections.wait_until_converted(created, on_poll=seen.append)
        took = anyio.current_time() - began

    assert "processing" == created.state
    assert "complete" == converted.state
    assert converted == seen[-1]
    assert 20 <= took <= 20 + 5 * 1.1


async def test_e10_a_conversion_that_fails_is_told() -> None:
    """
    A document that cannot be converted raises, and the message says that it counted.
    """
    transport, _ = answering(done(collectionHash="a", items=[{"state": "FAILED"}]))
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        with pytest.raises(ConversionFailedError, match="its upload counts") as caught:
            await flipsnack.collections.wait_until_converted("a")

    assert "a" == caught.value.collection_hash


@pytest.mark.parametrize("data", [{}, {"items": [{"status": "queued"}]}, {"status": "archived"}])
async def test_b18_an_unknown_state_is_unfinished(data: Any) -> None:
    """
    A state that isn't known, or isn't there, is waited for until the time is over.
    """
    transport, seen = answering(done(collectionHash="a", **data))
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        began = anyio.current_time()
        with pytest.raises(ConversionTimeoutError, match="within 60 s") as caught:
            await flipsnack.collections.wait_until_converted("a", within=60.0)

    assert isinstance(caught.value, TimeoutError)
    assert anyio.current_time() - began <= 60
    assert 12 <= len(seen) <= 15


async def test_a_state_may_be_taken_from_anywhere() -> None:
    """
    Whoever knows what the vendor calls the state says where it is.
    """
    transport, seen = answering(
        done(collectionHash="a", conversion={"phase": 1}),
        done(collectionHash="a", conversion={"phase": 2}),
    )

    def state_of(collection: Collection) -> str:
        return "Complete" if collection.extra["conversion"]["phase"] == 2 else "busy"

    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        await flipsnack.collections.wait_until_converted("a", state_of=state_of)

    assert 2 == len(seen)


async def test_c10_what_is_being_converted_is_waited_for() -> None:
    """
    A single call is told that the conversion goes on, whoever awaits something waits it out.
    """
    box = Sandbox(collections=0, convert_seconds=30, export_seconds=0)
    async with client(box) as flipsnack:
        created = await flipsnack.collections.create(PDF)
        with pytest.raises(StillProcessingError, match="wait_until_converted"):
            await flipsnack.collections.update(created, title="New")

        package = await flipsnack.collections.export(created)

    assert "COMPLETE" == package.status


async def test_a_conversion_is_followed_to_its_new_hash() -> None:
    """
    Where a collection is published while it is waited for, its new hash is asked for.
    """
    transport, seen = answering(
        done(collectionHash="old", state="processing"),
        done(collectionHash="new", state="processing"),
        done(collectionHash="new", state="complete"),
    )
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        converted = await flipsnack.collections.wait_until_converted("old")

    assert "new" == converted.collection_hash
    asked = [request.extensions["target"] for request in seen]
    assert [b"old", b"old", b"new"] == [t.split(b"collectionHash=")[1][:3] for t in asked]


async def test_polls_wait_in_their_own_lane() -> None:
    """
    Where the quota has no call left in time, the caller is told instead of polling late.
    """
    box = Sandbox(collections=0)
    async with client(box, rates=[Rate(1, per=1000.0)]) as flipsnack:
        created = await flipsnack.collections.create(PDF)
        with pytest.raises(QuotaWaitError):
            await flipsnack.collections.wait_until_converted(created, within=100.0)
        with pytest.raises(QuotaWaitError):
            await flipsnack.with_options(max_wait=1.0).collections.wait_until_converted(
                created, within=2000.0
            )


async def test_e13_a_chain_of_hashes_is_followed_to_its_end() -> None:
    """
    Of a collection that changed its hash twice, the oldest leads to the newest.
    """
    transport, _ = answering(
        done(collectionHash="b"), done(collectionHash="c"), refused(43, "Forbidden")
    )
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        await flipsnack.collections.update("a", status="unlisted")
        await flipsnack.collections.update("b", status="public")
        with pytest.raises(CollectionUnavailableError, match="its hash is c"):
            await flipsnack.collections.get("a")


@pytest.mark.parametrize(
    "change", [{"status": ""}, {"status": True}, {"params": ["a"]}, {"title": 1.5}]
)
async def test_changes_are_checked(change: Any) -> None:
    """
    A setting that cannot be sent is told by its name, and nothing goes out.
    """
    transport, seen = answering(done())
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        with pytest.raises(InvalidArgumentError) as caught:
            await flipsnack.collections.update("a", **change)
        with pytest.raises(InvalidArgumentError, match="responsive"):
            await flipsnack.collections.get_embed("a", responsive="yes")  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError, match="ref"):
            await flipsnack.collections.get("")

    assert caught.value.field in change
    assert [] == seen
