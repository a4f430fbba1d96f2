"""The transport that waits: what it tells the quota of a request, and when."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from math import inf

import anyio
import httpcore
import httpx
import pytest
import respx
from inner import API, Inner, ok, signing

from flipsnack_async import Quota, Rate
from flipsnack_async._buckets import DRIFT
from flipsnack_async.errors import ConfigurationError, InvalidArgumentError
from flipsnack_async.quota import Permit
from flipsnack_async.transport import QuotaTransport

PER = 10 * (1 + DRIFT)


def free(quota: Quota) -> list[int]:
    return list(quota.statistics().free.values())


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

    patient = httpx.Request("GET", API, extensions={"quota": {"deadline": inf}})
    with anyio.move_on_after(1):
        await transport.handle_async_request(patient)

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
