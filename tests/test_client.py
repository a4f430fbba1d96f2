"""The client against the sandbox, and against servers that misbehave."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import httpx
import pytest
import respx
from scripted import answering, client, done, page

from flipsnack_async import (
    ClientClosedError,
    CollectionUnavailableError,
    ConfigurationError,
    ConnectionFailedError,
    Effect,
    Flipsnack,
    InvalidAnswerError,
    InvalidArgumentError,
    MaintenanceError,
    NoAnswerError,
    Quota,
    Rate,
    UploadOutcomeUnknownError,
    UserStats,
)
from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

OK = {"code": 20, "status": "OK", "data": {"views": 3719}}


async def test_a_call_is_admitted_signed_sent_and_read() -> None:
    """
    One call goes the whole way: the sandbox checks its signature, and the quota knows of it.
    """
    box = Sandbox()
    async with client(box) as flipsnack:
        stats = await flipsnack.user.get_stats()
        quota = flipsnack.quota.statistics()

    assert 1000 == stats.api_uploads_left
    assert ["user.getStats"] == [call.action for call in box.ledger]
    assert 1 == quota.admitted
    assert [4, 59] == list(quota.free.values())


async def test_call_reaches_any_action() -> None:
    """
    What has no method yet is called by the vendor's names, and answers with data as it came.
    """
    box = Sandbox()
    async with client(box) as flipsnack:
        data = await flipsnack.call(
            "collection.getStats", {"collectionHash": box.hashes[0], "includePageStats": True}
        )

    assert {"page", "time_spent", "clicks", "views"} == data["pages"][0].keys()


@pytest.mark.parametrize("size", [0, 1, 49, 50, 51, 100, 120])
async def test_listing_yields_every_collection_once(size: int) -> None:
    """
    However long the last page, each collection comes once, in order.
    """
    box = Sandbox(collections=size)
    async with client(box, rates=()) as flipsnack:
        listed = [collection.collection_hash async for collection in flipsnack.collections.list()]

    assert list(box.hashes) == listed


@pytest.mark.parametrize("counts", ["all", "page", "nothing", "lies"])
async def test_listing_does_not_trust_the_count(counts: str) -> None:
    """
    Whether the vendor counts all, the page or nothing, no collection is left out.
    """
    everything = [{"collectionHash": f"hash{n}"} for n in range(25)]
    asked: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        query = httpx.QueryParams(request.extensions["target"].partition(b"?")[2].decode())
        start = int(query.get("from", 0))
        asked.append(start)
        part = everything[start : start + 10]
        count = {"all": 25, "page": len(part), "nothing": None, "lies": 7 if part else 25}[counts]
        return httpx.Response(
            200, json={"code": 20, "data": {"collections": part, "collectionCount": count}}
        )

    async with Flipsnack("k", "s", transport=httpx.MockTransport(answer), rates=()) as flipsnack:
        listed = [collection.collection_hash async for collection in flipsnack.collections.list()]

    if counts == "lies":  # a count below what has come already ends the listing
        assert 10 == len(listed)
    else:
        assert [f"hash{n}" for n in range(25)] == listed
    assert asked[0] == 0


async def test_listing_ends_where_nothing_is_new() -> None:
    """
    A server that sends the same page for ever is asked twice.
    """
    same = {"code": 20, "data": {"collections": [{"collectionHash": "a"}, {"collectionHash": "b"}]}}
    transport, seen = answering(same)
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        listed = [collection.collection_hash async for collection in flipsnack.collections.list()]

    assert ["a", "b"] == listed
    assert 2 == len(seen)


async def test_a_package_says_when_it_was_asked_for() -> None:
    """
    The minute of a link is counted from the sending of its call, in UTC.
    """
    before = datetime.now(UTC)
    box = Sandbox()
    async with client(box) as flipsnack:
        package = await flipsnack.collections.download_html(box.hashes[0])

    assert "PROCESSING" == package.status
    assert package.asked_at is not None
    assert before <= package.asked_at <= datetime.now(UTC)
    assert timedelta(0) == package.asked_at.utcoffset()


async def test_an_error_of_the_vendor_keeps_its_facts() -> None:
    """
    An unknown hash is told as such, at once, with the vendor's code.
    """
    box = Sandbox()
    async with client(box) as flipsnack:
        with pytest.raises(CollectionUnavailableError) as caught:
            await flipsnack.collections.get_stats("zzzzzzzz99")

    assert 43 == caught.value.code
    assert "collection.getStats" == caught.value.action
    assert 1 == len(box.ledger)


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout(""),
        httpx.ReadError(""),
        httpx.ReadTimeout(""),
        httpx.WriteError(""),
        httpx.RemoteProtocolError(""),
        page(200),
        page(502),
    ],
    ids=lambda f: type(f).__name__,
)
async def test_a_read_is_repeated_after_any_failure(failure: Any) -> None:
    """
    A call that changes nothing goes out again until it works.
    """
    transport, seen = answering(failure, failure, failure, OK)
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        assert UserStats(views=3719) == await flipsnack.user.get_stats()

    assert 4 == len(seen)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (httpx.ConnectError("[Errno 111] refused"), ConnectionFailedError),
        (httpx.ReadError(""), NoAnswerError),
        (page(200), InvalidAnswerError),
    ],
    ids=["connect", "read", "page"],
)
async def test_attempts_end_with_the_last_failure(failure: Any, kind: type[Exception]) -> None:
    """
    After the last attempt the failure itself is raised, not the retry library's.
    """
    transport, seen = answering(failure)
    async with Flipsnack("k", "s", transport=transport, attempts=3) as flipsnack:
        with pytest.raises(kind) as caught:
            await flipsnack.user.get_stats()

    assert 3 == len(seen)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("failure", "calls", "kind"),
    [
        (httpx.ConnectError(""), 4, ConnectionFailedError),
        (httpx.ReadError(""), 1, UploadOutcomeUnknownError),
        (httpx.WriteError(""), 1, UploadOutcomeUnknownError),
        (page(504), 1, UploadOutcomeUnknownError),
    ],
    ids=["unsent", "no answer", "half sent", "gateway"],
)
async def test_a_once_only_call_is_not_repeated_when_a_byte_left(
    failure: Any, calls: int, kind: type[Exception]
) -> None:
    """
    Only what provably never left is sent a second time.
    """
    transport, seen = answering(failure)
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        with pytest.raises(kind):
            await flipsnack.call("collection.create", {"fileUrl": "https://example.com/a.pdf"})

    assert calls == len(seen)


async def test_a_caller_may_know_better() -> None:
    """
    An undocumented action is repeated where the caller says that it reads.
    """
    transport, seen = answering(httpx.ReadError(""), OK)
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        assert {"views": 3719} == await flipsnack.call("x.y", effect=Effect.READ)

    assert 2 == len(seen)


@pytest.mark.parametrize("code", [31, 32, 22])
async def test_refusals_do_not_use_up_attempts(code: int) -> None:
    """
    A refused call waits and goes out again, however often, with a new permit each time.
    """
    refused = {"code": code, "status": "Not now"}
    transport, seen = answering(*[refused] * 9, OK)
    async with Flipsnack("k", "s", transport=transport, attempts=1) as flipsnack:
        began = anyio.current_time()
        await flipsnack.user.get_stats()
        waited = anyio.current_time() - began
        statistics = flipsnack.quota.statistics()

    assert 10 == len(seen) == statistics.admitted
    assert (0 if code == 22 else 9) == statistics.refused
    assert waited >= 9 * {31: 1, 32: 5, 22: 30}[code]


async def test_http_429_is_a_refusal() -> None:
    """
    HTTP's own refusal is treated like the vendor's, whatever is in its body, and counted once.
    """
    transport, seen = answering(page(429), OK)
    async with Flipsnack("k", "s", transport=transport, attempts=1) as flipsnack:
        await flipsnack.user.get_stats()

        assert 1 == flipsnack.quota.statistics().refused
    assert 2 == len(seen)


async def test_a_deadline_ends_the_waiting_with_the_refusal() -> None:
    """
    Where the surrounding deadline comes first, the caller learns of the refusal at once.
    """
    transport, seen = answering({"code": 22, "status": "Maintenance mode"})
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        began = anyio.current_time()
        with pytest.raises(MaintenanceError), anyio.fail_after(20):
            await flipsnack.user.get_stats()

    assert anyio.current_time() - began < 1
    assert 1 == len(seen)


async def test_the_timeout_counts_from_admission() -> None:
    """
    Waiting for quota is not part of an attempt; the time of its answer is.
    """

    async def slow(request: httpx.Request) -> httpx.Response:
        await anyio.sleep(0.9)
        return httpx.Response(200, json=OK)

    async with Flipsnack(
        "k", "s", transport=httpx.MockTransport(slow), rates=[Rate(1, per=30.0)], timeout=1.0
    ) as flipsnack:
        began = anyio.current_time()
        await flipsnack.user.get_stats()
        await flipsnack.user.get_stats()
        assert 30 < anyio.current_time() - began < 33

        with pytest.raises(NoAnswerError, match=r"within 0\.5 s"):
            await flipsnack.with_options(timeout=0.5, attempts=1).user.get_stats()


async def test_the_timeout_covers_a_dripping_body() -> None:
    """
    A server that sends a byte now and then doesn't hold a call beyond its timeout.
    """

    class Drip(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            while True:
                await anyio.sleep(1)
                yield b" "

    transport, _ = answering(lambda: httpx.Response(200, stream=Drip()))
    async with Flipsnack("k", "s", transport=transport, timeout=5, attempts=1) as flipsnack:
        began = anyio.current_time()
        with pytest.raises(NoAnswerError, match="within 5 s"):
            await flipsnack.user.get_stats()

    assert 5 == pytest.approx(anyio.current_time() - began, abs=0.01)


async def test_an_endless_body_is_cut() -> None:
    """
    No more than 8 MiB of an answer are read.
    """
    taken = 0

    class Flood(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            nonlocal taken
            while True:
                taken += 2**16
                yield b" " * 2**16

    transport, _ = answering(lambda: httpx.Response(200, stream=Flood()))
    async with Flipsnack("k", "s", transport=transport, attempts=1) as flipsnack:
        with pytest.raises(InvalidAnswerError, match="too long"):
            await flipsnack.user.get_stats()

    assert 8 * 2**20 < taken <= 8 * 2**20 + 2**19


async def test_a_compressed_answer_is_refused() -> None:
    """
    Compression was not asked for, and so cannot blow an answer up.
    """
    transport, seen = answering(
        lambda: httpx.Response(
            200, stream=httpx.ByteStream(b"..."), headers={"Content-Encoding": "gzip"}
        )
    )
    async with Flipsnack("k", "s", transport=transport, attempts=1) as flipsnack:
        with pytest.raises(InvalidAnswerError, match="compressed"):
            await flipsnack.user.get_stats()

    assert "identity" == seen[0].headers["Accept-Encoding"]


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
async def test_an_answer_may_say_that_it_is_not_compressed(encoding: str) -> None:
    """
    However an answer says that it is as it was asked for, it is read.
    """
    headers = {"Content-Encoding": encoding}
    transport, _ = answering(lambda: httpx.Response(200, headers=headers, json=done(views=7)))
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        assert 7 == (await flipsnack.user.get_stats()).views


@respx.mock
async def test_what_leaves_the_process() -> None:
    """
    A read leaves as a signed GET on the API's host, with our name and no cookie.
    """
    route = respx.get("https://api.flipsnack.com/v1/").respond(json=OK)
    async with Flipsnack("45FD-267-7SG7832", "123ABCDE-456-7890-FGH") as flipsnack:
        await flipsnack.user.get_stats()

    request = route.calls.last.request
    assert {
        "action": "user.getStats",
        "apiKey": "45FD-267-7SG7832",
        "signature": "8606359ca21901b323baf9d61e0ca899",
    } == dict(request.url.params)
    assert request.headers["User-Agent"].startswith("flipsnack-async/0.")
    assert {"host", "accept", "accept-encoding", "user-agent"} == set(request.headers)


@respx.mock
async def test_an_upload_by_url_leaves_as_a_form() -> None:
    """
    An action that uploads is a multipart POST on the upload host, signed within the form.
    """
    route = respx.post("https://upload.flipsnack.com/v1/").respond(json=OK)
    async with Flipsnack("45FD-267-7SG7832", "123ABCDE-456-7890-FGH") as flipsnack:
        await flipsnack.call(
            "collection.create",
            {"title": "Spring", "fileUrl": "https://example.com/a b.pdf?x=1&y=2"},
        )

    request = route.calls.last.request
    body = request.content.decode()
    assert "5f65c4b27b7766b4e9146f4e9bb859d0" in body  # the derived vector of the contract
    assert 'name="fileUrl"\r\n\r\nhttps://example.com/a b.pdf?x=1&y=2\r\n' in body
    assert len(request.content) == int(request.headers["Content-Length"])
    assert "" == request.url.query.decode()


async def test_a_closed_client_says_so() -> None:
    """
    A call after the end raises in words.
    """
    async with client(Sandbox()) as flipsnack:
        pass

    with pytest.raises(ClientClosedError, match="closed"):
        await flipsnack.user.get_stats()
    assert "closed" in repr(flipsnack)


async def test_a_view_shares_everything_but_its_options() -> None:
    """
    A view uses the client's connections and quota, and only the client can be closed.
    """
    async with client(Sandbox()) as flipsnack:
        view = flipsnack.with_options(timeout=1.0, attempts=1)
        await view.user.get_stats()

        assert view.quota is flipsnack.quota
        assert 1 == flipsnack.quota.statistics().admitted
        with pytest.raises(ClientClosedError, match="view"):
            await view.aclose()
        with pytest.raises(ClientClosedError, match="view"):
            async with view:
                pass

    with pytest.raises(ClientClosedError):
        await view.user.get_stats()


async def test_a_quota_of_ones_own_is_used_as_it_is() -> None:
    """
    Clients given one quota share its pace.
    """
    quota = Quota(Rate(1, per=10.0))
    async with client(Sandbox(), quota=quota) as one, client(Sandbox(), quota=quota) as other:
        began = anyio.current_time()
        await one.user.get_stats()
        await other.user.get_stats()

    assert anyio.current_time() - began >= 10
    assert 2 == quota.statistics().admitted


async def test_cancelling_a_call_frees_its_connection_and_tells_the_quota() -> None:
    """
    A call that is given up counts until it can't arrive any more, and the client goes on.
    """
    box = Sandbox(latency=5.0)
    async with client(box, rates=[Rate(2, per=10.0)]) as flipsnack:
        with anyio.move_on_after(1):
            await flipsnack.user.get_stats()
        assert [1] == list(flipsnack.quota.statistics().free.values())
        await flipsnack.user.get_stats()
        await anyio.sleep(50)

        assert [2] == list(flipsnack.quota.statistics().free.values())


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"api_key": ""}, "api_key"),
        ({"api_secret": "two words"}, "api_secret"),
        ({"api_secret": "line\n"}, "api_secret"),
        ({"api_key": None}, "api_key"),
        ({"api_url": "http://api.flipsnack.com/v1/"}, "api_url"),
        ({"api_url": "ftp://127.0.0.1/"}, "api_url"),
        ({"api_url": "nonsense"}, "api_url"),
        ({"api_url": "https://u:p@example.com/"}, "api_url"),
        ({"api_url": "https://example.com:0/"}, "api_url"),
        ({"api_url": b"https://example.com/"}, "api_url"),
        ({"upload_url": "http://10.0.0.1/"}, "upload_url"),
    ],
    ids=str,
)
async def test_a_wrong_setting_is_named(options: dict[str, Any], setting: str) -> None:
    """
    A client that can't work is not made, and the text names what to change.
    """
    with pytest.raises(ConfigurationError) as caught:
        Flipsnack(**{"api_key": "k", "api_secret": "s", **options})
    assert setting == caught.value.setting


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"attempts": 0},
        {"attempts": 1.5},
        {"rates": 5},
        {"rates": (5,)},
        {"rates": "5/1s"},
        {"quota": 5},
    ],
    ids=str,
)
async def test_wrong_options_are_named(options: dict[str, Any]) -> None:
    """
    What makes no sense is refused by name, before anything is done with it.
    """
    with pytest.raises(InvalidArgumentError) as caught:
        Flipsnack("k", "s", **options)
    assert next(iter(options)) == caught.value.field


@pytest.mark.parametrize(
    "api_url", ["http://127.0.0.1:9/v1", "http://localhost/v1/", "http://[::1]/"]
)
async def test_loopback_needs_no_https(api_url: str) -> None:
    """
    Plain http is for this machine, with or without the slash at the end.
    """
    flipsnack = Flipsnack("k", "s", api_url=api_url)

    assert api_url.rstrip("/") in repr(flipsnack)
    await flipsnack.aclose()


async def test_the_environment_makes_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Key, secret, host and rates come from the environment.
    """
    monkeypatch.setenv("FLIPSNACK_API_KEY", "k")
    monkeypatch.setenv("FLIPSNACK_API_SECRET", "s")
    monkeypatch.setenv("FLIPSNACK_API_URL", "http://127.0.0.1:9/v1/")
    monkeypatch.setenv("FLIPSNACK_RATES", "3/0.5s,7/2s")
    async with Flipsnack.from_env() as flipsnack:
        assert (Rate(3, per=0.5), Rate(7, per=2.0)) == flipsnack.quota.rates
        assert "127.0.0.1:9" in repr(flipsnack)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLIPSNACK_API_KEY", ""),
        ("FLIPSNACK_API_SECRET", ""),
        ("FLIPSNACK_API_SECRET", "two words"),
        ("FLIPSNACK_API_URL", "http://example.com/v1/"),
        ("FLIPSNACK_UPLOAD_URL", "nonsense"),
        ("FLIPSNACK_RATES", "fast"),
        ("FLIPSNACK_RATES", "0/1s"),
    ],
)
async def test_the_environment_is_checked(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """
    A variable that is missing or wrong is named.
    """
    for good in ("FLIPSNACK_API_KEY", "FLIPSNACK_API_SECRET"):
        monkeypatch.setenv(good, "x")
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError) as caught:
        Flipsnack.from_env()
    assert name == caught.value.setting


