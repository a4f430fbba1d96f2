"""The two transports: what leaves the process, when, and what nobody gets to see."""

from __future__ import annotations

import copy
import email
import email.policy
import logging
import pickle
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from hashlib import md5
from math import inf
from traceback import TracebackException
from typing import Any

import anyio
import httpcore
import httpx
import pytest
import respx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flipsnack_async import Quota, Rate
from flipsnack_async._signing import Credentials, Hidden, sign
from flipsnack_async.errors import ConfigurationError, InvalidArgumentError
from flipsnack_async.quota import DRIFT, Permit
from flipsnack_async.transport import QuotaTransport, SigningTransport

API = "https://api.flipsnack.com/v1/"
KEY = "45FD-267-7SG7832"
SECRET = "123ABCDE-456-7890-FGH"
PER = 10 * (1 + DRIFT)

Handler = Callable[[httpx.Request], Awaitable[httpx.Response]]


class Inner(httpx.AsyncBaseTransport):
    """Be an innermost transport that does as its function says; it reads no body by itself."""

    def __init__(self, handle: Handler) -> None:
        self.handle = handle
        self.seen: list[httpx.Request] = []
        self.closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        return await self.handle(request)

    async def aclose(self) -> None:
        self.closed = True


async def ok(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200)


def signing(inner: httpx.AsyncBaseTransport) -> SigningTransport:
    return SigningTransport(inner, Credentials(KEY, SECRET))


def free(quota: Quota) -> list[int]:
    return list(quota.statistics().free.values())


# --- QuotaTransport


@pytest.mark.anyio
async def test_requests_go_out_as_the_quota_admits_them() -> None:
    """
    Under any httpx client, requests wait for the quota and go out two in ten seconds.
    """
    sent: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(anyio.current_time() - start)
        return httpx.Response(200)

    start = anyio.current_time()
    transport = QuotaTransport(httpx.MockTransport(answer), Quota(Rate(2, per=10.0)))
    async with httpx.AsyncClient(transport=transport) as client, anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(client.get, API)

    assert [pytest.approx(number // 2 * PER, abs=1e-4) for number in range(6)] == sent


@pytest.mark.anyio
async def test_two_transports_may_share_a_quota() -> None:
    """
    What one transport sends, the other waits for.
    """
    quota = Quota(Rate(1, per=10.0))
    start = anyio.current_time()

    for _ in range(2):
        async with httpx.AsyncClient(
            transport=QuotaTransport(httpx.MockTransport(ok), quota)
        ) as client:
            await client.get(API)

    assert pytest.approx(PER, abs=1e-4) == anyio.current_time() - start


@pytest.mark.anyio
async def test_each_redirect_is_a_call_of_its_own() -> None:
    """
    A redirect that httpx follows takes a permit like any other request.
    """
    quota = Quota(Rate(5, per=1.0))

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/":
            return httpx.Response(302, headers={"Location": "/v2/"})
        return httpx.Response(200)

    async with httpx.AsyncClient(
        transport=QuotaTransport(httpx.MockTransport(answer), quota), follow_redirects=True
    ) as client:
        response = await client.get(API)

    assert "/v2/" == response.url.path
    assert 2 == quota.statistics().admitted


@pytest.mark.anyio
async def test_admitted_is_called_when_the_wait_is_over() -> None:
    """
    The callable in the request is called once, after the wait and before anything is sent.
    """
    told: list[tuple[str, float]] = []

    def note(what: str) -> None:
        told.append((what, round(anyio.current_time() - start, 3)))

    def answer(request: httpx.Request) -> httpx.Response:
        note("sent")
        return httpx.Response(200)

    start = anyio.current_time()
    transport = QuotaTransport(httpx.MockTransport(answer), Quota(Rate(1, per=10.0)))
    async with httpx.AsyncClient(transport=transport) as client:
        for _ in range(2):
            await client.get(API, extensions={"quota": {"admitted": lambda: note("admitted")}})

    at = round(PER, 3)
    assert [("admitted", 0.0), ("sent", 0.0), ("admitted", at), ("sent", at)] == told


@pytest.mark.anyio
@pytest.mark.parametrize(("pause", "left"), [(5, 2), (inf, 1)])
async def test_the_last_byte_has_left_when_the_body_is_exhausted(pause: float, left: int) -> None:
    """
    *reach* runs from the moment the transport has taken the body's last byte, and not before.
    """
    quota = Quota(Rate(2, per=10.0), reach=4.0)

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await anyio.sleep(pause)
        yield b"last"

    async def silent(request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        async for _ in request.stream:
            pass
        await anyio.sleep_forever()
        raise AssertionError("for ever is over")

    async def quick(request: httpx.Request) -> httpx.Response:
        return await (silent if request.method == "POST" else ok)(request)

    transport = QuotaTransport(Inner(quick), quota)
    async with anyio.create_task_group() as tasks:
        upload = httpx.Request("POST", API, content=body())
        tasks.start_soon(transport.handle_async_request, upload)
        await anyio.sleep(6)
        # The sign of life
        await transport.handle_async_request(httpx.Request("GET", API))
        await anyio.sleep(5 + 4 + PER - 6 - 0.01)
        assert [1] == free(quota)
        await anyio.sleep(0.02)
        assert [left] == free(quota)
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_the_answer_is_there_with_its_headers() -> None:
    """
    The token is back *per* after the headers, however long the answer's body takes.
    """
    quota = Quota(Rate(1, per=10.0))

    async def slowly() -> AsyncIterator[bytes]:
        await anyio.sleep(50)
        yield b"done"

    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=slowly())

    response = await QuotaTransport(Inner(answer), quota).handle_async_request(
        httpx.Request("GET", API)
    )

    assert pytest.approx(PER) == quota.statistics().next_in
    assert b"done" == await response.aread()
    assert [1] == free(quota)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError,
        httpx.ConnectTimeout,
        httpx.PoolTimeout,
        httpx.ProxyError,
        httpx.UnsupportedProtocol,
    ],
)
async def test_without_a_connection_the_tokens_are_back_at_once(
    error: type[httpx.TransportError],
) -> None:
    """
    A failure before a connection stands costs nothing, and reaches the caller as it is.
    """
    quota = Quota(Rate(1, per=10.0))

    async def fail(request: httpx.Request) -> httpx.Response:
        raise error("no connection")

    with pytest.raises(error, match="no connection"):
        await QuotaTransport(Inner(fail), quota).handle_async_request(httpx.Request("GET", API))

    assert [1] == free(quota)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "error",
    [
        httpx.ReadTimeout,
        httpx.WriteTimeout,
        httpx.ReadError,
        httpx.WriteError,
        httpx.CloseError,
        httpx.RemoteProtocolError,
        OSError,
    ],
)
async def test_after_any_other_failure_the_call_may_be_on_its_way(error: type[Exception]) -> None:
    """
    A failure after which the server may still count the call keeps its tokens for *linger*.
    """
    quota = Quota(Rate(1, per=10.0), linger=7.0)

    async def fail(request: httpx.Request) -> httpx.Response:
        raise error("it broke")

    with pytest.raises(error, match="it broke"):
        await QuotaTransport(Inner(fail), quota).handle_async_request(httpx.Request("GET", API))

    assert pytest.approx(7 + PER) == quota.statistics().next_in


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("error", "next_in"),
    [(httpcore.ConnectError, 0.0), (httpcore.ConnectTimeout, 0.0), (httpcore.ReadError, 30 + PER)],
)
async def test_failures_of_httpcore_are_told_apart(
    error: type[Exception], next_in: float, respx_mock: respx.MockRouter
) -> None:
    """
    Beneath a real transport, too, a call that never connected is free and a broken one is not.
    """
    quota = Quota(Rate(1, per=10.0))
    respx_mock.get(API).mock(side_effect=error)

    transport = QuotaTransport(httpx.AsyncHTTPTransport(), quota)
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(httpx.TransportError):
            await client.get(API)

    assert pytest.approx(next_in) == quota.statistics().next_in


