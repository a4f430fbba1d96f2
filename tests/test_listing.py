"""Lists that change while they are read: nothing that stays is missed, nothing comes twice."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import answering, client, done

from flipsnack_async import Flipsnack, InvalidAnswerError
from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio


class Shelf:
    """Be a vendor whose list changes whenever somebody has read a page of it."""

    def __init__(self, hashes: list[str], *, size: int, base: int = 0, counts: bool = True) -> None:
        self.hashes = hashes
        self.asked: list[int | None] = []
        self.after_page: Callable[[Shelf], object] = lambda shelf: None
        self._size = size
        self._base = base
        self._counts = counts

    def client(self) -> Flipsnack:
        return Flipsnack("k", "s", transport=httpx.MockTransport(self._answer), rates=())

    def _answer(self, request: httpx.Request) -> httpx.Response:
        query = httpx.QueryParams(request.extensions["target"].partition(b"?")[2].decode())
        self.asked.append(int(query["from"]) if "from" in query else None)
        start = max(0, int(query.get("from", self._base)) - self._base)
        part = self.hashes[start : start + self._size]
        data: dict[str, Any] = {"collections": [{"collectionHash": name} for name in part]}
        if self._counts:
            data["collectionCount"] = len(self.hashes)
        self.after_page(self)
        return httpx.Response(200, content=json.dumps({"code": 20, "data": data}))


def names(count: int) -> list[str]:
    return [f"hash{n}" for n in range(count)]


async def read(shelf: Shelf) -> list[str]:
    async with shelf.client() as flipsnack:
        return [collection.collection_hash async for collection in flipsnack.collections.list()]


async def test_an_unchanged_list_costs_a_call_a_page() -> None:
    """
    Each page begins with the last collection of the one before, and the count ends it.
    """
    shelf = Shelf(names(120), size=50)

    assert names(120) == await read(shelf)
    assert [None, 49, 98] == shelf.asked


@pytest.mark.parametrize("base", [0, 1])
@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("total", [0, 1, 9, 10, 11, 19, 20, 35])
async def test_wherever_the_count_begins(base: int, counts: bool, total: int) -> None:
    """
    Whether the first record is number 0 or 1, with a count or without, all come once.
    """
    assert names(total) == await read(Shelf(names(total), size=10, base=base, counts=counts))


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_however_short_a_page_is(size: int) -> None:
    """
    Even pages of one are read to the end.
    """
    assert names(5) == await read(Shelf(names(5), size=size, counts=False))


async def test_g4_what_is_removed_before_the_page_hides_nothing() -> None:
    """
    When collections that were read are removed, the others move up, and are not passed over.
    """
    shelf = Shelf(names(100), size=10)

    def remove_three(shelf: Shelf) -> None:
        if len(shelf.asked) in (1, 4):
            del shelf.hashes[:3]

    shelf.after_page = remove_three

    assert set(names(100)) == set(await read(shelf))


async def test_g4_what_is_added_in_front_repeats_nothing() -> None:
    """
    When newer ones push the others down, none comes twice and none is left out.
    """
    shelf = Shelf(names(40), size=10)
    shelf.after_page = lambda shelf: shelf.hashes.insert(0, f"new{len(shelf.asked)}")
    found = await read(shelf)

    assert set(names(40)) <= set(found)
    assert len(found) == len(set(found))


async def test_deleting_what_was_read_misses_nothing() -> None:
    """
    A program that deletes each collection as it comes gets to all of them.
    """
    box = Sandbox(collections=120)
    hashes = set(box.hashes)
    async with client(box, rates=()) as flipsnack:
        async for collection in flipsnack.collections.list():
            await flipsnack.collections.delete(collection)
            hashes.remove(collection.collection_hash)

    assert set() == hashes
    assert () == box.hashes


CHANGES = st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=6)


@settings(max_examples=150)
@given(
    total=st.integers(0, 60),
    # Longer than what is added between two pages: a page that comes again as it was ends the list.
    size=st.integers(8, 20),
    base=st.integers(0, 1),
    counts=st.booleans(),
    script=st.lists(CHANGES, max_size=6),
)
def test_g4_whatever_happens_what_stays_is_found(
    total: int, size: int, base: int, counts: bool, script: list[list[tuple[bool, float]]]
) -> None:
    """
    Under any removals and additions between the pages, a collection that is there all the time
    is found, and none is found twice.
    """
    shelf = Shelf(names(total), size=size, base=base, counts=counts)
    staying = set(shelf.hashes)

    def change(shelf: Shelf) -> None:
        for n, (removes, where) in enumerate(script.pop() if script else ()):
            at = int(where * len(shelf.hashes))
            if not removes:
                shelf.hashes.insert(at, f"new{len(shelf.asked)}-{n}")
            elif at < len(shelf.hashes):
                staying.discard(shelf.hashes.pop(at))

    shelf.after_page = change
    found = anyio.run(read, shelf)

    assert staying <= set(found)
    assert len(found) == len(set(found))
    assert len(shelf.asked) < 200


async def test_g12_a_list_that_never_joins_on_is_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    A server whose pages come and go is not asked for ever, and the log says that some may miss.
    """
    some = {"collections": [{"collectionHash": "a"}, {"collectionHash": "b"}]}
    empty: dict[str, Any] = {"collections": []}
    transport, seen = answering(*[done(**some), done(**empty)] * 20)
    async with Flipsnack("k", "s", transport=transport, rates=()) as flipsnack:
        found = [c.collection_hash async for c in flipsnack.collections.list()]

    assert ["a", "b"] == found
    assert len(seen) < 12


async def test_b17_one_that_cannot_be_read_spares_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    A collection without a hash is logged, all others come, and at the end its error is raised.
    """
    items: list[Any] = [{"collectionHash": "a"}, {"collectionTitle": "?"}, {"collectionHash": "c"}]
    transport, _ = answering(done(collections=items), done(collections=[]))
    found = []
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        with pytest.raises(InvalidAnswerError) as caught:
            async for collection in flipsnack.collections.list():
                found.append(collection.collection_hash)

    assert ["a", "c"] == found
    assert "data.collections[1].collectionHash" == caught.value.field
    assert 1 == [record.levelno for record in caplog.records].count(logging.WARNING)


async def test_order_and_further_parameters_are_passed_on() -> None:
    """
    What orders or bounds the list goes to the vendor with every page.
    """
    box = Sandbox(collections=7)
    async with client(box) as flipsnack:
        listing = flipsnack.collections.list(
            order_by="name", order="asc", params={"limit": 5, "query": None}
        )
        titles = [collection.title async for collection in listing]

    assert sorted(titles, key=lambda title: (title or "").casefold()) == titles
    assert {"orderBy": "name", "orderMode": "asc", "limit": "5"} == box.ledger[0].params
    assert "5" == box.ledger[1].params["limit"]


async def test_short_pages_that_count_from_one_are_read_to_the_end() -> None:
    """
    A page that comes again as it was is not the last one while a count says that there are more.
    """
    assert names(9) == await read(Shelf(names(9), size=2, base=1))


@pytest.mark.parametrize("counts", [True, False])
async def test_a_list_may_begin_further_on(counts: bool) -> None:
    """
    A *from* of the caller's own is where the list begins, and nothing before it comes.
    """
    shelf = Shelf(names(53), size=10, counts=counts)
    async with shelf.client() as flipsnack:
        listing = flipsnack.collections.list(params={"from": 10})
        found = [collection.collection_hash async for collection in listing]

    assert names(53)[10:] == found
    assert 10 == shelf.asked[0]
