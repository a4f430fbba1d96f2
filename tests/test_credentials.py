"""Credentials: where they come from, what they show, and whom they are shown to."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import attrs
import httpx
import pytest
from cutting import CuttingServer, answering

from flipsnack_async import (
    AuthenticationError,
    ConfigurationError,
    Credentials,
    Flipsnack,
    UserStats,
)
from flipsnack_async._client import API_URL
from flipsnack_async.sandbox import Sandbox

SECRET = "CANARYSECRET0815"

pytestmark = pytest.mark.anyio


# --- what they show


@pytest.mark.parametrize(
    "shown", [repr, str, "{}".format, "%s".__mod__, lambda it: f"{it:}", lambda it: f"{it!a}"]
)
def test_credentials_show_nothing(shown: Callable[[Any], str]) -> None:
    """
    However credentials are turned into text, neither key nor secret is in it.
    """
    assert "Credentials(<hidden>)" == shown(Credentials("CANARYKEY4711", SECRET))


@pytest.mark.parametrize(
    "taken",
    [iter, list, dict, len, vars, pickle.dumps, copy.copy, copy.deepcopy, dataclasses.asdict],
)
def test_credentials_give_nothing_away(taken: Callable[[Any], Any]) -> None:
    """
    Credentials have no parts, and are neither pickled nor copied.
    """
    with pytest.raises(TypeError) as caught:
        taken(Credentials("CANARYKEY4711", SECRET))
    assert "CANARY" not in str(caught.value)


def test_credentials_are_no_record() -> None:
    """
    What turns records into dictionaries finds none here, also inside a record.
    """

    @attrs.frozen
    class Settings:
        credentials: Credentials

    settings = Settings(Credentials("CANARYKEY4711", SECRET))
    with pytest.raises(attrs.exceptions.NotAnAttrsClassError):
        attrs.asdict(settings.credentials)  # type: ignore[arg-type]
    assert "CANARY" not in f"{attrs.asdict(settings)} {attrs.astuple(settings)} {settings}"


# --- a secret from a file


@pytest.fixture
def secret_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o600)
    monkeypatch.setenv("FLIPSNACK_API_KEY", "some-key")
    monkeypatch.delenv("FLIPSNACK_API_SECRET", raising=False)
    monkeypatch.setenv("FLIPSNACK_API_SECRET_FILE", str(file))
    return file


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("mode", [0o400, 0o600, 0o640])
def test_a_secret_may_come_from_a_file(
    secret_file: Path, monkeypatch: pytest.MonkeyPatch, end: str, mode: int
) -> None:
    """
    A client signs with what the file holds, but for the end of its line.
    """
    box = Sandbox()
    monkeypatch.setenv("FLIPSNACK_API_KEY", box.api_key)
    secret_file.write_bytes(f"{box.api_secret}{end}".encode())
    secret_file.chmod(mode)

    async def call() -> UserStats:
        async with Flipsnack.from_env(transport=box.transport()) as flipsnack:
            return await flipsnack.user.get_stats()

    assert 1000 == anyio.run(call).api_uploads_left


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o601, 0o777])
def test_a_secret_that_strangers_can_read_is_refused(secret_file: Path, mode: int) -> None:
    """
    A file that is open to everybody is named with what to do, and its secret is not used.
    """
    secret_file.chmod(mode)

    with pytest.raises(ConfigurationError, match="chmod o-rwx") as caught:
        Flipsnack.from_env()
    assert "FLIPSNACK_API_SECRET_FILE" == caught.value.setting


def missing(file: Path) -> None:
    file.unlink()


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def a_pipe_without_a_writer(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def empty(file: Path) -> None:
    file.write_text("\n")


def two_lines(file: Path) -> None:
    file.write_text(f"{SECRET}\n{SECRET}\n")


def of_another_encoding(file: Path) -> None:
    file.write_bytes(SECRET.encode("utf-16"))


def far_too_long(file: Path) -> None:
    file.write_text(SECRET * 1000)


@pytest.mark.parametrize(
    "spoil",
    [
        missing,
        a_folder,
        a_pipe_without_a_writer,
        empty,
        two_lines,
        of_another_encoding,
        far_too_long,
    ],
)
def test_a_file_without_a_secret_is_named(secret_file: Path, spoil: Callable[[Path], None]) -> None:
    """
    A file that holds no secret is told by its variable, at once and without what it does hold.
    """
    spoil(secret_file)

    with pytest.raises(ConfigurationError) as caught:
        Flipsnack.from_env()

    assert "FLIPSNACK_API_SECRET_FILE" == caught.value.setting
    seen = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [str(frame.locals) for frame in seen.stack if "flipsnack_async" in frame.filename]
    assert ours
    assert SECRET not in f"{caught.value} {ours}"


def test_a_secret_is_given_once(secret_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A secret beside the file of another is refused: which one was meant is not for us to say.
    """
    monkeypatch.setenv("FLIPSNACK_API_SECRET", SECRET)

    with pytest.raises(ConfigurationError, match="set only one of them") as caught:
        Flipsnack.from_env()
    assert "FLIPSNACK_API_SECRET_FILE" == caught.value.setting