@pytest.mark.anyio
async def test_a_cancelled_request_may_be_on_its_way() -> None:
    """
    A request that is cancelled after its admission keeps its tokens for *linger*.
    """
    quota = Quota(Rate(1, per=10.0), linger=7.0)

    async def hang(request: httpx.Request) -> httpx.Response:
        await anyio.sleep_forever()
        raise AssertionError("for ever is over")

    with anyio.move_on_after(1):
        await QuotaTransport(Inner(hang), quota).handle_async_request(httpx.Request("GET", API))

    assert pytest.approx(7 + PER) == quota.statistics().next_in


@pytest.mark.anyio
async def test_a_request_cancelled_in_line_is_never_sent() -> None:
    """
    A request that is cancelled before its admission reaches nobody and takes nothing.
    """
    quota = Quota(Rate(1, per=10.0))
    inner = Inner(ok)
    transport = QuotaTransport(inner, quota)
    await transport.handle_async_request(httpx.Request("GET", API))

    with anyio.move_on_after(1):
        await transport.handle_async_request(httpx.Request("GET", API))

    assert 1 == len(inner.seen)
    assert pytest.approx(PER - 1, abs=1e-4) == quota.statistics().next_in


@pytest.mark.anyio
@pytest.mark.parametrize(
    "url", [API + "?title=1&title=2", "http://api.flipsnack.com/v1/?action=user.getStats"]
)
async def test_a_request_that_cannot_be_signed_costs_nothing(url: str) -> None:
    """
    What the signing transport beneath refuses was never sent: its tokens are back at once.
    """
    quota = Quota(Rate(1, per=10.0))

    with pytest.raises((InvalidArgumentError, ConfigurationError)):
        await QuotaTransport(signing(Inner(ok)), quota).handle_async_request(
            httpx.Request("GET", url)
        )

    assert [1] == free(quota)


