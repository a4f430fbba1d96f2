"""
Transports for httpx: one waits for quota, one signs. They stack in that order.

    signing = SigningTransport(httpx.AsyncHTTPTransport(), Credentials(api_key, api_secret))
    client = httpx.AsyncClient(transport=QuotaTransport(signing, quota))

Each also works alone, under any `httpx.AsyncClient`.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from email.message import Message
from functools import cache, lru_cache
from ssl import PROTOCOL_TLS_CLIENT, SSLCertVerificationError, SSLContext, TLSVersion
from typing import Any, Final
from urllib.parse import parse_qsl

import anyio
import certifi
import httpx

from ._redaction import keep_out_of_logs, redacted
from ._signing import Credentials, Hidden
from .errors import ConfigurationError, InvalidArgumentError
from .quota import Permit, Quota

__all__ = ["QuotaTransport", "SigningTransport"]

LONGEST_BODY: Final = 8 * 2**20
READ_AHEAD: Final = 2**16  # bytes of a body that httpcore may have, so that it waits for nothing
EXAMPLE: Final = "https://api.flipsnack.com/v1/"

# What httpx raises before a connection stands: no byte of the request can have left.
UNSENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


# Else the system takes megabytes to send at leisure, and on a slow line nothing seems to move.
SENT_MEANS_SENT: Final = (
    [(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 128 * 1024)]
    if hasattr(socket, "TCP_NOTSENT_LOWAT")
    else []
)


class UntrustedHostError(httpx.ConnectError):
    """Say that a host's certificate does not show that it is the one that was meant."""


class QuotaTransport(httpx.AsyncBaseTransport):
    """
    Wait for *quota* before each request, and tell it what became of the request.

    The last byte counts as sent when the request's stream is exhausted, the
    answer as received when its headers are here; HTTP 429 is reported as a
    refusal. The permit is left in ``response.extensions["quota_permit"]``,
    for refusals that show only in the body. What `Quota.permit` can be asked,
    such as a lane, goes into the mapping ``request.extensions["quota"]``,
    where a callable "admitted" is called, without arguments, the moment the
    wait is over; if it raises, nothing is sent. Redirects and retries are
    requests of their own. *quota* may be shared by several transports of one
    event loop.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, quota: Quota) -> None:
        self._transport = transport
        self._quota = quota

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = stream_of(request)
        asked = dict(request.extensions.get("quota", {}))
        admitted = asked.pop("admitted", None)
        async with self._quota.permit(**asked) as permit:
            try:
                if admitted is not None:
                    admitted()
            except Exception:
                permit.unsent()
                raise
            request.stream = _WatchedBody(body, permit)
            try:
                response = await self._transport.handle_async_request(request)
            except (*UNSENT, ConfigurationError, InvalidArgumentError):
                permit.unsent()
                raise
            finally:
                request.stream = body
            if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
                permit.refused()
            else:
                permit.answered()
        response.extensions["quota_permit"] = permit
        return response

    async def aclose(self) -> None:
        await self._transport.aclose()


class _WatchedBody(httpx.AsyncByteStream):
    """Tell *permit* when the last byte of *body* has been taken."""

    def __init__(self, body: httpx.AsyncByteStream, permit: Permit) -> None:
        self._body = body
        self._permit = permit

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Watched(aiter(self._body), self._permit)

    async def aclose(self) -> None:
        await self._body.aclose()


# No generators here: when a connection breaks, nobody closes them, which trio complains of.
class _Watched(AsyncIterator[bytes]):
    def __init__(self, chunks: AsyncIterator[bytes], permit: Permit) -> None:
        self._chunks = chunks
        self._permit = permit

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            self._permit.sent()
            raise


def stream_of(message: httpx.Request | httpx.Response) -> httpx.AsyncByteStream:
    if not isinstance(message.stream, httpx.AsyncByteStream):
        kind = type(message).__name__.lower()
        raise InvalidArgumentError(kind, "give it a body that can be read asynchronously")
    return message.stream


class SigningTransport(httpx.AsyncBaseTransport):
    """
    Add key and signature to each request, where nothing above can see them.

    What is signed are the fields in ``request.extensions["flipsnack_fields"]``
    or, without them, those of the URL's query. A GET goes to *transport* with
    the signed query in the extension "target" of a copy, so its URL stays
    clean for logs, errors and traces; a multipart POST gets two more parts in
    front of its own. Any inner transport must honour "target", as
    `httpx.AsyncHTTPTransport` does, and send each request once: sent again by
    itself, a GET goes unsigned. Whatever host a request names is trusted, so
    follow no redirects above this.

    Raises `ConfigurationError` rather than send a key over plain http to
    anything but loopback.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, credentials: Credentials) -> None:
        credentials.check()
        keep_out_of_logs(credentials)
        self._transport = transport
        self._credentials = credentials

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not is_safe_for_keys(request.url.scheme, request.url.host):
            raise ConfigurationError("url", "use https; plain http is for loopback only")
        fields = request.extensions.get("flipsnack_fields")
        if fields is None:
            fields = _fields_of_query(request)
        _check_fields(fields)
        sign = _with_signed_parts if request.method == "POST" else _with_signed_query
        failure: BaseException
        try:
            signed = sign(request, fields, self._credentials)
            response = await self._transport.handle_async_request(signed)
            _hide_echoes(response, self._credentials)
            return response
        except httpx.ConnectError as error:
            failure = _distrust(error) or error
        except BaseException as error:  # a cancellation too, which on trio comes the same way
            failure = error
        if isinstance(failure, httpx.HTTPError):
            failure.args = (redacted(str(failure), [self._credentials]),)  # quotes what came
        # Raised bare: the frames it came through hold in their locals what was being written.
        failure.__cause__ = failure.__context__ = None
        raise failure.with_traceback(None)

    async def aclose(self) -> None:
        await self._transport.aclose()


