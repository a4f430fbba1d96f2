"""Connections that break on their way, A4 to A10: a proxy between the client and a sandbox."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from cutting import GOOD, keeping, response, saying
from proxy import CLEAR, BoxBehind, Passage, Proxy, Serve, ServeBehind, Then, Way
from test_cuts import LARGE, TINY, client, digest, get_stats

from flipsnack_async import (
    Collection,
    Flipsnack,
    NoAnswerError,
    UploadOutcomeUnknownError,
)
from flipsnack_async.sandbox import Sandbox

pytest_plugins = ["instruments"]
pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_pauses")]

# Long enough for whole answers on a machine that is busy.
TIMEOUT = 0.3


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Real time, since there are sockets."""
    name: str = request.param
    return name


def caller(box: Sandbox, proxy: Proxy, timeout: float = TIMEOUT, **options: Any) -> Flipsnack:
    return Flipsnack(
        box.api_key,
        box.api_secret,
        api_url=proxy.url,
        upload_url=proxy.url,
        rates=(),
        timeout=timeout,
        **options,
    )


# --- A6 to A8: time-outs


async def test_a6_an_upload_that_is_read_no_further_is_in_doubt(box_behind: BoxBehind) -> None:
    """
    When the peer stops reading, the document is known to be incomplete and not sent again.
    """
    box, proxy = box_behind(Passage(up=Way(upto=2**20, then=Then.STALL)), CLEAR)
    async with caller(box, proxy) as flipsnack:
        with pytest.raises(UploadOutcomeUnknownError, match="no progress within") as caught:
            await flipsnack.collections.create(LARGE)

    assert caught.value.body_complete is False
    assert digest(LARGE) == caught.value.sha256
    assert [2**20] == [pair.up.passed for pair in proxy.pairs]
    assert [] == box.ledger


async def test_a6_a_read_that_is_not_read_goes_out_again(box_behind: BoxBehind) -> None:
    """
    A request for which nobody has an ear is repeated, and the server saw one call.
    """
    box, proxy = box_behind(Passage(up=Way(upto=10, then=Then.STALL)), CLEAR)
    async with caller(box, proxy) as flipsnack:
        assert await flipsnack.user.get_stats()
        assert 2 == flipsnack.quota.statistics().admitted

    assert 10 == proxy.pairs[0].up.passed
    assert ["user.getStats"] == [call.action for call in box.ledger]


async def test_a7_a_read_whose_answer_is_swallowed_costs_a_call(box_behind: BoxBehind) -> None:
    """
    A read without an answer is repeated after its time, and both were calls.
    """
    box, proxy = box_behind(Passage(down=Way(upto=0, then=Then.SWALLOW)), CLEAR)
    async with caller(box, proxy) as flipsnack:
        assert await flipsnack.user.get_stats()
        assert 2 == flipsnack.quota.statistics().admitted

    assert [0] == [pair.down.passed for pair in proxy.pairs[:1]]
    assert ["user.getStats"] * 2 == [call.action for call in box.ledger]


@pytest.mark.parametrize("created", [True, False])
async def test_a8_an_upload_whose_answer_is_swallowed_is_in_doubt(
    box_behind: BoxBehind, created: bool
) -> None:
    """
    Whether the document was taken or not, it is said to be open, and never sent again.
    """
    box, proxy = box_behind(Passage(down=Way(upto=0, then=Then.SWALLOW)), CLEAR)
    if not created:
        box.fail("collection.create", body="<html>no</html>", http_status=503)
    began = datetime.now(UTC)
    async with caller(box, proxy) as flipsnack:
        with pytest.raises(UploadOutcomeUnknownError) as caught:
            await flipsnack.collections.create(TINY, title="Spring")

    assert caught.value.body_complete is True
    assert (len(TINY), digest(TINY), "Spring") == (
        caught.value.size,
        caught.value.sha256,
        caught.value.title,
    )
    assert caught.value.sent_at is not None
    assert began <= caught.value.sent_at <= datetime.now(UTC)
    # The sandbox has the last word on what arrived, and how often.
    assert [(digest(TINY), 20 if created else None)] == [(c.sha256, c.code) for c in box.ledger]
    assert 1 == len(proxy.pairs)


# --- A9, A10: connections that break


@pytest.mark.parametrize("how", [Then.RESET, Then.CUT, Then.HANG_UP])
async def test_a9_a_read_that_breaks_before_its_answer_goes_out_again(
    box_behind: BoxBehind, how: Then
) -> None:
    """
    A connection that ends before the first byte of an answer costs a repetition and a call.
    """
    box, proxy = box_behind(Passage(down=Way(upto=0, then=how)), CLEAR)
    async with caller(box, proxy) as flipsnack:
        assert await flipsnack.user.get_stats()

    assert ["user.getStats"] * 2 == [call.action for call in box.ledger]
    assert 2 == len(proxy.pairs)


