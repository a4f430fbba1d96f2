"""What a crossing of actions and outcomes does not reach: keys that are none, links, tracers."""

from __future__ import annotations

import copy
import gc
import json
import logging
import pickle
import random
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
from cutting import CuttingServer, answering, saying

from flipsnack_async import (
    ConfigurationError,
    Credentials,
    DownloadError,
    Flipsnack,
    Quota,
    SigningTransport,
    _signing,
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


async def test_l1_no_log_shows_a_link_to_a_package(
    everything_logged: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Where hosts send a download, and what else they say of it, is in no log: links need no key.
    """
    monkeypatch.setattr(random, "uniform", lambda low, high: 0.0)
    moved = answering(b"", "302 Found", "Location: /v1/real.zip?Policy=CANARYLINK")
    page = answering(b"<html>no</html>", "200 OK", "X-Link: /real.zip?Policy=CANARYLINK")
    nonsense = b"HTTP/1.1 CANARYLINK\r\n\r\n"
    host = CuttingServer(saying(nonsense), moved, page)
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


@pytest.mark.parametrize("secret", ["", f"{SECRET} ", f"{SECRET}\n", f"\ufeff{SECRET}"])
async def test_l2_a_key_that_can_be_none_is_not_shown(secret: str) -> None:
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


async def test_l3_the_objects_that_hold_a_key_show_nothing() -> None:
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


async def test_l5_what_the_caller_sees_of_a_request_is_clean() -> None:
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


async def test_l2_a_client_that_is_not_closed_shows_no_secret() -> None:
    """
    What the garbage collector says of a forgotten client holds no key.
    """
    server = CuttingServer(answering())
    try:
        flipsnack = Flipsnack(KEY, SECRET, api_url=server.url, quota=Quota())
        await flipsnack.user.get_stats()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del flipsnack
            gc.collect()
    finally:
        server.close()

    assert ResourceWarning in {warning.category for warning in caught}
    check_silent(" ".join(str(warning.message) for warning in caught))


async def test_l4_an_error_while_signing_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where signing itself fails, no frame of it hangs on to the error.
    """

    def out_of_depth(params: Mapping[str, str], secret: bytes) -> NoReturn:
        raise RecursionError

    monkeypatch.setattr(_signing, "sign", out_of_depth)
    signing = SigningTransport(Sandbox().transport(), Credentials(KEY, SECRET))
    request = httpx.Request("GET", "https://api.flipsnack.com/v1/?action=user.getStats")
    with pytest.raises(RecursionError) as caught:
        await signing.handle_async_request(request)

    seen = traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack
    ours = [frame for frame in seen if "flipsnack_async" in frame.filename]
    assert ours
    check_silent("".join(str(frame.locals) for frame in ours))
