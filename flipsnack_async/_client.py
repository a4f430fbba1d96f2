"""The client: wires the rooms together and owns the connections' life."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence, Sized
from contextlib import aclosing
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, NoReturn, TypeVar

import anyio
import httpx
from anyio.lowlevel import EventLoopToken, current_token

from . import _actions
from ._actions import Action, Day, Effect, Ref, Value
from ._resources import Collections, User
from ._signing import Credentials
from .errors import (
    ClientClosedError,
    ConfigurationError,
    ConnectionFailedError,
    FlipsnackError,
    InvalidAnswerError,
    InvalidArgumentError,
    NoAnswerError,
    RateLimitError,
)
from .harvest import Harvest
from .models import CollectionStats
from .quota import Quota, Rate
from .transport import UNSENT, QuotaTransport, SigningTransport, is_safe_for_keys

__all__ = ["Flipsnack"]

T = TypeVar("T")

API_URL: Final = "https://api.flipsnack.com/v1/"
UPLOAD_URL: Final = "https://upload.flipsnack.com/v1/"
# The vendor's limits since 2025, https://developers.flipsnack.com/api-limitations
RATES: Final = (Rate(5, per=1.0), Rate(60, per=60.0))

LONGEST_BODY: Final = 8 * 2**20


class Core:
    """Hold what a client and its views share: connections, quota, and whether they are closed."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        quota: Quota,
        api_url: httpx.URL,
        upload_url: httpx.URL,
    ) -> None:
        # Imported with the first client, here and where calls are made, and not with the package:
        # cattrs, tenacity and the package's metadata would take half as long as all of httpx.
        from importlib.metadata import version

        from ._retry import RetryBudget

        self.transport = transport
        self.quota = quota
        self.api_url = api_url
        self.upload_url = upload_url
        self.headers = httpx.Headers(
            {
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": f"flipsnack-async/{version('flipsnack-async')}",
            }
        )
        self.budget = RetryBudget()
        self.closed = False
        self._home: tuple[int, EventLoopToken] | None = None

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


