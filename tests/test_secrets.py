"""No key, secret or signature is ever seen: a unique pair is looked for wherever text comes out."""

from __future__ import annotations

import copy
import gc
import json
import logging
import pickle
import random
import re
import socket
import traceback
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import SocketAttribute, SocketStream
from cutting import CuttingServer, answering, saying

from flipsnack_async import (
    ConfigurationError,
    Credentials,
    DownloadError,
    Flipsnack,
    FlipsnackError,
    Quota,
    SigningTransport,
)
from flipsnack_async.sandbox import Sandbox

KEY = "CANARYKEY4711"
SECRET = "CANARYSECRET0815"
# A signature is 32 hexadecimal digits, and nothing else here is.
SIGNATURE = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Real time: real sockets take part here."""
    return str(request.param)


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Let every logger of every library write all it has."""
    with caplog.at_level(logging.DEBUG):
        for name in [None, *logging.root.manager.loggerDict]:
            logging.getLogger(name).setLevel(logging.DEBUG)
        yield caplog
    for name in logging.root.manager.loggerDict:
        logging.getLogger(name).setLevel(logging.NOTSET)


def check_silent(text: str) -> None:
    assert KEY not in text
    assert SECRET not in text
    assert not SIGNATURE.search(text)


def everything_about(error: BaseException) -> str:
    """Write down what error trackers see: text, facts, causes and the locals of every frame."""
    seen = traceback.TracebackException.from_exception(error, capture_locals=True)
    told = [*seen.format(), repr(error), str(error), repr(error.args), repr(vars(error))]
    for other in (error.__cause__, error.__context__):
        told += [everything_about(other)] if other else []
    if isinstance(error, FlipsnackError):
        told.append(repr(pickle.dumps(error)))
    return "\n".join(told)


@asynccontextmanager
async def server(behaviour: str) -> AsyncIterator[str]:
    """Serve on loopback, well or badly, and give the API's address."""

    async def answer(stream: SocketStream) -> None:
        async with stream:
            try:
                request = await stream.receive()
                assert KEY.encode() in request  # the key does leave the process, on the wire
                if behaviour == "silent":
                    await anyio.sleep(5)
                target = request.split(b" ")[1].decode()
                known = ANSWERS.get(behaviour)
                await stream.send(ECHOES[behaviour](target) if known is None else known)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                pass

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer)
        yield f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}/v1/"  # noqa: S610
        tasks.cancel_scope.cancel()