@pytest.mark.anyio
@pytest.mark.parametrize(("status", "refused"), [(200, 0), (302, 0), (404, 0), (429, 1), (503, 0)])
async def test_too_many_requests_count_as_refused(status: int, refused: int) -> None:
    """
    HTTP 429 is reported to the quota as a refusal, no other status is; each is an answer.
    """
    quota = Quota(Rate(1, per=10.0))
    transport = QuotaTransport(httpx.MockTransport(lambda _: httpx.Response(status)), quota)

    await transport.handle_async_request(httpx.Request("GET", API))

    assert refused == quota.statistics().refused
    assert pytest.approx(PER) == quota.statistics().next_in


@pytest.mark.anyio
async def test_the_permit_is_left_for_refusals_in_the_body() -> None:
    """
    The response carries its permit, through which a refusal found in the body is reported.
    """
    quota = Quota(Rate(1, per=10.0))
    async with httpx.AsyncClient(
        transport=QuotaTransport(httpx.MockTransport(ok), quota)
    ) as client:
        response = await client.get(API)
    permit = response.extensions["quota_permit"]
    assert isinstance(permit, Permit)

    permit.refused()

    assert 1 == quota.statistics().refused


@pytest.mark.anyio
@pytest.mark.parametrize("status", [200, None])
async def test_the_request_keeps_its_body(status: int | None) -> None:
    """
    After an answer as after a failure the request has the stream it came with, and can go again.
    """

    async def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(await request.aread())
        if status is None:
            raise httpx.ReadError("it broke")
        return httpx.Response(status)

    bodies: list[bytes] = []
    transport = QuotaTransport(signing(Inner(answer)), Quota())
    request = httpx.Request("GET", API, content=b"the body")
    stream = request.stream

    for _ in range(2):
        try:
            await transport.handle_async_request(request)
        except httpx.ReadError:
            assert status is None
        assert stream is request.stream

    assert [b"the body", b"the body"] == bodies


@pytest.mark.anyio
async def test_a_streamed_body_arrives_whole(respx_mock: respx.MockRouter) -> None:
    """
    A POST whose body is an async iterator reaches the wire unchanged.
    """
    route = respx_mock.post(API)

    async def body() -> AsyncIterator[bytes]:
        for number in range(100):
            await anyio.sleep(0.01)
            yield b"%d," % number

    transport = QuotaTransport(httpx.AsyncHTTPTransport(), Quota(Rate(5, per=1.0)))
    async with httpx.AsyncClient(transport=transport) as client:
        await client.post(API, content=body())

    assert b"".join(b"%d," % number for number in range(100)) == route.calls.last.request.content


@pytest.mark.anyio
async def test_a_body_for_threads_only_is_refused() -> None:
    """
    A body that can only be read by blocking is refused before it takes a token.
    """
    quota = Quota(Rate(1, per=10.0))
    inner = Inner(ok)

    with pytest.raises(InvalidArgumentError) as caught:
        await QuotaTransport(inner, quota).handle_async_request(
            httpx.Request("POST", API, content=iter([b"blocking"]))
        )

    assert "request" == caught.value.field
    assert [1] == free(quota)
    assert [] == inner.seen


@pytest.mark.anyio
@pytest.mark.parametrize("wrap", [signing, lambda inner: QuotaTransport(inner, Quota())])
async def test_closing_closes_what_is_beneath(
    wrap: Callable[[httpx.AsyncBaseTransport], httpx.AsyncBaseTransport],
) -> None:
    """
    A client that is closed closes the innermost transport.
    """
    inner = Inner(ok)

    async with httpx.AsyncClient(transport=wrap(inner)):
        assert not inner.closed

    assert inner.closed


# --- signatures