async def test_a_wrong_field_is_not_asked_for_again() -> None:
    """
    An envelope with a field of the wrong type would come back the same: one call is enough.
    """
    transport, seen = answering({"code": 20, "data": {"views": "many"}})
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        with pytest.raises(InvalidAnswerError, match=r"data\.views"):
            await flipsnack.user.get_stats()

    assert 1 == len(seen)


async def test_a_refusal_found_in_the_body_reaches_the_quota() -> None:
    """
    Code 31 is a refusal though its HTTP status is 200.
    """
    box = Sandbox()
    box.fail("user.getStats", code=31)
    async with client(box) as flipsnack:
        await flipsnack.user.get_stats()

        assert 1 == flipsnack.quota.statistics().refused
    assert [31, 20] == [call.code for call in box.ledger]


async def test_two_loops_do_not_share_a_client() -> None:
    """
    A client is refused in another event loop, in words.
    """
    box = Sandbox()
    flipsnack = client(box)
    await flipsnack.user.get_stats()

    def elsewhere() -> None:
        anyio.run(flipsnack.user.get_stats)

    with pytest.raises(ClientClosedError, match="another event loop"):
        await anyio.to_thread.run_sync(elsewhere)
    await flipsnack.aclose()


@pytest.mark.parametrize("data", [[{"Email": "a@example.com"}], "text", 7])
async def test_data_that_is_no_object_has_a_name(data: Any) -> None:
    """
    What an undocumented action answers is handed out, whatever its form.
    """
    transport, _ = answering({"code": 20, "data": data})
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        found = await flipsnack.call("zapier.getZapierLeadFormSample")

    assert {"data": data} == found


@pytest.mark.parametrize(
    ("action", "options", "field"),
    [
        ("", {}, "action"),
        (5, {}, "action"),
        ("x.y", {"effect": "once"}, "effect"),
        ("x.y", {"params": [("a", "b")]}, "params"),
        ("x.y", {"params": {"a": 10**30}}, "a"),
        ("x.y", {"file": b"%PDF", "on_progress": 7}, "on_progress"),
    ],
)
async def test_what_cannot_be_called_is_told(action: Any, options: Any, field: str) -> None:
    """
    Each wrong argument is told by its name, before anything is sent.
    """
    transport, seen = answering(OK)
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        with pytest.raises(InvalidArgumentError) as caught:
            await flipsnack.call(action, **options)

    assert field == caught.value.field
    assert [] == seen


@pytest.mark.parametrize("options", [{"timeout": "5"}, {"max_wait": "5"}, {"timeout": True}])
async def test_durations_are_numbers(options: Any) -> None:
    """
    What is no number of seconds is told as such.
    """
    async with client(Sandbox()) as flipsnack:
        with pytest.raises(InvalidArgumentError, match="seconds"):
            flipsnack.with_options(**options)
