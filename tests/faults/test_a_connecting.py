"""Connections that do not come about, A2 to A5: the host hears nothing, and it costs nothing."""

from __future__ import annotations

import gc
import pickle
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import anyio
import httpx
import pytest
import trustme
from cutting import GOOD, Act, CuttingServer, GoneError, Visit, answering, keeping, response
from proxy import Serve
from test_cuts import Call, client, create_tiny, get_stats, has_happened

from flipsnack_async import (
    ClientClosedError,
    ConfigurationError,
    ConnectionFailedError,
    Flipsnack,
    NoAnswerError,
    Quota,
    Rate,
    UploadOutcomeUnknownError,
)
from flipsnack_async.transport import Connections

pytest_plugins = ["instruments"]
pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_pauses")]

HOST = "127.0.0.1"
CA = trustme.CA()
STRANGER = trustme.CA()
LONG_AGO: dict[str, Any] = {
    "not_before": datetime(2020, 1, 1),
    "not_after": datetime(2020, 2, 1),
}
GENUINE = CA.issue_cert(HOST)
UNTRUSTED: dict[str, tuple[trustme.LeafCert, str]] = {
    "expired": (CA.issue_cert(HOST, **LONG_AGO), "has expired"),
    "another's": (CA.issue_cert("example.org"), "is not valid for"),
    "unknown": (STRANGER.issue_cert(HOST), "unable to get local issuer"),
    "signed by itself": (
        trustme.LeafCert(STRANGER.private_key_pem.bytes(), STRANGER.cert_pem.bytes(), []),
        "self-signed certificate",
    ),
}


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Real time, since there are sockets."""
    name: str = request.param
    return name


def encrypted(act: Act, certificate: trustme.LeafCert = GENUINE, **settings: Any) -> Act:
    """Shake hands, and go on to an act."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    for name, value in settings.items():
        setattr(context, name, value)

    def with_handshake(visit: Visit) -> None:
        try:
            visit._socket = context.wrap_socket(visit._socket, server_side=True)
        except OSError:
            raise GoneError from None
        act(visit)

    return with_handshake


def trusting_client(server: CuttingServer, **options: Any) -> Flipsnack:
    """Make a client in whose eyes the private authority's certificates are good."""
    context = ssl.create_default_context()
    CA.configure_trust(context)
    return secure_client(server, transport=httpx.AsyncHTTPTransport(verify=context), **options)


def secure_client(server: CuttingServer, **options: Any) -> Flipsnack:
    url = server.url.replace("http:", "https:")
    given = {"quota": Quota(Rate(9, per=60.0)), "timeout": 3.0, **options}
    return Flipsnack("key", "secret", api_url=url, upload_url=url, **given)


def calls_left(flipsnack: Flipsnack) -> list[int]:
    return list(flipsnack.quota.statistics().free.values())


# --- A2: names


