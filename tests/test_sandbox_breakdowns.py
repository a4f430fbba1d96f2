"""The sandbox cuts connections as told, in process and on a socket, and survives being cut off."""

import logging
from collections.abc import AsyncIterator

import anyio
import httpx
import pytest
from test_sandbox import API, ask, signed
from test_sandbox_uploads import FORM, UPLOAD, pdf, upload

from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio


async def test_reset() -> None:
    """
    A reset call fails without an answer, and neither was done nor counted.
    """
    sandbox = Sandbox(rates=[(1, 60.0)])
    sandbox.fail("collection.create", reset=True)

    with pytest.raises(httpx.ReadError):
        await upload(sandbox, pdf())

    assert [(call.code, call.size) for call in sandbox.ledger] == [(None, len(pdf()))]
    assert (sandbox.uploads_left, len(sandbox.hashes)) == (1000, 40)
    assert (await upload(sandbox, pdf()))["code"] == 20


async def test_torn() -> None:
    """
    A torn answer breaks off in its middle, with its work done and counted.
    """
    sandbox = Sandbox(rates=[(2, 60.0)], http_statuses={20: 201})
    sandbox.fail("collection.create", torn=True)
    form = signed(sandbox, "collection.create")

    received = b""
    async with httpx.AsyncClient(transport=sandbox.transport()) as client:
        files = {"file": ("a.pdf", pdf())}
        async with client.stream("POST", UPLOAD, data=form, files=files) as answer:
            with pytest.raises(httpx.RemoteProtocolError):
                async for chunk in answer.aiter_bytes():
                    received += chunk

    assert answer.status_code == 201
    assert received.startswith(b'{"code":20,"status":"OK","data":{')
    assert 0 < len(received) < int(answer.headers["content-length"])
    assert [call.code for call in sandbox.ledger] == [None]
    assert (sandbox.uploads_left, len(sandbox.hashes)) == (999, 41)
    assert (await ask(sandbox, "user.getStats"))["code"] == 20
    assert (await ask(sandbox, "user.getStats"))["code"] == 32


@pytest.mark.parametrize("fault", ["reset", "torn"])
async def test_breakdowns_need_a_connection(fault: str) -> None:
    """
    Under a server that is not the sandbox's own, a breakdown is refused in words.
    """
    sandbox = Sandbox()
    sandbox.fail("*", **{fault: True})  # type: ignore[arg-type]

    async with httpx.AsyncClient(transport=httpx.ASGITransport(sandbox.app)) as client:
        with pytest.raises(RuntimeError, match=r"Sandbox\.serve"):
            await client.get(API)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_breakdowns_on_a_socket(caplog: pytest.LogCaptureFixture) -> None:
    """
    On a socket a reset is a reset and a torn answer too short, and the next call is served.
    """
    sandbox = Sandbox()
    sandbox.fail("user.getStats", reset=True)
    sandbox.fail("user.getStats", torn=True)

    async with sandbox.serve() as url, httpx.AsyncClient() as client:
        params = signed(sandbox, "user.getStats")
        with pytest.raises(httpx.ReadError):
            await client.get(url, params=params)
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
            await client.get(url, params=params)
        answer = await client.get(url, params=params)

    assert answer.json()["code"] == 20
    assert [call.code for call in sandbox.ledger] == [None, None, 20]
    assert caplog.records == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_uploads_that_never_arrive(caplog: pytest.LogCaptureFixture) -> None:
    """
    A client that hangs up in the middle of its body has made no call, and nobody complains.
    """
    caplog.set_level(logging.WARNING)
    sandbox = Sandbox()
    started = anyio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"--b\r\n"
        started.set()
        await anyio.sleep_forever()

    async def send(url: str) -> None:
        async with httpx.AsyncClient() as client:
            await client.post(url, content=body(), headers={"content-type": FORM})

    async with sandbox.serve() as url:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send, url)
            await started.wait()
            await anyio.sleep(0.05)
            tasks.cancel_scope.cancel()
        async with httpx.AsyncClient() as client:
            await client.get(url, params=signed(sandbox, "user.getStats"))

    assert [call.action for call in sandbox.ledger] == ["user.getStats"]
    assert caplog.records == []
