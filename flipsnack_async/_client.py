"""The client: wires the rooms together and owns the connections' life."""

from __future__ import annotations

import math
import os
from collections.abc import (
    AsyncIterable,
    Iterable,
    Mapping,
    Sequence,
    Sized,
)
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import EllipsisType, TracebackType
from typing import Any, Final, NoReturn, TypeVar

import attrs
import httpx

from . import _actions, _checks, _environment
from ._actions import Action, Day, Effect, Ref, Value
from ._core import Core, Options
from ._links import Answer
from ._notes import Notes
from ._resources import Collections, User
from ._signing import Credentials
from ._upload import OnProgress, Source, opened
from .errors import ClientClosedError, ConfigurationError, InvalidArgumentError
from .exports import Exports
from .harvest import Account, Harvest
from .models import CollectionStats
from .quota import Lane, Quota, Rate, checked_rates
from .transport import Connections, checked_url

__all__ = ["Flipsnack"]

T = TypeVar("T")

API_URL: Final = "https://api.flipsnack.com/v1/"
UPLOAD_URL: Final = "https://upload.flipsnack.com/v1/"
# The vendor's limits since 2025, https://developers.flipsnack.com/api-limitations
RATES: Final = (Rate(5, per=1.0), Rate(60, per=60.0))


class Flipsnack:
    """
    Call the Flipsnack API, within its limits.

        async with Flipsnack(api_key, api_secret) as flipsnack:
            stats = await flipsnack.user.get_stats()

    *timeout* is the seconds of one attempt, from its admission by the quota
    to the last byte of the answer; *attempts* is how often a call that may
    be repeated goes out at the most. Without a *quota* of its own the client
    shares one with the other clients of the key and API host in this event
    loop, at the same *rates*. *transport* is the innermost one, of calls and
    downloads: a proxy, a sandbox, a test; it must honour httpx's "target"
    extension.

    One client serves one event loop. Calls raise what `flipsnack_async.errors`
    lists. A cancelled call leaves nothing behind, but if its first byte had
    left, the vendor may have carried it out.
    """

    user: User
    collections: Collections

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
        credentials.check()
        if not (quota is None or isinstance(quota, Quota)):
            raise InvalidArgumentError("quota", "give a Quota, or None for the one that is shared")
        core = Core(
            Connections() if transport is None else transport,
            credentials,
            quota,
            checked_rates(rates),
            checked_url("api_url", api_url),
            checked_url("upload_url", upload_url),
        )
        self._set_up(core, Options(timeout, attempts), Notes(), owner=True)

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

        Reads FLIPSNACK_API_KEY and FLIPSNACK_API_SECRET, the latter perhaps
        from a file that FLIPSNACK_API_SECRET_FILE names and strangers may not
        read; and if they are set FLIPSNACK_API_URL, FLIPSNACK_UPLOAD_URL and
        FLIPSNACK_RATES (written 5/1s,60/60s). Raises `ConfigurationError`
        naming the variable.
        """
        rates = RATES if quota is not None else _environment.rates(RATES)
        try:
            return cls(
                _environment.api_key(),
                _environment.api_secret(),
                rates=rates,
                quota=quota,
                timeout=timeout,
                attempts=attempts,
                api_url=_environment.url(_environment.API_URL, API_URL),
                upload_url=_environment.url(_environment.UPLOAD_URL, UPLOAD_URL),
                transport=transport,
            )
        except ConfigurationError as error:
            raise _environment.named(error) from None

    def _set_up(self, core: Core, options: Options, notes: Notes, *, owner: bool) -> None:
        self._core = core
        self._options = options
        self._notes = notes
        self._owner = owner
        self._calls = 0  # sent through this view, repeated ones included
        self.user = User(self._carry_out)
        self.collections = Collections(self._carry_out, self._follow, notes.uploaded)

    async def _carry_out(self, action: Action[T], *, lane: Lane | None = None) -> T:
        options = self._options if lane is None else attrs.evolve(self._options, lane=lane)
        began = self._notes.begin(action)
        try:
            reply = await self._core.carry_out(action, options, self._count)
        except BaseException as error:
            self._notes.end(action, began, None, error)
            raise
        self._notes.end(action, began, reply, None)
        return reply

    def _follow(self, link: str, headers: Mapping[str, str]) -> AbstractAsyncContextManager[Answer]:
        return self._core.follower(self._options.timeout)(link, headers)

    def _count(self) -> None:
        self._calls += 1

    @property
    def quota(self) -> Quota:
        """The quota that this client's calls wait for; shared, unless it was given its own."""
        return self._core.quota

    def __repr__(self) -> str:
        core = getattr(self, "_core", None)  # a traceback may show a client that is half made
        if core is None:
            return "<Flipsnack>"
        return f"<Flipsnack {core.api_url}{' closed' if core.closed else ''}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client cannot be pickled or copied; use with_options, or make another")

    def with_options(
        self,
        *,
        lane: Lane | None = None,
        max_wait: float | EllipsisType | None = ...,
        timeout: float | None = None,
        attempts: int | None = None,
    ) -> Flipsnack:
        """
        Return a view of this client with other options; what is not given stays.

        *lane* is where calls queue: interactive, poll or bulk. *max_wait*
        bounds the seconds that a call waits, for quota and between attempts
        together; where more are foreseen `QuotaWaitError` is raised at once.
        None means no bound.

        The view shares connections and quota, and is closed with the client;
        closing the view itself raises `ClientClosedError`.
        """
        given = {"lane": lane, "timeout": timeout, "attempts": attempts}
        changes: dict[str, Any] = {name: v for name, v in given.items() if v is not None}
        if max_wait is not ...:
            changes["max_wait"] = max_wait
        return self._view(**changes)

    def _view(self, **changes: Any) -> Flipsnack:
        view = object.__new__(Flipsnack)
        options = attrs.evolve(self._options, **changes)
        view._set_up(self._core, options, self._notes, owner=False)
        return view

    async def call(
        self,
        action: str,
        params: Mapping[str, Value] | None = None,
        *,
        file: Source | None = None,
        effect: Effect | None = None,
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """
        Carry out any action by the vendor's names, and return the answer's data as it came.

        Data that is no object comes under the name *data*.

        An action that is not known counts as `Effect.ONCE`, which is never
        sent again once a byte of it left, unless *effect* says otherwise. It
        then raises `UploadOutcomeUnknownError`. *file* is what
        `collections.create` takes; with it, or where the action is known to
        upload, the call goes to the vendor's second host.
        """
        if file is None:
            return await self._carry_out(_actions.any_action(action, params, effect))
        async with opened("file", file, on_progress) as document:
            return await self._carry_out(_actions.any_action(action, params, effect, document))

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
        under way or waiting for quota. They queue in the bulk lane, and a
        surrounding deadline cuts the harvest off but fails no row before.
        """
        start, end = _actions.days(start_date, end_date)
        self._core.check_open()
        view = self._view(lane="bulk", minds_deadline=False)

        async def ask(collection_hash: str) -> CollectionStats:
            return await view.collections.get_stats(
                collection_hash, start_date=start, end_date=end, pages=pages
            )

        return Harvest(
            ask,
            _actions.hashes_of(view.collections.list() if refs is None else refs),
            at_once=at_once,
            # The account's own listing is read to its end soon, to know how long the harvest will
            # take; from refs of the caller's, no more is drawn than is about to be asked.
            ahead=math.inf if refs is None else at_once,
            total=len(refs) if isinstance(refs, Sized) else None,
            calls=lambda: view._calls,
            seconds_for=partial(self.quota.estimate, lane="bulk"),
        )

    def _account(self) -> Account:
        self._core.check_open()
        view = self._view(lane="bulk", minds_deadline=False, max_wait=None)
        return Account(
            get_stats=view.collections.get_stats,
            list_from=view.collections._list_from,
            calls=lambda: view._calls,
            seconds_for=partial(self.quota.estimate, lane="bulk"),
            token_ends=self.quota.ends,
            recall=self.quota.recall,
            key_fingerprint=self._core.key_fingerprint,
        )

    def export_many(
        self,
        refs: Iterable[Ref] | AsyncIterable[Ref] | None,
        folder: str | os.PathLike[str],
        *,
        every: float = 5.0,
        within: float = 3600.0,
        at_once: int = 150,
    ) -> Exports:
        """
        Save the HTML packages of *refs*, or of every collection, as files in *folder*.

        They are named after their hashes, such as fxh4k89.zip. Each is asked
        for after *every* so many seconds, or later while many are, and given
        up when it is not ready *within* so many after the first answer.
        *at_once* bounds the packages under way, of which there are never more
        than could be asked for in a quarter of *within* beside a harvest. The
        calls queue in the poll lane, and a surrounding deadline cuts the
        export off but fails no row before.
        """
        _checks.seconds("every", every)
        _checks.seconds("within", within)
        self._core.check_open()
        view = self._view(lane="poll", minds_deadline=False)
        if refs is None:
            refs = view.collections.list()
        return Exports(
            partial(
                view.collections._save_package,
                within=within,
                from_first_answer=True,
                overwrite=True,
            ),
            _actions.hashes_of(refs),
            _checks.path("folder", folder),
            every=every,
            rounds=partial(_round, self.quota.rates),
            at_once=at_once,
            most=_most_in_rounds_of(within / 4, self.quota.rates),
            total=_actions.count_of(refs),
            calls=lambda: view._calls,
            seconds_for=partial(_seconds_for, self.quota),
        )

    async def aclose(self) -> None:
        """Close the connections; calls under way fail, later ones raise `ClientClosedError`."""
        if not self._owner:
            raise ClientClosedError("close the client itself, not a view made by with_options")
        await self._core.aclose()

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


def _round(rates: Sequence[Rate], packages: int) -> float:
    """
    Say how long asking for each of so many takes, up to a period of the slowest rate.

    It leaves half of that rate to others.
    """
    slowest = _slowest(rates)
    return min(slowest.per, 2 * packages * slowest.per / slowest.limit) if slowest else 0.0


def _most_in_rounds_of(seconds: float, rates: Sequence[Rate]) -> float:
    """Say how many can be asked for in so long by polls while others call."""
    slowest = _slowest(rates)
    if slowest is None:
        return math.inf
    return max(1, int(seconds / slowest.per * max(1, slowest.limit // 5)))


def _slowest(rates: Sequence[Rate]) -> Rate | None:
    return min(rates, key=lambda rate: rate.limit / rate.per, default=None)


def _seconds_for(quota: Quota, calls: int) -> float:
    """Say how long so many polls take, with those among them that wait for quota by now."""
    waiting = quota.statistics().waiting["poll"]
    return quota.estimate(max(0, calls - waiting), lane="poll")
