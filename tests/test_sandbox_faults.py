"""The sandbox takes its time, goes wrong as told, and is reached in process and by a socket."""

import logging
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any
from zipfile import ZipFile

import anyio
import httpx
import pytest
from test_sandbox import API, ask, signed

from flipsnack_async.sandbox import Sandbox, SandboxCall

DOCUMENTED = {
    20: "OK",
    22: "Maintenance mode",
    30: "Missing mandatory parameter",
    31: "Requests per second limit exceeded",
    32: "Requests per minute limit exceeded",
    33: "Uploads per month exceeded",
    34: "File size too large",
    35: "Collection maximum pages number exceeded",
    36: "Multiple files upload not allowed",
    37: "Delete flipbook not available for this collection",
    38: "Collection is in processing state",
    40: "Bad request",
    41: "Invalid credentials",
    42: "Invalid action",
    43: "Forbidden",
    44: "Invalid signature",
    45: "Invalid file format",
    46: "Invalid collection hash",
}


@pytest.mark.anyio
@pytest.mark.parametrize(("code", "status"), DOCUMENTED.items())
async def test_every_documented_code(code: int, status: str) -> None:
    """
    Every code of the contract can be scripted, comes with its message, and without data.
    """
    sandbox = Sandbox()
    sandbox.fail("user.getStats", code=code)

    assert {"code": code, "status": status} == await ask(sandbox, "user.getStats")
    assert "data" in await ask(sandbox, "user.getStats")


@pytest.mark.anyio
async def test_faults_strike_in_order() -> None:
    """
    Faults strike as often and in the order as told, each only its action.
    """
    sandbox = Sandbox(rates=())
    sandbox.fail("user.getStats", code=22, times=2)
    sandbox.fail("user.getStats", code=47, message="Out of paper")
    sandbox.fail("*", code=38, times=None)

    codes = [(await ask(sandbox, "collection.getList"))["code"]]
    answers = [await ask(sandbox, "user.getStats") for _ in range(5)]

    assert codes == [38]
    assert [answer["code"] for answer in answers] == [22, 22, 47, 38, 38]
    assert answers[2]["status"] == "Out of paper"


@pytest.mark.parametrize(
    "fault",
    [
        {},
        {"code": 22, "lost": True},
        {"code": 22, "body": "<html>"},
        {"code": 47},
        {"code": 22, "times": 0},
    ],
)
def test_faults_that_make_no_sense(fault: dict[str, Any]) -> None:
    """
    A fault is one thing, has a message and strikes at least once, or is refused when scripted.
    """
    with pytest.raises(ValueError):
        Sandbox().fail("user.getStats", **fault)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("body", "http_status"), [(b"<html>Bad gateway", 502), ('{"code": 20, "da', 200), ("", 429)]
)
async def test_foreign_answers(body: bytes | str, http_status: int) -> None:
    """
    Bytes that are no envelope leave as they are, under any HTTP status, and count as no code.
    """
    sandbox = Sandbox(rates=[(0, 1.0)])
    sandbox.fail("*", body=body, http_status=http_status)

    async with httpx.AsyncClient(transport=sandbox.transport()) as client:
        answer = await client.get(API)

    assert http_status == answer.status_code
    assert (body if isinstance(body, bytes) else body.encode()) == answer.content
    assert [call.code for call in sandbox.ledger] == [None]


@pytest.mark.anyio
async def test_lost_answers() -> None:
    """
    A lost answer never comes, though the work was done and the call counted.
    """
    sandbox = Sandbox(rates=[(1, 9000.0)], export_seconds=7200.0)
    name = sandbox.hashes[0]
    sandbox.fail("collection.downloadHTML", lost=True)

    with anyio.move_on_after(7200.0) as waiting:
        await ask(sandbox, "collection.downloadHTML", collectionHash=name)

    assert waiting.cancelled_caught
    assert {"collectionHash": name} == sandbox.ledger[0].params
    assert (await ask(sandbox, "user.getStats"))["code"] == 32
    await anyio.sleep(1800.0)
    answer = await ask(sandbox, "collection.downloadHTML", collectionHash=name)
    assert answer["data"]["status"] == "COMPLETE"


@pytest.mark.anyio
async def test_export() -> None:
    """
    A package takes its time, then every question gets a link that lives its own minute.
    """
    sandbox = Sandbox(export_seconds=20.0, link_seconds=60.0)
    name = sandbox.hashes[0]

    async def progress() -> dict[str, str]:
        answer = await ask(sandbox, "collection.downloadHTML", collectionHash=name)
        data: dict[str, str] = answer["data"]
        return data

    assert await progress() == {"status": "PROCESSING"}
    await anyio.sleep(19.9)
    assert await progress() == {"status": "PROCESSING"}
    await anyio.sleep(0.2)
    first, second = await progress(), await progress()

    assert "COMPLETE" == first["status"] == second["status"]
    assert first["resourceUrl"] != second["resourceUrl"]
    async with httpx.AsyncClient(transport=sandbox.transport()) as client:
        url = httpx.URL(first["resourceUrl"])
        await anyio.sleep(59.9)
        package = await client.get(url)
        await anyio.sleep(0.2)
        expired = await client.get(url)
        unknown = await client.get(f"https://api.flipsnack.test/packages/guess/{name}.zip")

    assert (url.scheme, url.host) == ("https", "api.flipsnack.test")
    (listed,) = (await ask(sandbox, "collection.getList", limit="1"))["data"]["collections"]
    page = ZipFile(BytesIO(package.content)).read("index.html").decode()
    assert listed["collectionTitle"] in page
    assert [package.status_code, expired.status_code, unknown.status_code] == [200, 403, 404]