class Flipsnack:
    """
    Call the Flipsnack API, within its limits.

        async with Flipsnack(api_key, api_secret) as flipsnack:
            stats = await flipsnack.user.get_stats()

    *timeout* is the seconds of one attempt, from its admission by the quota
    to the last byte of the answer; *attempts* is how often a call that may
    be repeated goes out at the most. Without a *quota* of its own the client
    keeps *rates*. *transport* is the innermost one: a proxy, a sandbox, a
    test; it must honour httpx's "target" extension.

    One client serves one event loop. Calls raise what `flipsnack_async.errors`
    lists. A cancelled call leaves nothing behind, but if its first byte had
    left, the vendor may have carried it out.
    """

    user: User
    collections: Collections
    quota: Quota

    def __init__(
        self,
        api_key: str,
        api_secret: str,
        *,
        rates: Sequence[Rate] = RATES,
        quota: Quota | None = None,
        timeout: float = 30.0,
        attempts: int = 4,
        api_url: str = API_URL,
        upload_url: str = UPLOAD_URL,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        credentials = Credentials(api_key, api_secret)
        del api_key, api_secret  # a traceback that shows locals must not find them
        quota = Quota(*rates) if quota is None else quota
        signing = SigningTransport(transport or _connections(), credentials)
        core = Core(
            QuotaTransport(signing, quota),
            quota,
            _checked_url("api_url", api_url),
            _checked_url("upload_url", upload_url),
        )
        self._set_up(core, timeout, attempts, owner=True)

    @classmethod
    def from_env(
        cls,
        *,
        quota: Quota | None = None,
        timeout: float = 30.0,
        attempts: int = 4,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> Flipsnack:
        """
        Make a client from the environment.

        Reads FLIPSNACK_API_KEY and FLIPSNACK_API_SECRET, and if they are set
        FLIPSNACK_API_URL, FLIPSNACK_UPLOAD_URL and FLIPSNACK_RATES (written
        5/1s,60/60s). Raises `ConfigurationError` naming the variable.
        """
        for name in ("FLIPSNACK_API_KEY", "FLIPSNACK_API_SECRET"):
            if not os.environ.get(name):
                raise ConfigurationError(name, "is not set; set it to what Flipsnack gave you")
        rates = RATES if quota is not None else _rates_from_env()
        try:
            return cls(
                os.environ["FLIPSNACK_API_KEY"],
                os.environ["FLIPSNACK_API_SECRET"],
                rates=rates,
                quota=quota,
                timeout=timeout,
                attempts=attempts,
                api_url=os.environ.get("FLIPSNACK_API_URL") or API_URL,
                upload_url=os.environ.get("FLIPSNACK_UPLOAD_URL") or UPLOAD_URL,
                transport=transport,
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"FLIPSNACK_{error.setting.upper()}", error.remedy) from None

    def _set_up(self, core: Core, timeout: float, attempts: int, *, owner: bool) -> None:
        if not timeout > 0:
            raise InvalidArgumentError("timeout", "give a number of seconds above 0")
        if type(attempts) is not int or attempts < 1:
            raise InvalidArgumentError("attempts", "give a whole number, at least 1")
        self._core = core
        self._timeout = timeout
        self._attempts = attempts
        self._owner = owner
        self._calls = 0  # sent through this view, repeated ones included
        self.quota = core.quota
        self.user = User(self._carry_out)
        self.collections = Collections(self._carry_out)

    def __repr__(self) -> str:
        core = getattr(self, "_core", None)  # a traceback may show a client that is half made
        if core is None:
            return "<Flipsnack>"
        return f"<Flipsnack {core.api_url}{' closed' if core.closed else ''}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client cannot be pickled or copied; use with_options, or make another")

    def with_options(
        self, *, timeout: float | None = None, attempts: int | None = None
    ) -> Flipsnack:
        """
        Return a view of this client with other options.

        It shares connections and quota, and is closed with the client;
        closing the view itself raises `ClientClosedError`.
        """
        view = object.__new__(Flipsnack)
        view._set_up(
            self._core,
            self._timeout if timeout is None else timeout,
            self._attempts if attempts is None else attempts,
            owner=False,
        )
        return view

    async def call(
        self,
        action: str,
        params: Mapping[str, Value] | None = None,
        *,
        effect: Effect | None = None,
    ) -> dict[str, Any]:
        """
        Carry out any action by the vendor's names, and return the answer's data as it came.

        An action that is not known counts as `Effect.ONCE`, which is never
        sent again once a byte of it left, unless *effect* says otherwise.
        Actions that upload are sent to the vendor's second host; they take a
        *fileUrl*, but no file.
        """
        return await self._carry_out(_actions.any_action(action, params, effect))

    def harvest(
        self,
        refs: Iterable[Ref] | AsyncIterable[Ref] | None = None,
        *,
        start_date: Day | None = None,
        end_date: Day | None = None,
        pages: bool = False,
        at_once: int = 8,
    ) -> Harvest:
        """
        Harvest statistics of *refs*, or of every collection of the account.

        Hashes that come twice are asked for once. *at_once* bounds the calls
        under way or waiting for quota.
        """
        start, end = _actions.days(start_date, end_date)
        view = self.with_options()

        async def ask(collection_hash: str) -> CollectionStats:
            return await view.collections.get_stats(
                collection_hash, start_date=start, end_date=end, pages=pages
            )

        return Harvest(
            ask,
            _hashes(view.collections.list() if refs is None else refs),
            at_once=at_once,
            # The account's own listing is read to its end soon, to know how long the harvest will
            # take; from refs of the caller's, no more is drawn than is about to be asked.
            ahead=math.inf if refs is None else at_once,
            total=len(refs) if isinstance(refs, Sized) else None,
            calls=lambda: view._calls,
            seconds_for=self.quota.estimate,
        )

    async def aclose(self) -> None:
        """Close the connections; calls under way fail, later ones raise `ClientClosedError`."""
        if not self._owner:
            raise ClientClosedError("close the client itself, not a view made by with_options")
        self._core.closed = True
        await self._core.transport.aclose()

    async def __aenter__(self) -> Flipsnack:
        if not self._owner:
            raise ClientClosedError("enter the client itself, not a view made by with_options")
        self._core.check()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # --- one call

    async def _carry_out(self, action: Action[T]) -> T:
        from ._retry import persist

        return await persist(self._attempt, action, self._attempts, self._core.budget)

    async def _attempt(self, action: Action[T]) -> T:
        self._core.check()
        request = self._describe(action)
        sent_at = datetime.min.replace(tzinfo=UTC)

        def admitted() -> None:
            nonlocal sent_at
            scope.deadline = anyio.current_time() + self._timeout
            sent_at = datetime.now(UTC)
            self._calls += 1

        request.extensions["quota"] = {"admitted": admitted}
        failure: FlipsnackError | None = None
        with anyio.CancelScope() as scope:
            try:
                response = await self._core.transport.handle_async_request(request)
                body = await _read_capped(response)
            except UNSENT as error:
                failure = ConnectionFailedError(
                    f"no connection to {request.url.host}: {error or _kind(error)}"
                )
            except httpx.HTTPError as error:
                # Not the error's own text, which may quote what the server sent.
                failure = NoAnswerError(f"{action.name}: the connection broke ({_kind(error)})")
        if scope.cancelled_caught:
            failure = NoAnswerError(f"{action.name}: no whole answer within {self._timeout:g} s")
        # Raised out here, so that no frame of the HTTP library, whose locals hold the signed
        # request, hangs on to an error of ours.
        if failure is not None:
            raise failure
        known = {**action.known, "asked_at": sent_at}
        try:
            return _reply(action, known, response, body)
        except RateLimitError as refusal:
            if refusal.code != httpx.codes.TOO_MANY_REQUESTS:  # the transport reported that
                response.extensions["quota_permit"].refused()
            raise

    def _describe(self, action: Action[Any]) -> httpx.Request:
        fields = {"action": action.name, **action.params}
        # The attempt as a whole has its deadline. Half of it for the connection tells a host that
        # cannot be reached, where not a byte left, from one that does not answer.
        timeout = {"connect": self._timeout / 2, "read": None, "write": None, "pool": None}
        return httpx.Request(
            "POST" if action.upload else "GET",
            self._core.upload_url if action.upload else self._core.api_url,
            headers=self._core.headers,
            files={n: (None, text) for n, text in fields.items()} if action.upload else None,
            extensions={"timeout": timeout, "flipsnack_fields": fields},
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


async def _read_capped(response: httpx.Response) -> bytes:
    body = bytearray()
    chunks = aiter(response.stream)  # type: ignore[arg-type]  # an async transport's is async
    try:
        async for chunk in chunks:
            body += chunk
            if len(body) > LONGEST_BODY:
                break
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()
        await response.aclose()
    return bytes(body)


def _kind(error: Exception) -> str:
    return type(error).__name__


def _connections() -> httpx.AsyncHTTPTransport:
    # The quota bounds the calls under way. Proxies, certificates and the like come from the caller,
    # never unasked from the environment.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    return httpx.AsyncHTTPTransport(limits=limits, trust_env=False)


def _checked_url(setting: str, text: str) -> httpx.URL:
    try:
        url = httpx.URL(text if text.endswith("/") else f"{text}/")
    except (httpx.InvalidURL, AttributeError):
        raise ConfigurationError(setting, "is no URL; give one like " + API_URL) from None
    if not url.host or not is_safe_for_keys(url.scheme, url.host):
        raise ConfigurationError(setting, "use https; plain http is for loopback only")
    if url.query or url.fragment or url.userinfo:
        raise ConfigurationError(setting, "give host and path only, like " + API_URL)
    return url


def _rates_from_env() -> tuple[Rate, ...]:
    try:
        return Rate.parse(os.environ.get("FLIPSNACK_RATES") or "5/1s,60/60s")
    except InvalidArgumentError as error:
        remedy = error.remedy
    raise ConfigurationError("FLIPSNACK_RATES", remedy)


async def _hashes(refs: Iterable[Ref] | AsyncIterable[Ref]) -> AsyncGenerator[str]:
    if isinstance(refs, AsyncGenerator):
        async with aclosing(refs):
            async for ref in refs:
                yield _actions.hash_of(ref)
    elif isinstance(refs, AsyncIterable):
        async for ref in refs:
            yield _actions.hash_of(ref)
    else:
        for ref in refs:
            yield _actions.hash_of(ref)