def looking_up(look_up: Callable[[str], object]) -> Callable[..., list[Any]]:
    """Make a resolver that finds nothing; *look_up* is called with names, in whatever thread."""

    def find(host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
        flags = options.get("flags", args[3] if len(args) > 3 else 0)
        if not flags & socket.AI_NUMERICHOST:  # which finds addresses only, without asking around
            look_up(host if isinstance(host, str) else host.decode())
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    return find


def client_of_nowhere(**options: Any) -> Flipsnack:
    url = "https://nowhere.example/v1/"
    quota = Quota(Rate(9, per=60.0))
    return Flipsnack("key", "secret", api_url=url, upload_url=url, quota=quota, **options)


@pytest.mark.parametrize("call", [get_stats, create_tiny])
async def test_a2_a_host_that_is_not_found_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    """
    A name that leads nowhere is looked up again, at no cost of quota; the error names it.
    """
    names: list[str] = []
    monkeypatch.setattr(socket, "getaddrinfo", looking_up(names.append))
    async with client_of_nowhere(attempts=4) as flipsnack:
        with pytest.raises(ConnectionFailedError, match=r"no connection to nowhere\.example"):
            await call(flipsnack)
        assert [9] == calls_left(flipsnack)

    assert ["nowhere.example"] * 4 == names


@pytest.mark.parametrize("call", [get_stats, create_tiny])
async def test_a2_a_resolver_that_does_not_answer_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    """
    A part of an attempt's time is for the way to a connection, the host's name included.
    """
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", looking_up(lambda name: over.wait(10)))
    began = time.monotonic()
    async with client_of_nowhere(timeout=0.2, attempts=1) as flipsnack:
        with pytest.raises(ConnectionFailedError, match="ConnectTimeout"):
            await call(flipsnack)
        assert [9] == calls_left(flipsnack)
    over.set()

    assert time.monotonic() - began < 5


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example", "xn--", "localhost:65536"])
async def test_a2_a_name_that_can_be_none_is_refused_first(host: str) -> None:
    """
    What nobody can look up or connect to is told when the client is made.
    """
    with pytest.raises(ConfigurationError, match="is no URL") as caught:
        Flipsnack("key", "secret", api_url=f"https://{host}/v1/")

    assert "api_url" == caught.value.setting


# --- A3: certificates


async def test_a3_a_private_authority_is_the_callers_to_trust(serve: Serve) -> None:
    """
    With a transport that trusts it, a host whose certificate is privately signed is called.
    """
    server = serve(encrypted(answering()))
    async with trusting_client(server) as flipsnack:
        assert 7 == await get_stats(flipsnack)
        assert "new1" == await create_tiny(flipsnack)

    assert ["user.getStats", "collection.create"] == server.actions


@pytest.mark.parametrize("call", [get_stats, create_tiny])
@pytest.mark.parametrize("name", UNTRUSTED)
async def test_a3_a_host_that_is_not_trusted_hears_nothing(
    serve: Serve, name: str, call: Call
) -> None:
    """
    A certificate that is not accepted ends a call at once, before a byte of it left.
    """
    certificate, reason = UNTRUSTED[name]
    server = serve(encrypted(answering(), certificate))
    async with trusting_client(server) as flipsnack:
        with pytest.raises(ConnectionFailedError, match=reason) as caught:
            await call(flipsnack)
        assert [9] == calls_left(flipsnack)

    assert caught.value.untrusted
    assert pickle.loads(pickle.dumps(caught.value)).untrusted  # noqa: S301
    assert 1 == server.connections
    assert 0 == server.heads


@pytest.mark.parametrize("call", [get_stats, create_tiny])
async def test_a3_nobody_is_trusted_unasked(serve: Serve, call: Call) -> None:
    """
    A client without a transport of its caller's accepts no private authority.
    """
    server = serve(encrypted(answering()))
    async with secure_client(server) as flipsnack:
        with pytest.raises(ConnectionFailedError, match="certificate is not accepted") as caught:
            await call(flipsnack)

    assert caught.value.untrusted
    assert 1 == server.connections
    assert 0 == server.heads


async def test_a3_every_client_checks_certificates_and_names() -> None:
    """
    Encryption is no older than TLS 1.2, and who is spoken to is always checked.
    """
    connections = Connections()
    context = connections._pool._ssl_context

    assert context
    assert ssl.CERT_REQUIRED == context.verify_mode
    assert context.check_hostname
    assert ssl.TLSVersion.TLSv1_2 <= context.minimum_version
    await connections.aclose()


def greeting(visit: Visit) -> None:
    visit._received()


def greeting_and_resetting(visit: Visit) -> None:
    visit._received()
    visit.reset()


def speaking_plainly(visit: Visit) -> None:
    visit._received()
    visit.send(response(GOOD))


def warning(visit: Visit) -> None:
    visit._received()
    visit.send(b"\x15\x03\x01\x00\x02\x02\x28")  # a fatal handshake_failure


@pytest.mark.parametrize("call", [get_stats, create_tiny])
@pytest.mark.parametrize("cut", [greeting, greeting_and_resetting, speaking_plainly, warning])
async def test_a3_a_handshake_that_breaks_is_begun_again(
    serve: Serve, cut: Act, call: Call
) -> None:
    """
    Before hands are shaken nothing is sent, so even an upload goes out again, encrypted as ever.
    """
    server = serve(cut, cut, encrypted(answering()))
    async with trusting_client(server) as flipsnack:
        await call(flipsnack)
        assert [8] == calls_left(flipsnack)

    assert 3 == server.connections
    assert 1 == server.heads


NONSENSE = b"nonsense" * 20
ALERT = b"\x15\x03\x03\x00\x02\x02\x28"
RECORD = b"\x17\x03\x03\x00\x20" + b"x" * 32


def breaking(data: bytes, start: bytes) -> Act:
    """Read a request, send the start of an answer, and then bytes that nobody encrypted."""

    def act(visit: Visit) -> None:
        visit.read_all()
        if start:
            visit.send(start)
        visit._socket = socket.socket(fileno=visit._socket.detach())
        visit.send(data)

    return act


@pytest.mark.parametrize("start", [b"", response(GOOD, length=999)], ids=["answer", "rest"])
@pytest.mark.parametrize("data", [NONSENSE, ALERT, RECORD], ids=["nonsense", "alert", "record"])
async def test_a3_an_encryption_that_breaks_is_no_answer(
    serve: Serve, data: bytes, start: bytes
) -> None:
    """
    What cannot be decrypted is a broken connection: a read goes out again, an upload is in doubt.
    """
    broken = encrypted(breaking(data, start))
    server = serve(broken, encrypted(answering()), broken)
    async with trusting_client(server) as flipsnack:
        assert 7 == await get_stats(flipsnack)
        with pytest.raises(UploadOutcomeUnknownError) as caught:
            await create_tiny(flipsnack)

    assert caught.value.body_complete is True
    assert ["user.getStats", "user.getStats", "collection.create"] == server.actions


async def test_a3_a_server_that_asks_for_a_certificate_is_told_of(serve: Serve) -> None:
    """
    A client that has no certificate to show hears of it as a connection that broke.
    """
    act = encrypted(answering(), verify_mode=ssl.CERT_REQUIRED)
    server = serve(act)
    async with trusting_client(server, attempts=1) as flipsnack:
        with pytest.raises((NoAnswerError, ConnectionFailedError)):
            await get_stats(flipsnack)

    assert 0 == server.heads


# --- A4: connections that take too long


def stalling(visit: Visit) -> None:
    visit.stall()


@pytest.mark.parametrize("call", [get_stats, create_tiny])
async def test_a4_a_connection_that_takes_too_long_costs_nothing(serve: Serve, call: Call) -> None:
    """
    A host that never gets to a connection has seen nothing, and is tried again.
    """
    server = serve(stalling, encrypted(answering()), stalling)
    began = time.monotonic()
    async with trusting_client(server, timeout=0.4) as flipsnack:
        await call(flipsnack)
        with pytest.raises(ConnectionFailedError, match="ConnectTimeout"):
            await call(flipsnack.with_options(attempts=1))
        assert [8] == calls_left(flipsnack)

    assert 0.4 <= time.monotonic() - began < 5
    assert 3 == server.connections
    assert 1 == server.heads


@pytest.mark.parametrize("how", ["cancelled", "closed"])
@pytest.mark.parametrize("call", [get_stats, create_tiny])
async def test_a4_a_handshake_that_is_broken_off_leaves_no_socket(
    serve: Serve, call: Call, how: str
) -> None:
    """
    Whoever stops waiting for a handshake hangs up, and leaves that to no garbage collector.
    """
    began, gone = threading.Event(), threading.Event()

    def until_gone(visit: Visit) -> None:
        visit._received()
        began.set()
        with suppress(GoneError):
            while True:
                visit._received()
        gone.set()

    gc.disable()
    try:
        async with trusting_client(serve(until_gone), attempts=1) as flipsnack:
            async with anyio.create_task_group() as tasks:

                async def ended() -> None:
                    with suppress(ClientClosedError):
                        await call(flipsnack)

                tasks.start_soon(ended)
                await has_happened(began)
                if how == "closed":
                    await flipsnack.aclose()
                tasks.cancel_scope.cancel()
            await has_happened(gone)
    finally:
        gc.enable()


# --- proxies of the caller's


@pytest.mark.parametrize("call", [get_stats, create_tiny])
async def test_a_proxy_is_told_the_host_and_nothing_else(serve: Serve, call: Call) -> None:
    """
    A tunnel through a proxy that the caller chose is asked for without key or signature.
    """
    heard: list[str] = []

    def tunnel(visit: Visit) -> None:
        visit.read_head()
        heard.append(visit._target)
        visit.send(b"HTTP/1.1 200 OK\r\n\r\n")
        encrypted(answering())(visit)

    proxy = serve(tunnel)
    trust = ssl.create_default_context()
    CA.configure_trust(trust)
    async with Flipsnack(
        "key",
        "secret",
        api_url=f"https://{HOST}:4433/",
        upload_url=f"https://{HOST}:4433/",
        transport=httpx.AsyncHTTPTransport(verify=trust, proxy=proxy.url),
    ) as flipsnack:
        await call(flipsnack)

    assert [f"{HOST}:4433"] == heard
    assert 1 == len(proxy.arrived)


# --- A5: pools


@pytest.mark.parametrize("call", [get_stats, create_tiny])
async def test_a5_a_pool_that_lost_its_slots_costs_nothing(serve: Serve, call: Call) -> None:
    """
    Where a pool of the caller's has no slot left nothing is sent, and that is what is told.
    """
    server = serve(keeping())
    pool = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=1))
    async with client(server, transport=pool, timeout=0.4, attempts=2) as flipsnack:
        leaked = await pool.handle_async_request(httpx.Request("GET", server.url))
        with pytest.raises(ConnectionFailedError, match="PoolTimeout"):
            await call(flipsnack)
        await leaked.aclose()
        await call(flipsnack)

    assert 2 == len(server.arrived)


async def test_a5_the_pool_of_a_client_is_never_full(serve: Serve) -> None:
    """
    However many calls there are at once, each has a connection, and none waits for a slot.
    """
    together = 150
    waiting: list[Visit] = []

    def all_at_once(visit: Visit) -> None:
        visit.read_all()
        waiting.append(visit)
        if len(waiting) == together:
            for each in waiting:
                each.send(response(GOOD))
        visit.stall()

    server = serve(all_at_once)
    views: list[object] = []
    async with client(server, timeout=20.0, attempts=1) as flipsnack:

        async def call() -> None:
            views.append(await get_stats(flipsnack))

        async with anyio.create_task_group() as tasks:
            for _ in range(together):
                tasks.start_soon(call)

    assert [7] * together == views
    assert together == server.connections