def test_a_secret_in_place_of_its_file_is_not_shown(
    secret_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Who sets the variable of the file to the secret itself does not read it in the error.
    """
    monkeypatch.setenv("FLIPSNACK_API_SECRET_FILE", SECRET)

    with pytest.raises(ConfigurationError, match="No such file") as caught:
        Flipsnack.from_env()
    assert SECRET not in str(caught.value)


# --- whom they are shown to


def made_up_key() -> tuple[str, str]:
    return Sandbox().api_key, "another-secret"


def made_up_secret() -> tuple[str, str]:
    return "another-key", Sandbox().api_secret


@pytest.mark.parametrize("pair", [made_up_key, made_up_secret])
@pytest.mark.parametrize("transport", [None, httpx.AsyncHTTPTransport()])
@pytest.mark.parametrize(
    "api_url", [API_URL, "https://API.flipsnack.com./v1/", "https://flipsnack.com"]
)
def test_a_sandboxs_key_is_not_for_the_vendor(
    pair: Callable[[], tuple[str, str]],
    api_url: str,
    transport: httpx.AsyncBaseTransport | None,
) -> None:
    """
    A client for the vendor's hosts refuses a sandbox's key, and says where it belongs.
    """
    with pytest.raises(ConfigurationError, match="api_url and upload_url") as caught:
        Flipsnack(*pair(), transport=transport, api_url=api_url)
    assert "api_key" == caught.value.setting


async def test_a_sandboxs_key_is_not_uploaded_to_the_vendor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Where only the address of uploads is still the vendor's, calls work and uploads are refused.
    """
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", None)
    box = Sandbox()
    async with Flipsnack(box.api_key, box.api_secret, api_url="http://127.0.0.1:9/") as flipsnack:
        with pytest.raises(ConfigurationError, match="upload_url"):
            await flipsnack.collections.create(b"%PDF-1.7 tiny")


@pytest.mark.parametrize(
    "anyio_backend", ["asyncio", "trio"], ids=["asyncio with sockets", "trio with sockets"]
)
@pytest.mark.parametrize("key", ["sandbox-key-1", "a-real-key"])
async def test_no_key_is_refused_for_loopback(key: str, anyio_backend: str) -> None:
    """
    A server on this machine may be shown any key.
    """
    server = CuttingServer(answering())
    try:
        async with Flipsnack(
            key, "sandbox-secret-1", api_url=server.url, upload_url=server.url
        ) as flipsnack:
            assert 7 == (await flipsnack.user.get_stats()).views
            created = await flipsnack.collections.create(b"%PDF-1.7 tiny")
    finally:
        server.close()

    assert "new1" == created.collection_hash


async def test_a_sandbox_takes_only_its_own_keys() -> None:
    """
    A key that a sandbox did not make gets a 41, and it cannot be given a real one.
    """
    box = Sandbox()
    async with Flipsnack("45FD-267-7SG7832", "123ABCDE", transport=box.transport()) as flipsnack:
        with pytest.raises(AuthenticationError) as caught:
            await flipsnack.user.get_stats()
    assert 41 == caught.value.code

    for pair in (("a-real-key", "sandbox-secret"), ("sandbox-key", SECRET)):
        with pytest.raises(ValueError, match="credentials") as refused:
            Sandbox(credentials=pair)
        assert SECRET not in str(refused.value)


# --- a key that does not fit


async def test_a_wrong_key_is_tried_three_times_and_never_again() -> None:
    """
    Not even an answer that is on its way opens a client again that three rejections closed.
    """
    box = Sandbox(latency=0.1)
    box.fail("user.getStats", code=41, times=3)
    async with Flipsnack(box.api_key, box.api_secret, transport=box.transport()) as flipsnack:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(rejected, flipsnack)
            await anyio.sleep(0.05)
            tasks.start_soon(flipsnack.collections.get_stats, box.hashes[0])
        for _ in range(5):
            await rejected(flipsnack)

    assert [41, 41, 41, 20] == [call.code for call in box.ledger]


async def rejected(flipsnack: Flipsnack) -> None:
    with pytest.raises(AuthenticationError):
        await flipsnack.user.get_stats()