def _distrust(error: httpx.ConnectError) -> UntrustedHostError | None:
    # The first error of the system's is the cause; what lies behind it may be somebody else's.
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__context__
    if isinstance(cause, SSLCertVerificationError):
        return UntrustedHostError(f"its certificate is not accepted, {cause.verify_message}")
    return None


@lru_cache
def is_safe_for_keys(scheme: str, host: str) -> bool:
    """Say whether a key may be sent there: over https, or http that stays on this machine."""
    if scheme != "http":
        return scheme == "https"
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _hide_echoes(response: httpx.Response, credentials: Credentials) -> None:
    """Take out of an answer's head what a server repeats there of the signed address."""
    response.extensions.pop("reason_phrase", None)
    shown = [value.decode("latin-1") for _, value in response.headers.raw]
    clean = [redacted(value, [credentials]) for value in shown]
    if clean != shown:
        names = [name for name, _ in response.headers.raw]
        values = [value.encode("latin-1") for value in clean]
        response.headers = httpx.Headers([*zip(names, values, strict=True)])


def aim(request: httpx.Request, target: Hidden) -> httpx.Request:
    """Let *request* ask for *target*, whatever its URL shows."""
    request.extensions = _Aim({**request.extensions, "target": target})
    return request


class _Aim(dict[str, Any]):
    """
    Tell httpcore of a target once: for the request itself.

    It would also put it in place of the host's name into the CONNECT by which
    it asks a proxy for a tunnel, and the proxy would read key and signature.
    """

    _was_told = False

    def __contains__(self, name: object) -> bool:
        if name != "target":
            return super().__contains__(name)
        was_told, self._was_told = self._was_told, True
        return not was_told


def _fields_of_query(request: httpx.Request) -> dict[str, str]:
    # The server signs what it decodes, so that, and not what the caller meant, is signed here.
    query = request.url.query.decode("ascii")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise InvalidArgumentError("params", "give text that is UTF-8") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidArgumentError("params", "give each parameter once")
    return fields


def _check_fields(fields: Mapping[str, str]) -> None:
    # Before the key is among them: an error while signing would show it in the frame's locals.
    for name, value in fields.items():
        try:
            f"{name}{value}".encode()
        except UnicodeEncodeError:
            raise InvalidArgumentError(repr(name), "holds half a surrogate pair") from None
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidArgumentError(repr(name), "give names and values as text")


def _with_signed_query(
    request: httpx.Request, fields: Mapping[str, str], credentials: Credentials
) -> httpx.Request:
    path = request.url.raw_path.partition(b"?")[0]
    target = Hidden(b"%s?%s" % (path, credentials.signed_query(fields)))
    signed = httpx.Request(
        request.method,
        request.url,
        headers=request.headers,
        stream=request.stream,
        extensions=request.extensions,
    )
    return aim(signed, target)