# Of api/examples: the first is the vendor's own, the others are computed as he documents it.
VECTORS: list[tuple[str, dict[str, str], str]] = [
    (
        "123ABCDE-456-7890-FGH",
        {
            "action": "collection.getCollection",
            "collectionHash": "fxh4k89",
            "apiKey": "45FD-267-7SG7832",
        },
        "26e781d3d1751d82ec284acf4a019def",
    ),
    (
        "secretKey",
        {"action": "3", "collectionHash": "1", "apiKey": "2"},
        "7e5d0a9d89def991af37cf944b4e58af",
    ),
    (
        "123ABCDE-456-7890-FGH",
        {"action": "user.getStats", "apiKey": "45FD-267-7SG7832"},
        "8606359ca21901b323baf9d61e0ca899",
    ),
    (
        "123ABCDE-456-7890-FGH",
        {
            "action": "collection.getStats",
            "apiKey": "45FD-267-7SG7832",
            "collectionHash": "d3m0h45h",
            "startDate": "2024-01-01",
            "endDate": "2024-01-31",
            "includePageStats": "true",
        },
        "c39edd6d426aa839ee37dc3d6b04b2b6",
    ),
    (
        "123ABCDE-456-7890-FGH",
        {
            "action": "collection.getList",
            "apiKey": "45FD-267-7SG7832",
            "format": "json",
            "orderBy": "name",
            "orderMode": "asc",
            "query": "",
        },
        "c75067c9af6c75806ce5af0b6033fc7d",
    ),
    (
        "123ABCDE-456-7890-FGH",
        {
            "action": "collection.getEmbed",
            "apiKey": "45FD-267-7SG7832",
            "collectionHash": "fxh4k89",
            "format": "json",
            "startBook": "1",
            "startPage": "1",
            "responsive": "true",
            "height": "200",
            "width": "200",
        },
        "c5d6477492a601526a8d193e6c5850f8",
    ),
    (
        "123ABCDE-456-7890-FGH",
        {
            "action": "collection.downloadHTML",
            "apiKey": "45FD-267-7SG7832",
            "collectionHash": "d3m0h45h",
        },
        "9d0c2720fa67ea87b7842440a77e1db5",
    ),
    (
        "123ABCDE-456-7890-FGH",
        {
            "action": "collection.deleteCollection",
            "apiKey": "45FD-267-7SG7832",
            "collectionHash": "d3m0h45h",
        },
        "0d6c4b0ecaae584f4a2e91342347915d",
    ),
    (
        "123ABCDE-456-7890-FGH",
        {
            "action": "collection.update",
            "apiKey": "45FD-267-7SG7832",
            "collectionHash": "fxh4k89",
            "title": "Catalogue d'été & prix",
            "collectionStatus": "unlisted",
            "collectionWidth": "650",
        },
        "f121684a06f651e95c3f3043276d2936",
    ),
    (
        "123ABCDE-456-7890-FGH",
        {
            "action": "collection.create",
            "apiKey": "45FD-267-7SG7832",
            "title": "Spring",
            "file": "@document.pdf",
        },
        "ebc4a6eb0c00c5e8a8c7cbb4bcab4428",
    ),
    (
        "123ABCDE-456-7890-FGH",
        {
            "action": "collection.create",
            "apiKey": "45FD-267-7SG7832",
            "title": "Spring",
            "fileUrl": "https://example.com/a b.pdf?x=1&y=2",
        },
        "5f65c4b27b7766b4e9146f4e9bb859d0",
    ),
    (
        "123ABCDE-456-7890-FGH",
        {
            "action": "user.getStats",
            "apiKey": "45FD-267-7SG7832",
            "format": "jsonp",
            "callback": "cb",
        },
        "68baa09f68242542739aa40c9422b05e",
    ),
]
BY_ACTION = [f"{params['action']}-{number}" for number, (_, params, _) in enumerate(VECTORS)]


@pytest.mark.parametrize(("secret", "params", "signature"), VECTORS, ids=BY_ACTION)
def test_signatures_are_the_vendors(secret: str, params: dict[str, str], signature: str) -> None:
    """
    Every known vector is signed as known, in whatever order and with a signature there or not.
    """
    backwards = dict(reversed(params.items()))

    assert signature.encode() == sign(params, secret.encode())
    assert signature.encode() == sign(backwards, secret.encode())
    assert signature.encode() == sign({**params, "signature": "0" * 32}, secret.encode())


def digest(params: Mapping[str, str]) -> str:
    """Sign by the documentation's steps, knowing nothing of the module under test."""
    names = sorted(params, key=str.encode)
    text = SECRET + "".join(name + params[name] for name in names)
    return md5(text.encode(), usedforsecurity=False).hexdigest()


def decoded(query: bytes) -> list[tuple[str, str]]:
    """Decode a query as form decoders do, by the standard's rules and none of urllib's code."""

    def text(escaped: bytes) -> str:
        return re.sub(
            rb"%([0-9A-Fa-f]{2})",
            lambda found: bytes([int(found[1], 16)]),
            escaped.replace(b"+", b" "),
        ).decode()

    pairs = [pair.partition(b"=") for pair in query.split(b"&")]
    return [(text(name), text(value)) for name, _, value in pairs]


def assert_well_signed(query: bytes, expected: Mapping[str, str]) -> None:
    """See that the wire holds *expected*, our key and the signature of both, each once."""
    pairs = decoded(query)
    fields = dict(pairs)
    assert len(pairs) == len(fields)
    assert {**expected, "apiKey": KEY, "signature": digest({**expected, "apiKey": KEY})} == fields