@pytest.mark.parametrize("how", [Then.RESET, Then.CUT, Then.HANG_UP])
async def test_a9_an_upload_that_breaks_before_its_answer_is_in_doubt(
    box_behind: BoxBehind, how: Then
) -> None:
    """
    A document that was sent before the connection ended is not sent again; it was created once.
    """
    box, proxy = box_behind(Passage(down=Way(upto=0, then=how)), CLEAR)
    async with caller(box, proxy) as flipsnack:
        with pytest.raises(UploadOutcomeUnknownError) as caught:
            await flipsnack.collections.create(TINY)

    assert caught.value.body_complete is True
    assert [(digest(TINY), 20)] == [(call.sha256, call.code) for call in box.ledger]


async def test_a9_a_read_that_is_cut_in_its_question_is_no_call(box_behind: BoxBehind) -> None:
    """
    Of a request that is cut after any of its bytes the server hears nothing.
    """
    bytes_passed = range(0, 200, 10)
    cuts = [Passage(up=Way(upto=upto, then=Then.RESET)) for upto in bytes_passed]
    box, proxy = box_behind(*cuts, CLEAR)
    async with caller(box, proxy, timeout=3.0, attempts=1) as flipsnack:
        for _ in cuts:
            with pytest.raises(NoAnswerError, match="the connection broke"):
                await flipsnack.user.get_stats()
        assert [] == box.ledger
        assert await flipsnack.user.get_stats()

    assert [*bytes_passed] == [pair.up.passed for pair in proxy.pairs[:-1]]
    assert 1 == len(box.ledger)


async def test_a9_no_call_meets_an_idle_connection(serve: Serve) -> None:
    """
    Each call has a connection of its own, though the server would keep them.
    """
    server = serve(keeping())
    async with client(server) as flipsnack:
        for _ in range(5):
            assert 7 == await get_stats(flipsnack)
        assert Collection("new1", extra={"views": 7, "api_uploads_left": 53}) == (
            await flipsnack.collections.create(TINY)
        )

    assert 6 == server.connections == len(server.arrived)


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    b"14\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (GOOD[:20], len(GOOD) - 20, GOOD[20:])
)


@pytest.mark.parametrize(
    ("answer", "how"),
    [(response(GOOD, "200 OK", "Connection: close"), Then.RESET), (CHUNKED, Then.CUT)],
    ids=["length", "chunks"],
)
async def test_a10_no_part_of_an_answer_is_taken_for_it(
    serve: Serve, proxied: ServeBehind, answer: bytes, how: Then
) -> None:
    """
    Cut after any of its bytes, in its head or its body, an answer is none; whole, it is one.
    """
    server = serve(saying(answer))
    cuts = [Passage(down=Way(upto=byte, then=how)) for byte in range(len(answer))]
    proxy = proxied(server.url, *cuts, CLEAR)
    async with caller(Sandbox(), proxy, timeout=3.0, attempts=1) as flipsnack:
        for _ in cuts:
            with pytest.raises(NoAnswerError, match="the connection broke"):
                await flipsnack.user.get_stats()
        assert 7 == await get_stats(flipsnack)

    assert [*range(len(answer) + 1)] == [pair.down.passed for pair in proxy.pairs]


async def test_a10_a_read_that_is_cut_in_its_answer_goes_out_again(box_behind: BoxBehind) -> None:
    """
    As long as there are attempts, a torn answer is asked for again.
    """
    torn = Passage(down=Way(upto=150, then=Then.RESET))
    box, proxy = box_behind(torn, torn, torn, CLEAR)
    async with caller(box, proxy) as flipsnack:
        assert await flipsnack.user.get_stats()

    assert [150] * 3 == [pair.down.passed for pair in proxy.pairs[:3]]
    assert ["user.getStats"] * 4 == [call.action for call in box.ledger]


# --- slow, but whole


@pytest.mark.parametrize("way", [Way(piece=1), Way(delay=0.05)], ids=["sliced", "late"])
async def test_a12_what_comes_in_time_is_whole_however_it_comes(
    box_behind: BoxBehind, way: Way
) -> None:
    """
    A byte at a time, or late: what arrives within the time of an attempt counts.
    """
    box, proxy = box_behind(Passage(up=way, down=way))
    async with caller(box, proxy, timeout=10.0) as flipsnack:
        assert await flipsnack.user.get_stats()
        created = await flipsnack.collections.create(TINY)

    assert created.collection_hash == box.hashes[0]
    assert [20, 20] == [call.code for call in box.ledger]
    assert digest(TINY) == box.ledger[1].sha256