def response(body: str, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


ANSWERS = {
    "good": response('{"code": 20, "status": "OK", "data": {"views": 1}}'),
    "page": response("<html>no</html>"),
    "torn": response('{"code": 20, "data": {"vi'),
    "wrong type": response('{"code": 20, "data": {"views": "x"}}'),
    "bad key": response('{"code": 41, "status": "Invalid credentials"}'),
    "bad signature": response('{"code": 44, "status": "Invalid signature"}'),
    "forbidden": response('{"code": 43, "status": "Forbidden"}'),
    "gateway": response("Bad Gateway", "502 Bad Gateway"),
    "redirect": response("", "302 Found", "Location: https://example.com/"),
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "cut": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
    "closed": b"",
    "silent": b"",
}


# A server may repeat the signed address wherever it likes.
ECHOES: dict[str, Callable[[str], bytes]] = {
    "echoing redirect": lambda target: response("", "301 Moved", f"Location: https://a.b{target}"),
    "echoing head": lambda target: response("", "200 OK", f"X-Asked: {target}"),
    "echoing status": lambda target: response("", f"404 Not Found {target}"),
    "echoing page": lambda target: response(f"<html>{target}</html>", "404 Not Found"),
    "echoing nonsense": lambda target: f"HTTP/1.1 {target}\r\n\r\n".encode(),
    "echoing refusal": lambda target: response(f'{{"code": 44, "status": "Not {target}"}}'),
    "echoing field": lambda target: response(f'{{"code": 20, "data": {{"views": "{target}"}}}}'),
    "echoing name": lambda target: response(f'{{"code": 20, "data": {{"{target}": NaN}}}}'),
}


@pytest.mark.parametrize("behaviour", [*ANSWERS, *ECHOES])
async def test_no_outcome_of_a_call_shows_a_secret(
    behaviour: str,
    everything_logged: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """
    However a call ends, neither logs nor errors, locals of frames included, hold key or signature.
    """
    raised: BaseException | None = None
    async with server(behaviour) as url:
        async with Flipsnack(KEY, SECRET, api_url=url, attempts=1, timeout=0.2) as flipsnack:
            try:
                answer = await flipsnack.user.get_stats()
            except FlipsnackError as error:
                raised = error
                check_silent(everything_about(error))
            else:
                check_silent(repr(answer) + repr(pickle.dumps(answer)))
            check_silent(repr(flipsnack) + repr(vars(flipsnack)) + repr(flipsnack._core))

    assert (raised is None) is (behaviour == "good")
    assert everything_logged.records
    for record in everything_logged.records:
        check_silent(record.getMessage() + repr(vars(record)))
    check_silent("".join(capfd.readouterr()))


async def test_no_log_shows_a_link_to_a_package(
    everything_logged: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Where hosts send a download, and what else they say of it, is in no log: links need no key.
    """
    monkeypatch.setattr(random, "uniform", lambda low, high: 0.0)
    moved = response("", "302 Found", "Location: /v1/real.zip?Policy=CANARYLINK")
    page = response("<html>no</html>", "200 OK", "X-Link: /real.zip?Policy=CANARYLINK")
    nonsense = b"HTTP/1.1 CANARYLINK\r\n\r\n"
    host = CuttingServer(saying(nonsense), saying(moved), saying(page))
    link = f"{host.url}a.zip?Policy=CANARYLINK"
    ready = {"code": 20, "data": {"status": "COMPLETE", "resourceUrl": link}}
    api = CuttingServer(answering(json.dumps(ready).encode()))
    try:
        async with Flipsnack(KEY, SECRET, api_url=api.url, rates=()) as flipsnack:
            with pytest.raises(DownloadError, match="is no zip archive") as caught:
                await flipsnack.collections.save_package("fxh4k89", tmp_path / "a.zip")
    finally:
        api.close()
        host.close()

    assert 3 == host.connections
    assert "receive_response_headers.complete" in everything_logged.text
    for record in everything_logged.records:
        assert "CANARYLINK" not in record.getMessage() + repr(vars(record))
    assert "CANARYLINK" not in str(caught.value)


async def test_an_unreachable_host_shows_no_secret() -> None:
    """
    A refused connection is told without what would have been sent.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with Flipsnack(KEY, SECRET, api_url=f"http://127.0.0.1:{port}/", attempts=1) as flipsnack:
        with pytest.raises(FlipsnackError) as caught:
            await flipsnack.user.get_stats()

    assert "127.0.0.1" in str(caught.value)
    check_silent(everything_about(caught.value))


@pytest.mark.parametrize("secret", ["", f"{SECRET} ", f"{SECRET}\n", f"\ufeff{SECRET}"])
async def test_a_key_that_can_be_none_is_not_shown(secret: str) -> None:
    """
    A key with a stray blank is refused without quoting it, nor keeping it in a frame of ours.
    """

    with pytest.raises(ConfigurationError) as caught:
        Flipsnack(KEY, secret)

    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack
    ours = [frame for frame in frames if "flipsnack_async" in frame.filename]
    assert "api_secret" == caught.value.setting
    assert ours
    check_silent(str(caught.value) + "".join(str(frame.locals) for frame in ours))


async def test_the_objects_that_hold_a_key_show_nothing() -> None:
    """
    Credentials and whoever holds them can be printed and can't be pickled or copied.
    """
    credentials = Credentials(KEY, SECRET)
    transport = SigningTransport(httpx.AsyncHTTPTransport(), credentials)
    flipsnack = Flipsnack(KEY, SECRET)
    things: list[Any] = [credentials, transport, flipsnack, flipsnack.with_options()]
    for thing in things:
        check_silent(f"{thing} {thing!r}")
        for leave in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError):
                leave(thing)
    check_silent(repr([getattr(credentials, name) for name in Credentials.__slots__]))
    await flipsnack.aclose()


async def test_what_the_caller_sees_of_a_request_is_clean() -> None:
    """
    A transport around the signing one, as tracers patch it in, sees an address without secrets.
    """
    seen: list[httpx.Request] = []

    class Tracer(httpx.AsyncBaseTransport):
        def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
            self.inner = inner

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            seen.append(request)
            return await self.inner.handle_async_request(request)

    box = Sandbox()
    signing = SigningTransport(box.transport(), Credentials(box.api_key, box.api_secret))
    async with httpx.AsyncClient(transport=Tracer(signing)) as client:
        answer = await client.get(
            "https://api.flipsnack.com/v1/", params={"action": "user.getStats"}
        )

    assert 20 == answer.json()["code"]
    told = f"{seen[0].url} {seen[0].headers} {seen[0].extensions} {answer.request.url}"
    assert box.api_key not in told
    assert not SIGNATURE.search(told)


async def test_a_client_that_is_not_closed_shows_no_secret() -> None:
    """
    What the garbage collector says of a forgotten client holds no key.
    """
    async with server("good") as url:
        flipsnack = Flipsnack(KEY, SECRET, api_url=url, quota=Quota())
        await flipsnack.user.get_stats()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del flipsnack
            gc.collect()

    check_silent(" ".join(str(warning.message) for warning in caught))