@pytest.mark.anyio
async def test_the_documented_call_goes_out_as_documented(respx_mock: respx.MockRouter) -> None:
    """
    The vendor's example leaves the process letter for letter, and shows only there.
    """
    route = respx_mock.get(host="api.flipsnack.com")
    clean = API + "?action=collection.getCollection&collectionHash=fxh4k89"
    request = httpx.Request("GET", clean)

    async with httpx.AsyncClient(transport=signing(httpx.AsyncHTTPTransport())) as client:
        response = await client.send(request)

    assert (
        "https://api.flipsnack.com/v1/?action=collection.getCollection&collectionHash=fxh4k89"
        "&apiKey=45FD-267-7SG7832&signature=26e781d3d1751d82ec284acf4a019def"
    ) == str(route.calls.last.request.url)
    assert request is response.request
    assert clean == str(request.url) == str(response.url)
    assert "target" not in request.extensions
    assert KEY not in f"{request.headers!r}{request.extensions!r}{response.extensions!r}"


@pytest.mark.anyio
@pytest.mark.parametrize("title", ["a&b", "a=b", "a+b", "a b", "100%", "%41", "ü", "😀", "", "a;b"])
async def test_titles_survive_the_wire(title: str, respx_mock: respx.MockRouter) -> None:
    """
    Whatever a title is made of, the server decodes that title and finds it well signed.
    """
    route = respx_mock.get(host="api.flipsnack.com")
    params = {"action": "collection.update", "title": title}

    async with httpx.AsyncClient(transport=signing(httpx.AsyncHTTPTransport())) as client:
        await client.get(API, params=params)

    assert_well_signed(route.calls.last.request.url.query, params)


names = st.text(st.characters(codec="utf-8"), min_size=1).filter(
    lambda name: name not in ("apiKey", "signature", "file")
)


@pytest.mark.anyio
@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    # Every example runs on a loop of its own; the backend is only its name.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(params=st.dictionaries(names, st.text(st.characters(codec="utf-8")), max_size=5))
async def test_what_a_decoder_gets_is_what_was_signed(params: dict[str, str]) -> None:
    """
    Any names and values in Unicode arrive as they were given, and are what was signed.
    """
    inner = Inner(ok)

    async with httpx.AsyncClient(transport=signing(inner)) as client:
        await client.get(API, params={"action": "any", **params})

    path, _, query = inner.seen[0].extensions["target"].partition(b"?")
    assert b"/v1/" == path
    assert_well_signed(query, {"action": "any", **params})


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("url", "path", "params"),
    [
        ("/v1/", b"/v1/", {}),
        ("/v1/?", b"/v1/", {}),
        ("/v1/?a=1#fragment", b"/v1/", {"a": "1"}),
        ("/a%20b/?a=%2B", b"/a%20b/", {"a": "+"}),
        ("/v1/?a=b+c%20d", b"/v1/", {"a": "b c d"}),
        ("/v1/?a=%c3%BC", b"/v1/", {"a": "ü"}),
        ("/v1/?a=ü&b=\N{SNOWMAN}", b"/v1/", {"a": "ü", "b": "\N{SNOWMAN}"}),
        ("/v1/?a=&b", b"/v1/", {"a": "", "b": ""}),
        ("/v1/?a=1&&b=2&", b"/v1/", {"a": "1", "b": "2"}),
        ("/v1/?a=1;b=2", b"/v1/", {"a": "1;b=2"}),
        ("/v1/?a=?", b"/v1/", {"a": "?"}),
        ("/v1/?a=1&A=2", b"/v1/", {"a": "1", "A": "2"}),
        ("/v1/?a=1&apiKey=other&signature=wrong", b"/v1/", {"a": "1"}),
    ],
)
async def test_odd_urls_are_signed_as_the_server_reads_them(
    url: str, path: bytes, params: dict[str, str]
) -> None:
    """
    However a URL is written, its decoded query is what is signed, with our key and no other.
    """
    inner = Inner(ok)

    await signing(inner).handle_async_request(
        httpx.Request("GET", f"https://api.flipsnack.com{url}")
    )

    sent_path, _, query = inner.seen[0].extensions["target"].partition(b"?")
    assert path == sent_path
    assert_well_signed(query, params)


