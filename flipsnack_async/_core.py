"""
The way of a call: described, admitted, signed, sent, read.

    action -> Tries (tenacity) -> httpx.Request -> QuotaTransport -> SigningTransport
           -> IsolatedTransport -> whatever sends -> body, capped -> object or error
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Protocol, TypeVar, get_args

import anyio
import attrs
import httpx
from anyio.lowlevel import EventLoopToken, current_token

from . import _checks
from ._actions import Action, Effect, user_get_stats
from ._fetching import Fetcher
from ._links import Follow
from ._requests import MultipartBody, Requests
from ._sharing import registry
from ._signing import Credentials
from ._upload import DocumentLostError
from .errors import (
    APIError,
    ClientClosedError,
    ConfigurationError,
    ConnectionFailedError,
    FlipsnackError,
    InvalidAnswerError,
    InvalidArgumentError,
    NoAnswerError,
    RateLimitError,
    UploadOutcomeUnknownError,
    UploadQuotaError,
)
from .quota import Lane, Quota, Rate
from .transport import (
    LONGEST_BODY,
    UNSENT,
    QuotaTransport,
    SigningTransport,
    UntrustedHostError,
    is_safe_for_keys,
    read_capped,
    stream_of,
)

T = TypeVar("T")

VENDOR: Final = ".flipsnack.com"
CLOSING: Final = 5.0  # seconds that connections get to say goodbye
ELSEWHERE: Final = "the client belongs to another event loop or process"


@attrs.frozen
class Options:
    """Hold what may differ between the views of a client."""

    timeout: float
    attempts: int
    lane: Lane = "interactive"
    max_wait: float | None = None
    minds_deadline: bool = True

    def __attrs_post_init__(self) -> None:
        _checks.seconds("timeout", self.timeout)
        if type(self.attempts) is not int or self.attempts < 1:
            raise InvalidArgumentError("attempts", "give a whole number, at least 1")
        if self.lane not in get_args(Lane):
            raise InvalidArgumentError("lane", f"give one of {', '.join(get_args(Lane))}")
        if self.max_wait not in (None, math.inf):
            _checks.seconds("max_wait", self.max_wait, may_be_zero=True)


class Waits(Protocol):
    """Be told how long a call waited, and say how much longer it may."""

    left: float
    deadline: float | None

    def waited(self, seconds: float) -> None: ...


class Sending:
    """Hold what is known of the last time that a call was sent."""

    __slots__ = ("admitted_at", "at", "body")

    def __init__(self) -> None:
        self.at: datetime | None = None
        self.admitted_at = 0.0
        self.body: MultipartBody | None = None


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

        from ._gate import Gate
        from ._isolation import IsolatedTransport
        from ._retry import RetryBudget

        isolated = IsolatedTransport(connections)
        self._signing = SigningTransport(isolated, credentials)
        self._clean = credentials.clean
        self.key_fingerprint = credentials.lasting_fingerprint
        # Another transport may lead to a sandbox in this process, by the vendor's name.
        goes_out = isinstance(connections, httpx.AsyncHTTPTransport)
        self._must_not_reach_vendor = goes_out and credentials.are_made_up()
        self.check_host(api_url.host)
        self._account = (credentials.fingerprint(), api_url.host) if quota is None else None
        self._rates = rates
        self._quota = quota  # found when there is an event loop to share it in
        self._transport: QuotaTransport | None = None
        user_agent = f"flipsnack-async/{version('flipsnack-async')}"
        self._requests = Requests(api_url, upload_url, user_agent)
        self._fetcher = Fetcher(
            isolated,
            self.check_open,
            # Whom it is safe to tell a key by http is on this machine.
            from_loopback=is_safe_for_keys("http", api_url.host),
            user_agent=user_agent,
        )
        self.api_url = api_url
        self._budget = RetryBudget()
        self._gate = Gate()
        self.closed = False
        self._waits: set[anyio.CancelScope] = set()
        self._leave: Callable[[], None] = _stay
        self._home: tuple[int, EventLoopToken] | None = None

    @property
    def quota(self) -> Quota:
        if self._quota is None:
            self.check()  # it leaves where it joined, and once it is closed it never leaves again
            self._quota = registry.join(self._account, self._rates)
            self._leave = partial(registry.leave, self._account, current_token())
        return self._quota

    @property
    def transport(self) -> httpx.AsyncBaseTransport:
        if self._transport is None:
            self._transport = QuotaTransport(self._signing, self.quota)
        return self._transport

    def __del__(
        self, warn: Callable[..., None] = warnings.warn, process: Callable[[], int] = os.getpid
    ) -> None:
        # What it needs is bound above: when the interpreter ends, modules are empty.
        home = getattr(self, "_home", None)  # it may be half made
        if home is not None and not self.closed and home[0] == process():
            self._leave()
            warn(
                f"unclosed <Flipsnack {self.api_url}>: use `async with`, or await its aclose()",
                ResourceWarning,
                source=self,
            )

    async def aclose(self) -> None:
        """End what is under way, and close the connections; where it belongs, and only there."""
        if self._home is not None and not _is_here(*self._home):
            if self.closed:
                return
            raise ClientClosedError(f"{ELSEWHERE}; close it there")
        if not self.closed:
            self.closed = True
            self._fetcher.stop()
            for wait in self._waits:
                wait.cancel()
            self._leave()
        # Again, if the last time was cut short; and not cut short by the scope that it is left for.
        with anyio.move_on_after(CLOSING, shield=True):
            await self._signing.aclose()

    def check_host(self, host: str) -> None:
        """Refuse to try a sandbox's key on the vendor, who may take that for guessing."""
        if self._must_not_reach_vendor and f".{host.rstrip('.')}".endswith(VENDOR):
            raise ConfigurationError(
                "api_key",
                "is a sandbox's; give its address as api_url and upload_url (FLIPSNACK_API_URL, "
                "FLIPSNACK_UPLOAD_URL)",
            )

    def check_open(self) -> None:
        if self.closed:
            raise ClientClosedError("the client is closed; make a new one")

    def check(self) -> None:
        """Refuse what would hang or mix up answers: a closed client, another loop, a fork."""
        self.check_open()
        if self._home is None:
            self._home = os.getpid(), current_token()
        elif not _is_here(*self._home):
            raise ClientClosedError(f"{ELSEWHERE}; make one client for each")

    @contextmanager
    def _until_closed(self) -> Iterator[None]:
        """Wait inside the block until the client is closed, at the longest."""
        with anyio.CancelScope() as wait:
            self._waits.add(wait)
            try:
                yield
            finally:
                self._waits.remove(wait)

    def follower(self, timeout: float) -> Follow:
        """Make a function that follows the links to packages."""
        return partial(self._fetcher.follow, patience=timeout)

    async def carry_out(
        self, action: Action[T], options: Options, on_sent: Callable[[], object]
    ) -> T:
        """Carry out an action; *on_sent* is called for each attempt that goes out."""
        from ._retry import Patience, persist

        sending = Sending()
        try:
            return await persist(
                partial(self._attempt, sending=sending, options=options, on_sent=on_sent),
                action,
                attempts=options.attempts,
                budget=self._budget,
                patience=Patience(options.max_wait, None if options.minds_deadline else math.inf),
                gate=self._gate,
                until_closed=self._until_closed,
            )
        except UploadOutcomeUnknownError as error:
            error.sent_at = sending.at
            error.title = action.params.get("title")
            error.body_complete = sending.body.complete if sending.body else None
            raise

    async def _attempt(
        self,
        action: Action[T],
        patience: Waits,
        *,
        sending: Sending,
        options: Options,
        on_sent: Callable[[], object],
    ) -> T:
        self.check()
        request = self._requests.describe(action, options.timeout)
        self.check_host(request.url.host)
        sending.body = request.stream if isinstance(request.stream, MultipartBody) else None
        response, body = await self._exchange(
            action, request, patience, sending=sending, options=options, on_sent=on_sent
        )
        known = {**action.known, "asked_at": sending.at}
        refusal: APIError
        try:
            reply = self._read(action, known, response, body)
        except APIError as error:
            refusal = error
        else:
            self._gate.learn(None, sending.admitted_at)
            return reply
        self._gate.learn(refusal, sending.admitted_at)
        if refusal.code == 32 and isinstance(refusal, RateLimitError) and action.upload:
            refusal = await self._reading_of(refusal, patience, options, on_sent)
        if isinstance(refusal, RateLimitError) and refusal.code != httpx.codes.TOO_MANY_REQUESTS:
            periods = [rate.per for rate in self.quota.rates] or [0.0]
            per = min(periods) if refusal.code == 31 else max(periods)
            response.extensions["quota_permit"].refused(per=per)
        raise refusal

    async def _exchange(
        self,
        action: Action[Any],
        request: httpx.Request,
        patience: Waits,
        *,
        sending: Sending,
        options: Options,
        on_sent: Callable[[], object],
    ) -> tuple[httpx.Response, bytes]:
        asked = anyio.current_time()

        def admitted() -> None:
            patience.waited(anyio.current_time() - asked)
            self.check_open()  # it may have been closed meanwhile
            self._gate.check()
            sending.admitted_at = anyio.current_time()
            sending.at = datetime.now(UTC)
            progressed()
            on_sent()

        def progressed() -> None:
            now = anyio.current_time()
            scope.deadline = now + options.timeout
            if sending.body is not None and sending.body.complete:
                # What is buffered on the way may still take as long as the document took to leave.
                scope.deadline += now - sending.admitted_at

        if sending.body is not None:
            sending.body.on_written = progressed
        request.extensions["quota"] = {
            "lane": options.lane,
            "max_wait": patience.left,
            "deadline": patience.deadline,
            "upload": action.upload,
            "admitted": admitted,
        }
        failure: FlipsnackError
        response: httpx.Response | None = None
        with anyio.CancelScope() as scope:  # which thousands may wait in: a generator weighs more
            self._waits.add(scope)
            try:
                response = await self.transport.handle_async_request(request)
                return response, await read_capped(stream_of(response))
            except UNSENT as error:
                failure = ConnectionFailedError(
                    f"no connection to {request.url.host}: {str(error) or _kind(error)}",
                    untrusted=isinstance(error, UntrustedHostError),
                )
            except httpx.HTTPError as error:
                # Not the error's own text, which may quote what the server sent.
                failure = NoAnswerError(f"{action.name}: the connection broke ({_kind(error)})")
            except DocumentLostError as error:
                failure = NoAnswerError(f"{action.name}: {error}")
            finally:
                self._waits.remove(scope)
        if scope.cancelled_caught:
            what = "progress" if action.upload else "whole answer"
            failure = NoAnswerError(f"{action.name}: no {what} within {options.timeout:g} s")
        if isinstance(failure, NoAnswerError) and sending.body and not sending.body.started:
            failure = ConnectionFailedError(str(failure))  # the headers alone are no upload
        if self.closed:
            was_sent = scope.deadline < math.inf and isinstance(failure, NoAnswerError)
            failure = _cut_off(action, was_sent=was_sent)
        # Raised out here, so that no frame of the HTTP library, whose locals hold the signed
        # request, hangs on to an error of ours, nor an answer that may repeat the request.
        response = None
        raise failure

    async def _reading_of(
        self,
        refusal: APIError,
        patience: Waits,
        options: Options,
        on_sent: Callable[[], object],
    ) -> APIError:
        """
        Find out which of its two meanings a 32 has for an upload.

        The vendor's pages call it the limit of a minute and that of a month.
        Where its text says neither, the count of uploads left does: to find
        out by sending a large document again would be a waste.
        """
        if "minute" in refusal.message.lower():
            return refusal
        left, asked = None, anyio.current_time()
        with suppress(FlipsnackError):  # then it stays open
            within = attrs.evolve(options, max_wait=patience.left)
            left = (await self.carry_out(user_get_stats(), within, on_sent)).api_uploads_left
        patience.waited(anyio.current_time() - asked)
        if left is None:
            return APIError(refusal.code, refusal.message, refusal.action)
        return UploadQuotaError(*refusal.args) if left < 1 else refusal

    def _read(
        self, action: Action[T], known: Mapping[str, Any], response: httpx.Response, body: bytes
    ) -> T:
        status = response.status_code
        if status == httpx.codes.TOO_MANY_REQUESTS:
            raise RateLimitError(status, "Too Many Requests", action.name)
        if response.headers.get("Content-Encoding", "").lower() not in ("", "identity"):
            raise InvalidAnswerError(action.name, "the answer is compressed", http_status=status)
        if len(body) > LONGEST_BODY:
            raise InvalidAnswerError(action.name, "the answer is too long", http_status=status)
        from ._envelope import decode

        return decode(
            body, action.name, action.reply, known, action.fallback, status, clean=self._clean
        )


def _stay() -> None:
    """Leave no quota, where none was joined."""


def _is_here(process: int, loop: EventLoopToken) -> bool:
    # In this order: asyncio denies in a forked child that the loop of its parent runs.
    return process == os.getpid() and loop == current_token()


def _cut_off(action: Action[Any], *, was_sent: bool) -> FlipsnackError:
    """Say of a call that the client was closed during it."""
    if was_sent and action.effect is Effect.ONCE:
        return NoAnswerError(f"{action.name}: the client was closed")  # it stays open what it did
    is_open = was_sent and action.effect is Effect.CONVERGENT
    hint = ", which may have been carried out" if is_open else ""
    return ClientClosedError(f"the client was closed during {action.name}{hint}; make a new one")


def _kind(error: Exception) -> str:
    return type(error).__name__