@pytest.mark.anyio
async def test_numbers_as_text() -> None:
    """
    A stringly sandbox answers the same with every number as text.
    """
    answer = await ask(Sandbox(stringly=True), "user.getStats")

    assert answer["code"] == "20"
    assert answer["data"]["api_uploads_left"] == "1000"
    assert all(isinstance(count, str) for count in answer["data"].values())


@pytest.mark.anyio
async def test_failed_exports() -> None:
    """
    A failed export is a successful call that says FAILED.
    """
    sandbox = Sandbox()
    sandbox.fail_export(sandbox.hashes[0])

    answer = await ask(sandbox, "collection.downloadHTML", collectionHash=sandbox.hashes[0])

    assert answer == {"code": 20, "status": "OK", "data": {"status": "FAILED"}}


@pytest.mark.anyio
async def test_latency_is_spent_both_ways() -> None:
    """
    A call is counted after one latency and answered after another, each asked for anew.
    """
    latencies = iter([0.25, 2.0])
    sandbox = Sandbox(latency=lambda: next(latencies))
    start = anyio.current_time()

    await ask(sandbox, "user.getStats")

    assert pytest.approx(start + 0.25) == sandbox.ledger[0].at
    assert pytest.approx(start + 2.25) == anyio.current_time()


@pytest.mark.anyio
async def test_a_call_cancelled_on_its_way_never_arrives() -> None:
    """
    The ledger holds what arrived: not a call given up on its way there, but one on its way back.
    """
    sandbox = Sandbox(latency=1.0)

    for patience in (0.5, 1.5):
        with anyio.move_on_after(patience):
            await ask(sandbox, "user.getStats")

    assert [call.code for call in sandbox.ledger] == [20]


@pytest.mark.anyio
async def test_the_ledger() -> None:
    """
    Every call is noted with its own parameters and its code, and no credentials.
    """
    sandbox = Sandbox()

    await ask(sandbox, "collection.create", title="Spring")

    (call,) = sandbox.ledger
    assert SandboxCall(call.at, "collection.create", {"title": "Spring"}, 40) == call
    assert sandbox.api_key not in repr(call)


@pytest.mark.anyio
@pytest.mark.parametrize("path", [b"/v1", b"/v1/"])
async def test_the_target_extension(path: bytes) -> None:
    """
    The request's target goes to the sandbox byte for byte, whatever its URL says.
    """
    sandbox = Sandbox()
    query = str(httpx.QueryParams(signed(sandbox, "user.getStats", title="it's")))
    target = path + b"?" + query.replace("%27", "'").encode()

    request = httpx.Request("GET", "https://x.test/nowhere?a=b", extensions={"target": target})
    answer = await sandbox.transport().handle_async_request(request)

    assert httpx.Response(200, content=await answer.aread()).json()["code"] == 20
    assert sandbox.ledger[0].params == {"title": "it's"}


@pytest.mark.anyio
async def test_bodies_are_read_before_the_call_is_seen() -> None:
    """
    The last byte of a body has left the caller before the sandbox looks at the call.
    """
    sandbox = Sandbox()
    sent = []

    async def body() -> AsyncIterator[bytes]:
        yield b"a"
        await anyio.sleep(3.0)
        sent.append(anyio.current_time())

    async with httpx.AsyncClient(transport=sandbox.transport()) as client:
        await client.post(API, content=body())

    assert sent == [call.at for call in sandbox.ledger]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_over_a_socket(caplog: pytest.LogCaptureFixture) -> None:
    """
    Served on loopback the sandbox answers and exports alike, logs no key, and frees its port.
    """
    caplog.set_level(logging.DEBUG, "uvicorn")
    sandbox = Sandbox(export_seconds=0.0)
    sandbox.fail("user.getStats", lost=True)

    async with sandbox.serve() as url, httpx.AsyncClient() as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.get(url, params=signed(sandbox, "user.getStats"), timeout=0.05)
        params = signed(sandbox, "collection.downloadHTML", collectionHash=sandbox.hashes[0])
        answer = await client.get(url, params=params)
        package = await client.get(answer.json()["data"]["resourceUrl"])

    assert package.status_code == 200
    assert package.content.startswith(b"PK")
    assert "sandbox-key" not in caplog.text
    port = httpx.URL(url).port or 0
    async with sandbox.serve(port) as again:
        assert url == again
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_serving_ends_while_a_client_waits(caplog: pytest.LogCaptureFixture) -> None:
    """
    A server hangs up on whoever still waits for a lost answer, without a traceback.
    """
    arrived = anyio.Event()

    def latency() -> float:
        arrived.set()
        return 0.0

    sandbox = Sandbox(latency=latency)
    sandbox.fail("*", lost=True)

    async def wait_in_vain(url: str) -> None:
        async with httpx.AsyncClient(timeout=5.0) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(url)

    async with anyio.create_task_group() as tasks, sandbox.serve() as url:
        tasks.start_soon(wait_in_vain, url)
        await arrived.wait()

    assert caplog.records == []