def _with_signed_parts(
    request: httpx.Request, fields: Mapping[str, str], credentials: Credentials
) -> httpx.Request:
    content_type = Message()
    content_type["Content-Type"] = request.headers.get("Content-Type", "")
    boundary = content_type.get_boundary()
    if boundary is None:
        raise InvalidArgumentError("request", "send a POST as multipart/form-data")
    key, signature = credentials.signed(fields)
    parts = Hidden(
        b"".join(
            b'--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
            % (boundary.encode(), *part)
            for part in ((b"apiKey", key), (b"signature", signature))
        )
    )
    headers = request.headers.copy()
    if "Content-Length" in headers:
        headers["Content-Length"] = str(int(headers["Content-Length"]) + len(parts))
    return httpx.Request(
        request.method,
        request.url,
        headers=headers,
        stream=_PrefixedBody(parts, stream_of(request)),
        extensions=request.extensions,
    )


class _PrefixedBody(httpx.AsyncByteStream):
    """Send *first* before *body*."""

    def __init__(self, first: Hidden, body: httpx.AsyncByteStream) -> None:
        self._first = first
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Prefixed(self._first, aiter(self._body))


class _Prefixed(AsyncIterator[bytes]):
    def __init__(self, first: bytes, chunks: AsyncIterator[bytes]) -> None:
        self._first = first
        self._chunks = chunks

    async def __anext__(self) -> bytes:
        first, self._first = self._first, b""
        return first or await anext(self._chunks)


class Connections(httpx.AsyncHTTPTransport):
    """
    Make a connection for each call, and keep none.

    On a kept one, whatever a server or a box on the way sends behind an
    answer is taken for the answer to the next call, and statistics do not say
    whose they are. When a kept one dies, nobody can tell whether a document
    arrived. With 60 calls a minute a new one for each is affordable;
    benchmarks/call_overhead.py prints what it costs. To keep connections all
    the same, give the client an `httpx.AsyncHTTPTransport` of your own.

    Proxies, certificates and the like come from the caller, never unasked
    from the environment; the quota bounds the calls under way.
    """

    def __init__(self) -> None:
        super().__init__(
            verify=_trusted(),
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            socket_options=SENT_MEANS_SENT,
        )


@cache
def _trusted() -> SSLContext:
    # Once for all clients: to read the certificates takes longer than a call.
    # By hand: what httpx makes writes its keys wherever SSLKEYLOGFILE says.
    context = SSLContext(PROTOCOL_TLS_CLIENT)
    context.minimum_version = TLSVersion.TLSv1_2
    context.load_verify_locations(certifi.where())
    return context


def checked_url(setting: str, text: str) -> httpx.URL:
    try:
        url = httpx.URL(text if text.endswith("/") else f"{text}/")
        url.host.encode("idna")  # as whoever looks it up does
        if url.port is not None and not 0 < url.port < 2**16:
            raise ValueError(url.port)
    except (httpx.InvalidURL, AttributeError, TypeError, ValueError):
        raise ConfigurationError(setting, f"is no URL; give one like {EXAMPLE}") from None
    if not url.host or not is_safe_for_keys(url.scheme, url.host):
        raise ConfigurationError(setting, "use https; plain http is for loopback only")
    if url.query or url.fragment or url.userinfo:
        raise ConfigurationError(setting, f"give host and path only, like {EXAMPLE}")
    return url


async def read_capped(stream: httpx.AsyncByteStream) -> Hidden:
    """
    Read a body, and close it; of one that is too long, a little more than `LONGEST_BODY`.

    It is hidden from readers of tracebacks, since it may repeat the signed address.
    """
    body = bytearray()
    chunks = aiter(stream)
    try:
        async for chunk in chunks:
            body += chunk
            if len(body) > LONGEST_BODY:
                await break_off(chunks)
                break
    finally:
        await stream.aclose()
    return Hidden(body)


async def break_off(chunks: AsyncIterator[bytes]) -> None:
    """End a body that is read no further."""
    # A body is generators within generators, which only an end from the innermost one closes all;
    # else the garbage collector finds them. So whatever they wait for next is cancelled.
    with anyio.CancelScope() as ending, suppress(httpx.HTTPError, StopAsyncIteration):
        ending.cancel()
        left = READ_AHEAD
        while left > 0:
            left -= 1 + len(await anext(chunks))
    if isinstance(chunks, AsyncGenerator):
        await chunks.aclose()
