"""
The way of a call: described, admitted, signed, sent, read.

    action -> Tries (tenacity) -> httpx.Request -> QuotaTransport -> SigningTransport
           -> IsolatedTransport -> whatever sends -> body, capped -> object or error
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol, TypeVar, get_args

import anyio
import attrs
import httpx
from anyio.lowlevel import EventLoopToken, current_token

from ._actions import Action
from ._sharing import registry
from ._signing import Credentials
from .errors import (
    ClientClosedError,
    ConnectionFailedError,
    FlipsnackError,
    InvalidAnswerError,
    InvalidArgumentError,
    NoAnswerError,
    RateLimitError,
)
from .quota import Lane, Quota, Rate
from .transport import (
    LONGEST_BODY,
    UNSENT,
    QuotaTransport,
    SigningTransport,
    read_capped,
    stream_of,
)

T = TypeVar("T")

EMPTY = httpx.ByteStream(b"")


@attrs.frozen
class Options:
    """Hold what may differ between the views of a client."""

    timeout: float
    attempts: int
    lane: Lane = "interactive"
    max_wait: float | None = None
    minds_deadline: bool = True

    def __attrs_post_init__(self) -> None:
        if not self.timeout > 0:
            raise InvalidArgumentError("timeout", "give a number of seconds above 0")
        if type(self.attempts) is not int or self.attempts < 1:
            raise InvalidArgumentError("attempts", "give a whole number, at least 1")
        if self.lane not in get_args(Lane):
            raise InvalidArgumentError("lane", f"give one of {', '.join(get_args(Lane))}")
        if self.max_wait is not None and not self.max_wait >= 0:
            raise InvalidArgumentError("max_wait", "give a number of seconds, or None")


class Waits(Protocol):
    """Be told how long a call waited, and say how much longer it may."""

    left: float
    deadline: float | None

    def waited(self, seconds: float) -> None: ...


class Core:
    """Hold what a client and its views share: connections, quota, and whether they are closed."""

    def __init__(
        self,
        connections: httpx.AsyncBaseTransport,
        credentials: Credentials,
        quota: Quota | None,
        rates: Sequence[Rate],
        api_url: httpx.URL,
        upload_url: httpx.URL,
    ) -> None:
        # Imported with the first client, here and where calls are made, and not with the package:
        # asyncio, cattrs, tenacity and the package's metadata take as long as half of httpx.
        from importlib.metadata import version

        from ._isolation import IsolatedTransport
        from ._retry import RetryBudget

        self._signing = SigningTransport(IsolatedTransport(connections), credentials)
        self._account = (credentials.fingerprint(), api_url.host) if quota is None else None
        self._rates = rates
        self._quota = quota  # found when there is an event loop to share it in
        self._transport: QuotaTransport | None = None
        self.api_url = api_url
        self._upload_url = upload_url
        self._headers = httpx.Headers(
            {
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": f"flipsnack-async/{version('flipsnack-async')}",
            }
        )
        self._read_headers = httpx.Headers(
            [("Host", api_url.netloc.decode("ascii")), *self._headers.items()]
        )
        self._budget = RetryBudget()
        self.closed = False
        self._home: tuple[int, EventLoopToken] | None = None

    @property
    def quota(self) -> Quota:
        if self._quota is None:
            self._quota = registry.join(self._account, self._rates)
        return self._quota

    @property
    def transport(self) -> httpx.AsyncBaseTransport:
        if self._transport is None:
            self._transport = QuotaTransport(self._signing, self.quota)
        return self._transport

    async def aclose(self) -> None:
        if not self.closed:
            self.closed = True
            if self._account is not None and self._quota is not None:
                registry.leave(self._account)
            await self._signing.aclose()

    def check(self) -> None:
        """Refuse what would hang or mix up answers: a closed client, another loop, a fork."""
        if self.closed:
            raise ClientClosedError("the client is closed; make a new one")
        here = (os.getpid(), current_token())
        if self._home is None:
            self._home = here
        elif self._home != here:
            raise ClientClosedError(
                "the client belongs to another event loop or process; make one client for each"
            )

    async def carry_out(
        self, action: Action[T], options: Options, on_sent: Callable[[], object]
    ) -> T:
        """Carry out an action; *on_sent* is called for each attempt that the quota admits."""
        from ._retry import Patience, persist

        return await persist(
            partial(self._attempt, options=options, on_sent=on_sent),
            action,
            attempts=options.attempts,
            budget=self._budget,
            patience=Patience(options.max_wait, None if options.minds_deadline else math.inf),
        )

    async def _attempt(
        self,
        action: Action[T],
        patience: Waits,
        *,
        options: Options,
        on_sent: Callable[[], object],
    ) -> T:
        self.check()
        request = self._describe(action, options)
        asked = anyio.current_time()
        sent_at = datetime.min.replace(tzinfo=UTC)

        def admitted() -> None:
            nonlocal sent_at
            now = anyio.current_time()
            patience.waited(now - asked)
            scope.deadline = now + options.timeout
            sent_at = datetime.now(UTC)
            on_sent()

        request.extensions["quota"] = {
            "lane": options.lane,
            "max_wait": patience.left,
            "deadline": patience.deadline,
            "upload": action.upload,
            "admitted": admitted,
        }
        failure: FlipsnackError | None = None
        with anyio.CancelScope() as scope:
            try:
                response = await self.transport.handle_async_request(request)
                body = await read_capped(stream_of(response))
            except UNSENT as error:
                failure = ConnectionFailedError(
                    f"no connection to {request.url.host}: {error or _kind(error)}"
                )
            except httpx.HTTPError as error:
                # Not the error's own text, which may quote what the server sent.
                failure = NoAnswerError(f"{action.name}: the connection broke ({_kind(error)})")
        if scope.cancelled_caught:
            failure = NoAnswerError(f"{action.name}: no whole answer within {options.timeout:g} s")
        # Raised out here, so that no frame of the HTTP library, whose locals hold the signed
        # request, hangs on to an error of ours.
        if failure is not None:
            raise failure
        known = {**action.known, "asked_at": sent_at}
        try:
            return _reply(action, known, response, body)
        except RateLimitError as refusal:
            if refusal.code != httpx.codes.TOO_MANY_REQUESTS:  # the transport reported that
                periods = [rate.per for rate in self.quota.rates] or [0.0]
                per = min(periods) if refusal.code == 31 else max(periods)
                response.extensions["quota_permit"].refused(per=per)
            raise

    def _describe(self, action: Action[Any], options: Options) -> httpx.Request:
        fields = {"action": action.name, **action.params}
        # The attempt as a whole has its deadline. Half of it for the connection tells a host that
        # cannot be reached, where not a byte left, from one that does not answer.
        timeout = {"connect": options.timeout / 2, "read": None, "write": None, "pool": None}
        extensions = {"timeout": timeout, "flipsnack_fields": fields}
        if action.upload:
            parts = {name: (None, text) for name, text in fields.items()}
            return httpx.Request(
                "POST", self._upload_url, headers=self._headers, files=parts, extensions=extensions
            )
        # With a stream of its own, httpx adds no header: those of a read are always the same.
        return httpx.Request(
            "GET", self.api_url, headers=self._read_headers, stream=EMPTY, extensions=extensions
        )


def _reply(action: Action[T], known: Mapping[str, Any], response: httpx.Response, body: bytes) -> T:
    status = response.status_code
    if status == httpx.codes.TOO_MANY_REQUESTS:
        raise RateLimitError(status, "Too Many Requests", action.name)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise InvalidAnswerError(action.name, "the answer is compressed", http_status=status)
    if len(body) > LONGEST_BODY:
        raise InvalidAnswerError(action.name, "the answer is too long", http_status=status)
    from ._envelope import decode

    return decode(body, action.name, action.reply, known, status)


def _kind(error: Exception) -> str:
    return type(error).__name__