@pytest.mark.anyio
@pytest.mark.parametrize("query", ["a=1&a=2", "a=1&b=2&a=1", "a=&a", "title=x&%74itle=y"])
async def test_parameters_that_come_twice_are_refused(query: str) -> None:
    """
    Two values of one name have no signature: the call is refused, and nothing sent.
    """
    inner = Inner(ok)

    with pytest.raises(InvalidArgumentError) as caught:
        await signing(inner).handle_async_request(httpx.Request("GET", f"{API}?{query}"))

    assert "params" == caught.value.field
    assert [] == inner.seen


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("origin", "good"),
    [
        ("https://api.flipsnack.com", True),
        ("https://10.0.0.1", True),
        ("http://localhost", True),
        ("http://LOCALHOST:8000", True),
        ("http://127.0.0.1:8000", True),
        ("http://127.0.0.2", True),
        ("http://127.255.255.254", True),
        ("http://[::1]:8000", True),
        ("http://api.flipsnack.com", False),
        ("http://127.0.0.1.evil.example", False),
        ("http://localhost.evil.example", False),
        ("http://127.0.0.1@evil.example", False),
        ("http://evil.example#localhost", False),
        ("http://10.0.0.1", False),
        ("http://0.0.0.0", False),
        ("http://128.0.0.1", False),
        ("http://[::2]", False),
        ("http://[fe80::1]", False),
        ("ftp://localhost", False),
        ("ws://localhost", False),
    ],
)
async def test_keys_leave_over_https_or_stay_on_this_machine(origin: str, good: bool) -> None:
    """
    A key goes over https, or over plain http to loopback; elsewhere the request is refused.
    """
    inner = Inner(ok)
    request = httpx.Request("GET", origin)

    if good:
        await signing(inner).handle_async_request(request)
    else:
        with pytest.raises(ConfigurationError) as caught:
            await signing(inner).handle_async_request(request)
        assert "url" == caught.value.setting

    assert good == bool(inner.seen)


# --- uploads


def parts_of(request: httpx.Request) -> list[tuple[str, bytes]]:
    """Take a multipart body apart with the standard library's mail parser."""
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + request.content, policy=email.policy.HTTP)
    assert [] == message.defects
    parts = []
    for part in message.iter_parts():
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        parts.append((part["Content-Disposition"].params["name"], payload))
    return parts


class Pipe:
    """Be a file whose size nobody knows."""

    def __init__(self, content: bytes) -> None:
        self.chunks = [content, b""]

    def read(self, size: int = -1) -> bytes:
        return self.chunks.pop(0)


FIELDS = {"action": "collection.create", "title": "Spring"}


@pytest.mark.anyio
@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("title", ["Spring", "Catalogue d'été & prix", "a=b\r\n--c", "😀"])
async def test_an_upload_carries_key_and_signature_as_parts(
    title: str, sized: bool, respx_mock: respx.MockRouter
) -> None:
    """
    A multipart POST parses back into its own parts and the two that sign its fields.
    """
    route = respx_mock.post(API)
    fields = {"action": "collection.create", "title": title}
    pdf: Any = b"%PDF-1.7\r\n\x00\xff" if sized else Pipe(b"%PDF-1.7\r\n\x00\xff")
    files = {name: (None, value) for name, value in fields.items()}

    async with httpx.AsyncClient(transport=signing(httpx.AsyncHTTPTransport())) as client:
        response = await client.post(
            API,
            files={**files, "file": ("a.pdf", pdf, "application/pdf")},
            extensions={"flipsnack_fields": fields},
        )

    wire = route.calls.last.request
    signed = {**fields, "apiKey": KEY}
    assert sorted(
        [
            *((name, value.encode()) for name, value in signed.items()),
            ("signature", digest(signed).encode()),
            ("file", b"%PDF-1.7\r\n\x00\xff"),
        ]
    ) == sorted(parts_of(wire))
    if sized:
        assert str(len(wire.content)) == wire.headers["Content-Length"]
        assert len(wire.content) > int(response.request.headers["Content-Length"])
    else:
        assert "chunked" == wire.headers["Transfer-Encoding"]
        assert "Content-Length" not in wire.headers
    assert API == str(wire.url) == str(response.request.url)


@pytest.mark.anyio
async def test_an_upload_has_the_known_signature(respx_mock: respx.MockRouter) -> None:
    """
    The vector of an upload goes out as its parts; the file takes no part in it.
    """
    route = respx_mock.post(API)

    async with httpx.AsyncClient(transport=signing(httpx.AsyncHTTPTransport())) as client:
        await client.post(API, files={"file": b"%PDF"}, extensions={"flipsnack_fields": FIELDS})

    parts = dict(parts_of(route.calls.last.request))
    assert {
        "apiKey": b"45FD-267-7SG7832",
        "signature": b"ebc4a6eb0c00c5e8a8c7cbb4bcab4428",
        "file": b"%PDF",
    } == parts


@pytest.mark.anyio
@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data; boundary=mine",
        'multipart/form-data; boundary="mine"',
        "multipart/form-data;boundary=mine",
        "multipart/form-data; boundary=mine; charset=utf-8",
    ],
)
async def test_a_boundary_of_ones_own_is_kept(content_type: str) -> None:
    """
    However the caller wrote the boundary, all parts are found by it, or the call is refused.
    """

    async def read(request: httpx.Request) -> httpx.Response:
        await request.aread()
        return httpx.Response(200)

    inner = Inner(read)
    request = httpx.Request(
        "POST",
        API,
        files={"title": (None, "Spring")},
        headers={"Content-Type": content_type},
        extensions={"flipsnack_fields": {"title": "Spring"}},
    )

    try:
        await signing(inner).handle_async_request(request)
    except InvalidArgumentError:
        assert "multipart/form-data; boundary=mine" != content_type
        assert [] == inner.seen
    else:
        parts = parts_of(inner.seen[0])
        assert ["apiKey", "signature", "title"] == sorted(name for name, _ in parts)


