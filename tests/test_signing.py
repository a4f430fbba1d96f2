"""The transport that signs: what leaves the process, and what nobody gets to see."""

from __future__ import annotations

import copy
import email
import email.policy
import logging
import pickle
import re
from collections.abc import Callable, Mapping
from hashlib import md5, scrypt
from traceback import TracebackException
from typing import Any

import httpcore
import httpx
import pytest
import respx
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from inner import API, KEY, SECRET, Inner, ok, signing

from flipsnack_async import Quota
from flipsnack_async._signing import Credentials, Hidden, sign
from flipsnack_async.errors import ConfigurationError, InvalidArgumentError
from flipsnack_async.transport import QuotaTransport, SigningTransport

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
@example(params={"title": "a&b=c+d e%41;ü😀", "empty": "", "100%": "%"})
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


def test_a_part_of_what_is_hidden_is_hidden() -> None:
    """
    What shortens a text before it shows it shows no more than of the whole.
    """
    hidden = Hidden(SECRET.encode())

    assert {"<hidden>"} == {repr(hidden[:4]), repr(hidden[2:]), str(hidden[:]), f"{hidden[:99]}"}
    assert SECRET.encode()[1] == hidden[1]


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
    with pytest.raises(TypeError, match=r"^(credentials|hidden bytes) cannot be pickled") as caught:
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
    problem = "is empty, or holds a blank, a line end or another character no key has"
    assert f"{setting}: {problem}" == str(caught.value)
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


def test_a_file_knows_its_key_again() -> None:
    """
    What an archive keeps in the place of the key is the same in all versions of this library.
    """
    credentials = Credentials("fingerprinted", SECRET)
    expected = scrypt(b"fingerprinted", salt=b"salt", n=16384, r=8, p=1, dklen=16)

    assert expected.hex() == credentials.lasting_fingerprint(b"salt")
    assert expected.hex() != credentials.lasting_fingerprint(b"pepper")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("", ""),
        ("nothing of it", "nothing of it"),
        ("LIBRARY+", "<hidden>"),
        ("LIBRARY+LIBRARY+ sesame/open", "<hidden><hidden> <hidden>"),
        ("é library%2B, Library+ and SESAME%2fOPEN.", "é <hidden>, <hidden> and <hidden>."),
        ("LIBRARY", "LIBRARY"),
    ],
)
def test_somebody_elses_text_is_cleaned(text: str, cleaned: str) -> None:
    """
    Key and secret are taken out wherever they stand, however they are written, and nothing else.
    """
    assert cleaned == Credentials("LIBRARY+", "sesame/open").clean(text)
    assert text == Credentials("short", "l").clean(text)
