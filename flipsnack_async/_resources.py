"""What a client offers, grouped as the vendor groups his methods."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from operator import attrgetter
from typing import Final, Protocol, TypeVar

import anyio

from . import _actions, _checks
from ._actions import Action, Day, Ref, Value
from ._conversion import await_conversion
from ._export import await_package
from ._links import Follow
from ._listing import Listing
from ._reconciliation import reconcile
from ._upload import OnProgress, OpenDocument, Source, opened, warn_of
from .errors import ExportTimeoutError, InvalidArgumentError, UploadOutcomeUnknownError
from .models import (
    Collection,
    CollectionStats,
    Embed,
    Package,
    SavedPackage,
    UploadOutcome,
    UserStats,
)
from .quota import Lane

T = TypeVar("T")

MOMENT: Final = 0.001


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

    A *ref* is a collection's hash, or any object with a *collection_hash*. A
    collection gets a new hash when it is published: use the one in the latest
    answer. Where *params* can be given, they are further parameters by the
    vendor's names.
    """

    def __init__(self, call: Call, follow: Follow, uploaded: set[str]) -> None:
        self._call = call
        self._follow = follow
        self._uploaded = uploaded  # the hashes of what this client created

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
        and description. What *order_by* and *order* may be is not documented;
        name and asc have been seen.

        Collections that are there all the time are not missed, whatever is
        added or removed meanwhile. A page is the last one if it is empty,
        brings nothing new, or reaches a count that is not the page's own.
        """
        first = _actions.collection_get_list(
            status=status, query=query, order_by=order_by, order=order, params=params
        )
        return Listing(self._call, first)

    def _list_from(self, index: int) -> Listing:
        params = {"from": index} if index else None
        return Listing(self._call, _actions.collection_get_list(params=params))

    async def get(self, ref: Ref) -> Collection:
        """Ask for a collection, and how far its conversion is."""
        return await self._call(_actions.collection_get(ref))

    async def update(
        self,
        ref: Ref,
        *,
        title: str | None = None,
        description: str | None = None,
        width: int | None = None,
        height: int | None = None,
        status: str | None = None,
        params: Mapping[str, Value] | None = None,
    ) -> Collection:
        """
        Change what is given, and return the collection with its newest hash.

        *width* and *height* are the player's, in pixels. A *status* of public
        or unlisted publishes an editable collection. Raises
        `StillProcessingError` while it is being converted.
        """
        action = _actions.collection_update(
            ref,
            title=title,
            description=description,
            width=width,
            height=height,
            status=status,
            params=params,
        )
        return await self._call(action)

    async def delete(self, ref: Ref) -> None:
        """Delete a collection; one that is gone already raises `CollectionUnavailableError`."""
        await self._call(_actions.collection_delete(ref))

    async def get_embed(
        self,
        ref: Ref,
        *,
        width: int | None = None,
        height: int | None = None,
        responsive: bool | None = None,
        start_page: int | None = None,
    ) -> Embed:
        """
        Ask for the HTML that shows a collection in a page.

        *width* and *height* are in pixels; with *responsive* it fills what it
        stands in. *start_page* is the page to open at, from 1.
        """
        action = _actions.collection_get_embed(
            ref, width=width, height=height, responsive=responsive, start_page=start_page
        )
        return await self._call(action)

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

    async def create(
        self,
        source: Source,
        *,
        title: str | None = None,
        description: str | None = None,
        width: int | None = None,
        height: int | None = None,
        status: str | None = None,
        params: Mapping[str, Value] | None = None,
        on_progress: OnProgress | None = None,
    ) -> Collection:
        """
        Upload a document; its conversion goes on after that, see `wait_until_converted`.

        *source* is a path, bytes, a file opened by `anyio.open_file`, which is
        read from where it stands, or an https address from which the vendor
        fetches the document himself. *on_progress* gets the number of bytes
        sent so far. The client's timeout counts seconds without progress; for
        the answer there is as much time more as the document took.

        A document whose first byte may have left is sent again only where the
        vendor refused it for the moment; *on_progress* then starts anew.
        Where no answer tells, `UploadOutcomeUnknownError` is raised, see
        `reconcile`; after a cancellation nothing tells. Raises
        `UploadQuotaError` or `FileRejectedError` where the vendor does not
        take it.
        """
        async with opened("source", source, on_progress) as document:
            if isinstance(document, OpenDocument):
                warn_of(document)
            action = _actions.collection_create(
                document,
                title=title,
                description=description,
                width=width,
                height=height,
                status=status,
                params=params,
            )
            return await self._call(action)

    async def reconcile(
        self, error: UploadOutcomeUnknownError, *, settle: float = 10.0
    ) -> UploadOutcome:
        """
        Find out what became of an upload, in a few calls.

        The count of uploads left tells whether any succeeded since, so ask
        `user.get_stats` before you upload, while no upload is under way.
        Which one it was only its title tells, which had better be given, and
        be like no other. Before it says that nothing was created, it looks
        again after *settle* seconds: a slow server may still be at work.
        Where the facts don't suffice, or several collections have the title,
        it stays unknown.
        """
        if not isinstance(error, UploadOutcomeUnknownError):
            raise InvalidArgumentError("error", "give an UploadOutcomeUnknownError")
        if error.action != "collection.create":
            raise InvalidArgumentError("error", f"is of {error.action}; give one of create")
        _checks.seconds("settle", settle, may_be_zero=True)

        async def uploads_left() -> int | None:
            return (await self._call(_actions.user_get_stats())).api_uploads_left

        outcome = await reconcile(
            error,
            uploads_left=uploads_left,
            titled=lambda title: self.list(query=title),
            is_known=self._uploaded,
            settle=settle,
        )
        if outcome.collection is not None:
            self._uploaded.add(outcome.collection.collection_hash)
        return outcome

    async def wait_until_converted(
        self,
        ref: Ref,
        *,
        every: float = 5.0,
        within: float = 600.0,
        on_poll: Callable[[Collection], object] | None = None,
        state_of: Callable[[Collection], str | None] = attrgetter("state"),
    ) -> Collection:
        """
        Await the end of a conversion: asks at once, then *every* so many seconds.

        The calls queue in the poll lane, and *on_poll* is called with each
        answer. What the vendor calls the state is not documented; *state_of*
        takes it out of a collection, should `Collection.state` miss it.
        Raises `ConversionFailedError`, or after *within* seconds
        `ConversionTimeoutError`; a conversion goes on after that, and after
        a cancellation. Where the quota has no call in that time,
        `QuotaWaitError` is raised at once.
        """
        _checks.function("state_of", state_of)
        return await await_conversion(
            lambda newest: self._call(_actions.collection_get(newest), lane="poll"),
            _actions.hash_of(ref),
            every=lambda: every,
            within=within,
            on_poll=on_poll,
            state_of=state_of,
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
        answer. A collection that is still being converted is waited for. The
        link in the result lives one minute, so fetch it at once. Raises
        `ExportFailedError`, or after *within* seconds `ExportTimeoutError`:
        asking again later continues the same export, and so it does after a
        cancellation. Where the quota has no call in that time,
        `QuotaWaitError` is raised at once.
        """
        return await self._await_package(ref, lambda: every, within, on_poll)

    async def save_package(
        self,
        ref: Ref,
        target: str | os.PathLike[str],
        *,
        every: float = 5.0,
        within: float = 600.0,
        on_progress: Callable[[int, int | None], object] | None = None,
        overwrite: bool = False,
    ) -> SavedPackage:
        """
        Await the collection's HTML package, and save it as the file *target*.

        The file is there whole, every member of the zip archive checked, or
        not at all, whatever happens meanwhile; only its owner may read it. A
        transfer that breaks off is taken up again where it ended, over a link
        of its own if need be; *within* bounds the waits for all links
        together. *on_progress* gets the bytes here so far, and how many there
        will be or None; the client's timeout counts seconds without progress.
        A target that exists is refused before any call, unless *overwrite*,
        and so is what is no file.

        Raises what `export` raises, and `DownloadError`: also for links that
        do not lead to a public host by https, and for more than 4 GiB.
        """
        return await self._save_package(
            ref,
            target,
            every=lambda: every,
            within=within,
            on_progress=on_progress,
            overwrite=overwrite,
            turn=nullcontext(),
        )

    async def _save_package(
        self,
        ref: Ref,
        target: str | os.PathLike[str],
        *,
        every: Callable[[], float],
        within: float,
        from_first_answer: bool = False,
        on_poll: Callable[[Package], object] | None = None,
        on_progress: Callable[[int, int | None], object] | None,
        overwrite: bool,
        turn: AbstractAsyncContextManager[object],
    ) -> SavedPackage:
        from ._download import save_package

        _checks.seconds("within", within)
        left = within

        async def ask() -> Package:
            nonlocal left
            counts_from = None if from_first_answer else anyio.current_time()

            def answered(package: Package) -> None:
                nonlocal counts_from
                counts_from = anyio.current_time() if counts_from is None else counts_from
                if on_poll is not None:
                    on_poll(package)

            try:
                package = await self._await_package(
                    ref, every, max(left, MOMENT), answered, from_first_answer=from_first_answer
                )
            except ExportTimeoutError as error:
                cause = error.__cause__
                raise ExportTimeoutError(error.collection_hash, within, error.problem) from cause
            if counts_from is not None:
                left -= anyio.current_time() - counts_from
            return package

        return await save_package(
            ask,
            self._follow,
            _actions.hash_of(ref),
            target,
            overwrite=overwrite,
            on_progress=on_progress,
            turn=turn,
        )

    async def _await_package(
        self,
        ref: Ref,
        every: Callable[[], float],
        within: float,
        on_poll: Callable[[Package], object] | None = None,
        *,
        from_first_answer: bool = False,
    ) -> Package:
        action = _actions.collection_download_html(ref)
        return await await_package(
            lambda: self._call(action, lane="poll"),
            action.params["collectionHash"],
            every=every,
            within=within,
            from_first_answer=from_first_answer,
            on_poll=on_poll,
        )