@pytest.mark.anyio
@pytest.mark.parametrize("body", [{"content": b"{}"}, {"json": {}}, {"data": {"title": "Spring"}}])
async def test_a_post_that_is_no_multipart_is_refused(body: dict[str, Any]) -> None:
    """
    Parts cannot be put in front of a body that has none: such a POST is refused, and not sent.
    """
    inner = Inner(ok)

    with pytest.raises(InvalidArgumentError) as caught:
        await signing(inner).handle_async_request(
            httpx.Request("POST", API, extensions={"flipsnack_fields": FIELDS}, **body)
        )

    assert "request" == caught.value.field
    assert [] == inner.seen


@pytest.mark.anyio
async def test_an_upload_can_be_sent_again() -> None:
    """
    Signing changes nothing of the request it was given: sent twice, it arrives twice the same.
    """

    async def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(await request.aread())
        return httpx.Response(200)

    bodies: list[bytes] = []
    transport = QuotaTransport(signing(Inner(answer)), Quota())
    request = httpx.Request(
        "POST", API, files={"file": b"%PDF"}, extensions={"flipsnack_fields": FIELDS}
    )
    length = request.headers["Content-Length"]

    for _ in range(2):
        await transport.handle_async_request(request)

    assert bodies[0] == bodies[1]
    assert length == request.headers["Content-Length"]
    assert {"flipsnack_fields": FIELDS} == request.extensions


# --- secrets

SIGNATURE = digest({"action": "user.getStats", "apiKey": KEY})
SHOWN: list[Callable[[Any], str]] = [
    repr,
    str,
    ascii,
    format,
    lambda thing: f"{thing} {thing!r} {thing!s} {[thing]} {{1: thing}}",
    lambda thing: "%s %r" % (thing, thing),  # noqa: UP031 - as the logging module does it
    "{}".format,
]


@pytest.mark.parametrize("thing", [Credentials(KEY, SECRET), Hidden(SECRET.encode())], ids=type)
def test_secrets_show_nothing_of_themselves(thing: object) -> None:
    """
    However key, secret or a signed target is turned into text, none of it is in there.
    """
    texts = [show(thing) for show in SHOWN]

    assert all("hidden" in text for text in texts)
    assert not [text for text in texts if KEY in text or SECRET in text]
    assert not hasattr(thing, "__dict__") or not vars(thing)


@pytest.mark.parametrize(
    "carry",
    [
        *(
            lambda thing, protocol=protocol: pickle.dumps(thing, protocol)
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        ),
        copy.copy,
        copy.deepcopy,
    ],
)
@pytest.mark.parametrize("thing", [Credentials(KEY, SECRET), Hidden(SECRET.encode())], ids=type)
def test_secrets_are_not_carried_off(thing: object, carry: Callable[[object], object]) -> None:
    """
    Secrets cannot be pickled or copied, and the refusal does not quote them.
    """
    with pytest.raises(TypeError, match="cannot be pickled") as caught:
        carry(thing)

    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "bad", ["", " ", "sesame open", "sesame\n", "\tsesame", "sésame", "\ud800", None, 5]
)
@pytest.mark.parametrize("setting", ["api_key", "api_secret"])
def test_bad_credentials_are_named_and_not_quoted(setting: str, bad: Any) -> None:
    """
    A key or secret that cannot be one is refused by name; what it was is not told.
    """
    given = {"api_key": KEY, "api_secret": SECRET, setting: bad}
    credentials = Credentials(**given)
    del given

    with pytest.raises(ConfigurationError) as caught:
        SigningTransport(Inner(ok), credentials)

    assert setting == caught.value.setting
    text = TracebackException.from_exception(caught.value, capture_locals=True)
    assert not [word for word in (KEY, SECRET, "sesame") if word in frames(text)]


def frames(shown: TracebackException) -> str:
    """Write a traceback with its locals, and those of its causes, without the tests' own frames."""
    for link in (shown, shown.__cause__, shown.__context__):
        for frame in link.stack if link else ():
            if frame.filename == __file__ and frame.name.startswith("test_"):
                frame.locals = None
    return "".join(shown.format())


class Network(httpcore.AsyncNetworkBackend, httpcore.AsyncNetworkStream):
    """
    Be a network and its only connection, which answers 200 to everything.

    With a *failure* it fails *at* the write that holds the key, or the next
    read.
    """

    def __init__(self, failure: Exception | None = None, at: str = "") -> None:
        self.failure = failure
        self.at = at
        self.written = b""

    def _fail(self, at: str) -> None:
        if self.failure is not None and at == self.at and KEY.encode() in self.written:
            raise self.failure

    async def connect_tcp(self, *_: Any, **__: Any) -> Network:
        return self

    async def start_tls(self, *_: Any, **__: Any) -> Network:
        return self

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - so it is called
        self.written += buffer
        self._fail("write")

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        self._fail("read")
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    async def aclose(self) -> None:
        pass

    def get_extra_info(self, info: str) -> Any:
        return None

    def __repr__(self) -> str:
        return "<network>"


