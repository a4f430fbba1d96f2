"""What a client offers, grouped as the vendor groups his methods."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol, TypeVar

from . import _actions
from ._actions import Action, Day, Ref, Value
from ._export import await_package
from .models import Collection, CollectionPage, CollectionStats, Package, UserStats
from .quota import Lane

T = TypeVar("T")


class Call(Protocol):
    """Carry out an action, whoever does it; without a *lane*, in his own."""

    async def __call__(self, action: Action[T], /, *, lane: Lane | None = None) -> T: ...


class User:
    """Ask about the account that the key belongs to."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def get_stats(self) -> UserStats:
        """Ask for the account's totals, and how many uploads are left this month."""
        return await self._call(_actions.user_get_stats())


class Collections:
    """
    Work with the account's flipbooks, which the vendor's API calls collections.

    A *ref* is a collection's hash, or any object with a *collection_hash*.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    def list(
        self,
        *,
        status: str | None = None,
        query: str | None = None,
        order_by: str | None = None,
        order: str | None = None,
        params: Mapping[str, Value] | None = None,
    ) -> AsyncIterator[Collection]:
        """
        Iterate over the collections, page after page, each hash once.

        *status* is public, editable or unlisted; *query* is searched in title
        and description. *params* are further parameters by the vendor's names.

        How long a page is, and whether the count in it is of all collections,
        is not documented. So the next page is asked for until one is empty or
        brings nothing new, or a count that cannot be of the page is reached.
        """
        first = _actions.collection_get_list(
            status=status, query=query, order_by=order_by, order=order, params=params
        )
        return _Listing(self._call, first)

    async def get_stats(
        self,
        ref: Ref,
        *,
        start_date: Day | None = None,
        end_date: Day | None = None,
        pages: bool = False,
    ) -> CollectionStats:
        """
        Ask for a collection's statistics, of each page too with *pages*.

        Dates are `datetime.date` or text such as 2026-01-31. Whether the last
        day is included, and in which time zone days begin, the vendor does
        not say.
        """
        return await self._call(
            _actions.collection_get_stats(
                ref, start_date=start_date, end_date=end_date, pages=pages
            )
        )

    async def download_html(self, ref: Ref) -> Package:
        """
        Ask once for the collection's HTML package, whatever its status.

        The first call starts the work; `export` awaits its end.
        """
        return await self._call(_actions.collection_download_html(ref))

    async def export(
        self,
        ref: Ref,
        *,
        every: float = 5.0,
        within: float = 600.0,
        on_poll: Callable[[Package], object] | None = None,
    ) -> Package:
        """
        Await the collection's HTML package: asks at once, then *every* so many seconds.

        The calls queue in the poll lane, and *on_poll* is called with each
        answer. The link in the result lives one minute, so fetch it at once.
        Raises `ExportFailedError`, or after *within* seconds
        `ExportTimeoutError`: asking again later continues the same export,
        and so it does after a cancellation.
        """
        action = _actions.collection_download_html(ref)
        return await await_package(
            lambda: self._call(action, lane="poll"),
            action.params["collectionHash"],
            every=every,
            within=within,
            on_poll=on_poll,
        )


class _Listing(AsyncIterator[Collection]):
    """Hold a listing's place; no generator, so that leaving it early leaves nothing to close."""

    def __init__(self, call: Call, first: Action[CollectionPage]) -> None:
        self._call = call
        self._first = first
        self._more = True
        self._received = 0
        self._seen: set[str] = set()
        self._ready: deque[Collection] = deque()

    async def __anext__(self) -> Collection:
        while not self._ready and self._more:
            self._take_in(await self._call(_actions.page_from(self._received, self._first)))
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()

    def _take_in(self, page: CollectionPage) -> None:
        fresh = {
            c.collection_hash: c for c in page.collections if c.collection_hash not in self._seen
        }
        self._ready.extend(fresh.values())
        self._seen.update(fresh)
        self._received += len(page.collections)
        # A count that differs from this page's length can only be of all collections.
        count_of_all = page.count if page.count != len(page.collections) else None
        ended = count_of_all is not None and self._received >= count_of_all
        self._more = bool(fresh) and not ended