def over(network: Network) -> httpx.AsyncHTTPTransport:
    """Make httpx's own transport, on a network of ours: all of httpcore runs but the socket."""
    transport = httpx.AsyncHTTPTransport()
    transport._pool = httpcore.AsyncConnectionPool(network_backend=network)
    return transport


CALL = {"action": "user.getStats"}
REQUESTS: dict[str, dict[str, Any]] = {
    "GET": {"url": API, "params": CALL},
    "POST": {
        "url": API,
        "files": {"action": (None, "user.getStats")},
        "extensions": {"flipsnack_fields": CALL},
    },
}


@pytest.mark.anyio
# httpcore leaves a body that it could not send to the garbage collector, which trio remarks upon.
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
@pytest.mark.parametrize("method", REQUESTS)
@pytest.mark.parametrize(
    ("at", "failure"),
    [
        ("write", httpcore.WriteTimeout("slow")),
        ("write", ValueError("somebody's bug")),
        ("read", httpcore.ReadError("reset")),
        ("read", ValueError("somebody's bug")),
    ],
)
async def test_no_traceback_of_a_real_transport_holds_a_secret(
    method: str, at: str, failure: Exception
) -> None:
    """
    When a connection fails with a signed request on it, no frame of the traceback shows it.
    """
    network = Network(failure, at)

    async with httpx.AsyncClient(transport=signing(over(network))) as client:
        with pytest.raises((httpx.TransportError, ValueError)) as caught:
            await client.request(method, **REQUESTS[method])

    text = frames(TracebackException.from_exception(caught.value, capture_locals=True))
    assert "handle_async_request" in text
    assert SIGNATURE.encode() in network.written
    assert [] == [word for word in (KEY, SECRET, SIGNATURE) if word in text]


@pytest.mark.anyio
@pytest.mark.parametrize("method", REQUESTS)
async def test_no_traceback_of_any_transport_holds_a_secret(method: str) -> None:
    """
    When an inner transport fails that holds the request it was given, its traceback shows nothing.
    """

    async def fail(signed: httpx.Request) -> httpx.Response:
        assert isinstance(signed.stream, httpx.AsyncByteStream)
        chunks = [chunk async for chunk in signed.stream]
        held = (signed.extensions, signed.headers, signed.url, vars(signed.stream), chunks)
        raise httpx.ReadTimeout(f"{len(held)} things are held")

    async with httpx.AsyncClient(transport=signing(Inner(fail))) as client:
        with pytest.raises(httpx.ReadTimeout) as caught:
            await client.request(method, **REQUESTS[method])

    text = frames(TracebackException.from_exception(caught.value, capture_locals=True))
    assert "5 things are held" in text
    assert [] == [word for word in (KEY, SECRET, SIGNATURE) if word in text]


@pytest.mark.anyio
@pytest.mark.parametrize("value", ["\ud800", 5])
@pytest.mark.parametrize("method", REQUESTS)
async def test_no_traceback_of_signing_holds_a_secret(method: str, value: Any) -> None:
    """
    Fields that have no signature fail to be signed without showing what they were signed with.
    """
    fields = {"action": "collection.create", "title": value}
    request = httpx.Request(method, API, files={}, extensions={"flipsnack_fields": fields})
    request.headers["Content-Type"] = "multipart/form-data; boundary=mine"

    with pytest.raises((TypeError, ValueError)) as caught:
        await signing(Inner(ok)).handle_async_request(request)

    text = frames(TracebackException.from_exception(caught.value, capture_locals=True))
    assert [] == [word for word in (KEY, SECRET) if word in text]
    assert KEY not in repr(vars(caught.value)) + repr(getattr(caught.value, "object", ""))


@pytest.mark.anyio
@pytest.mark.parametrize("method", REQUESTS)
async def test_no_log_line_holds_a_secret(method: str, caplog: pytest.LogCaptureFixture) -> None:
    """
    At DEBUG, httpx and httpcore tell of the request and of nothing that signs it.
    """
    caplog.set_level(logging.DEBUG)
    network = Network()

    async with httpx.AsyncClient(transport=signing(over(network))) as client:
        await client.request(method, **REQUESTS[method])

    assert SIGNATURE.encode() in network.written
    assert {"httpx", "httpcore.http11"} <= {record.name for record in caplog.records}
    lines = [f"{record.getMessage()} {record.args!r}" for record in caplog.records]
    assert [] == [line for line in lines if KEY in line or SECRET in line or SIGNATURE in line]
