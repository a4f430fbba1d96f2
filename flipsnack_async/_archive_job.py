"""
Carry out a run of an archive: what is left of it, each result written down when it comes.

A kill at any moment loses the calls under way and nothing else. What the run
has spent of the quota is written down with each result, in the wall clock's
time, so that whoever goes on knows which tokens are out.
"""

from __future__ import annotations

import hmac
import random
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Generic, NoReturn, TypeVar

import anyio
import attrs

from . import _blocking
from ._archive_file import ArchiveFile
from ._archive_rows import Kept, Kind, Run, Spent
from ._crew import Crew, StopError
from .errors import (
    APIError,
    ArchiveError,
    AuthenticationError,
    ClientClosedError,
    ConnectionFailedError,
    FlipsnackError,
    InvalidAnswerError,
    InvalidArgumentError,
    NoAnswerError,
)
from .harvest import Account, Listing

T = TypeVar("T")
Row = TypeVar("Row")

BATCH: Final = 500  # hashes read or written at a time
# Seconds before what failed in passing is asked about for the second and for the third time.
PAUSES: Final = (30.0, 300.0)
PASSING: Final = (ConnectionFailedError, NoAnswerError, InvalidAnswerError)
# The clocks of two processes agree so far on when a call ended.
SAME: Final = 0.5


def now() -> datetime:
    """Read the wall clock, which outlives the process."""
    return datetime.now(UTC)


class Job(Generic[Row]):
    """
    Hold a run from its beginning, or from where it was broken off, to its end.

    *on_listed* is called when it is known what there is to do. *find*
    finds out about a collection, by `ask` and `use`, and returns what is to
    be kept and what is to be handed out then; *excuse* makes the latter of an
    error.
    """

    def __init__(
        self,
        file: ArchiveFile,
        account: Account,
        kind: Kind,
        parameters: Mapping[str, Any],
        refs: AsyncGenerator[str] | None,
        *,
        on_listed: Callable[[], Awaitable[None]],
        find: Callable[[str], Awaitable[tuple[Sequence[Kept], Row]]],
        excuse: Callable[[str, FlipsnackError], Row],
        at_once: int,
    ) -> None:
        self.file = file
        self.account = account
        self._kind: Kind = kind
        self._parameters = {**parameters, "refs": "all" if refs is None else "given"}
        self._refs = refs
        self._on_listed = on_listed
        self._find = find
        self._excuse = excuse
        self._at_once = at_once
        self._crew = Crew(
            self._carry_out, _no_excuse, self._hashes(), at_once=at_once, ahead=0, total=None
        )
        self._calls_before = 0
        self._failures: dict[str, int] = {}  # in passing, by collection
        self._put_off: deque[tuple[float, str]] = deque()  # those who come again, and from when on
        self._under_way = 0  # collections
        self._news = anyio.Event()  # that one less is under way
        self._troubled = set[str]()  # collections that failed since any was answered
        self._one_at_a_time = anyio.Lock()
        self.total = self.settled = self.failed = 0
        self.is_listed = False
        self._listing_over = anyio.Event()
        self._listing_over.set()
        self._listing_failure: FlipsnackError | None = None

    @asynccontextmanager
    async def working(self) -> AsyncGenerator[None]:
        """Work through what is left, inside the block; raises `ArchiveError` before it begins."""
        if self.file.is_taken:
            raise self._refusal("is at work on something else already", "wait until that is done")
        self.file.is_taken = True
        self._listing_over = anyio.Event()
        try:
            await self._begin()
            try:
                async with self._crew.working():
                    yield
            finally:
                with anyio.CancelScope(shield=True):
                    await self._leave()
        finally:
            self._listing_over.set()
            self.file.is_taken = False

    async def take(self) -> Row:
        """Take out the next row; raises `StopAsyncIteration` after the last one."""
        return await self._crew.take()

    async def _begin(self) -> None:
        """Find out what there is to do; raises `ArchiveError` where another run is unfinished."""
        runs: list[Run] = await _blocking.off_the_loop(self.file.runs)
        last = runs[-1] if runs else None
        if last is not None and not await self._is_of_key(last):
            # A key that was mistyped at first must not be what the archive is about.
            if not await _blocking.off_the_loop(self.file.forget_all_unanswered):
                raise self._refusal("is about another key", "use that key")
            last = None
        if self._refs is not None:
            await self._gather(self._refs)
        if last is not None and last.is_unfinished:
            await self._take_up(last)
        else:
            await self._start(last)
        if self._refs is not None and self.file.under_way.state == "listing":
            await _blocking.off_the_loop(self.file.list_wanted, now())
        await self._count()

    async def _is_of_key(self, run: Run) -> bool:
        salt, _, _ = run.key_fingerprint.partition(":")
        theirs = await _blocking.off_the_loop(self._fingerprint, bytes.fromhex(salt))
        return hmac.compare_digest(theirs, run.key_fingerprint)

    def _fingerprint(self, salt: bytes) -> str:
        return f"{salt.hex()}:{self.account.key_fingerprint(salt)}"

    async def _start(self, last: Run | None) -> None:
        fingerprint = await _blocking.off_the_loop(self._fingerprint, secrets.token_bytes(16))
        number = 1
        if last is not None:
            self._recall(last.spent)
            number += last.number
        time = now()
        run = Run(
            number, self._kind, self._parameters, fingerprint, "listing", time, time, self._spent()
        )
        await _blocking.off_the_loop(self.file.begin, run)

    async def _take_up(self, run: Run) -> None:
        if run.kind != self._kind:
            raise self._refusal(f"holds an unfinished {run.kind}", "finish that first")
        if run.parameters != self._parameters:
            refs = run.parameters.get("refs")
            which = "all collections" if refs == "all" else "collections that were named"
            theirs = [
                f"{name} {value}"
                for name, value in run.parameters.items()
                if name != "refs" and value
            ]
            raise self._refusal(
                f"holds an unfinished {run.kind} of {which}"
                + (f" with {', '.join(theirs)}" if theirs else ", with no parameters"),
                "finish it in the same way",
            )
        is_listed = run.state == "asking" and self._refs is not None
        if is_listed and not await _blocking.off_the_loop(self.file.wants_the_same, run):
            raise self._refusal(
                f"holds an unfinished {run.kind} of other collections",
                "finish it with the same ones",
            )
        await _blocking.off_the_loop(self.file.check, run)
        self._recall(run.spent)
        self._calls_before = run.spent.calls
        await _blocking.off_the_loop(self.file.take_up, run, self._spent(), now())

    def _refusal(self, problem: str, remedy: str) -> ArchiveError:
        return ArchiveError(str(self.file.path), problem, f"{remedy}, or name another file")

    # --- the quota

    def _spent(self) -> Spent:
        ahead = now().timestamp() - anyio.current_time()
        ends = tuple(end + ahead for end in self.account.token_ends())
        return Spent(self._calls_before + self.account.calls(), ends, self._at_once)

    def _recall(self, spent: Spent) -> None:
        """Take the tokens that the archive's last calls still hold, unless they are out already."""
        # Before anything is written: a kill may come again at once.
        present, ahead = anyio.current_time(), now().timestamp() - anyio.current_time()
        out = self.account.token_ends()
        for end in spent.tokens:
            end -= ahead
            known = next((other for other in out if abs(other - end) < SAME), None)
            if known is None:
                # A time that is long to come is a clock's fault.
                self.account.recall([min(end, present)])
            else:
                out.remove(known)
        self.account.recall([present] * spent.under_way)

    # --- what there is to do

    async def wait_until_listed(self) -> None:
        """Wait until it is known what there is to do; raises why it will never be."""
        await self._listing_over.wait()
        if not self.is_listed:
            raise self._listing_failure or ClientClosedError(
                "what there is to do is known inside the `async with` block only"
            )

    async def _hashes(self) -> AsyncGenerator[str]:
        """Yield the collections that are not settled yet, the stalest first."""
        try:
            if self.file.under_way.state == "listing":
                await self._list()
                await self._count()
            failure = await _blocking.off_the_loop(self.file.listing_failure)
            await self._on_listed()
            self.is_listed = True
        except FlipsnackError as error:
            self._listing_failure = error
            raise
        finally:
            self._listing_over.set()
        after = ("", 0)
        while batch := await _blocking.off_the_loop(self.file.pending, after, BATCH):
            for collection_hash, after in batch:  # noqa: B007 the last one is where to go on
                self._under_way += 1
                yield collection_hash
        while self._put_off or self._under_way:
            if self._put_off:
                due, collection_hash = self._put_off.popleft()
                await anyio.sleep_until(due)
                self._under_way += 1
                yield collection_hash
            else:
                self._news = anyio.Event()
                await self._news.wait()
        if failure is not None:
            raise failure

    async def _list(self) -> None:
        """List the account's collections, from where the listing was broken off."""
        listed = self.total
        if listed:
            listing = self.account.list_from(listed - 1)
            first = await anext(aiter(listing), None)
            # Where another one stands in the place of the last, some may have been passed over.
            if first is None or await self._add([first.collection_hash]):
                listed = 0
        failure = await self._list_on(listing if listed else self.account.list_from(0))
        await _blocking.off_the_loop(self.file.listed, now(), failure)

    async def _list_on(self, listing: Listing) -> InvalidAnswerError | None:
        """Go on with a listing; returns what is wrong with those that cannot be read."""
        page = []
        try:
            async for collection in listing:
                page.append(collection.collection_hash)
                if not listing.is_ready:
                    await self._add(page)
                    page.clear()
        except InvalidAnswerError as error:
            if not listing.is_over:
                raise
            return error
        return None

    async def _add(self, hashes: Iterable[str]) -> int:
        return await _blocking.off_the_loop(self.file.add, list(hashes), self._spent(), now())

    async def _gather(self, refs: AsyncGenerator[str]) -> None:
        """Draw what the caller wants to its end; nothing is asked before."""
        batch: list[str] = []
        await _blocking.off_the_loop(self.file.want_nothing)
        async with aclosing(refs):
            async for collection_hash in refs:
                batch.append(_storable(collection_hash))
                if len(batch) == BATCH:
                    await _blocking.off_the_loop(self.file.want, batch)
                    batch.clear()
        await _blocking.off_the_loop(self.file.want, batch)

    async def _count(self) -> None:
        counts = await _blocking.off_the_loop(self.file.counts, self.file.under_way)
        self.total = sum(counts.values())
        self.settled = self.total - counts.get("pending", 0)
        self.failed = counts.get("failed", 0) + counts.get("gone", 0)

    # --- doing it

    async def _carry_out(self, collection_hash: str) -> Row | None:
        try:
            return await self._settle(collection_hash)
        finally:
            self._under_way -= 1
            self._news.set()

    async def _settle(self, collection_hash: str) -> Row | None:
        result: Sequence[Kept] | FlipsnackError
        try:
            result, row = await self._find(collection_hash)
        except AuthenticationError:
            raise  # which ends the run, and says nothing of the collection
        except FlipsnackError as error:
            result = error.with_traceback(None)
            if isinstance(error, PASSING) and await self._comes_again(collection_hash, result):
                return None
            row = self._excuse(collection_hash, result)
        await self.use(self.file.settle, collection_hash, result, self._spent(), now())
        self.settled += 1
        self.failed += isinstance(result, FlipsnackError)
        return row

    async def ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """Carry out a call; the run ends when the client is closed."""
        try:
            answer = await call()
        except ClientClosedError as error:
            raise StopError(error) from None
        except APIError:
            self._troubled.clear()
            raise
        self._troubled.clear()
        return answer

    async def _comes_again(self, collection_hash: str, failure: FlipsnackError) -> bool:
        """Put off a collection until all others are through, unless it failed too often."""
        self._troubled.add(collection_hash)
        failures = self._failures[collection_hash] = self._failures.get(collection_hash, 0) + 1
        await self.use(self.file.note, self._spent(), now())
        last = await self.use(self.file.answered_last)
        is_one_of_many = len(self._troubled) >= max(2, self._at_once)
        if is_one_of_many or (last and failures > len(PAUSES)):
            await self._sit_out(last or collection_hash, failure)
        if failures > len(PAUSES):
            return False
        due = anyio.current_time() + _about(PAUSES[failures - 1])
        self._put_off.append((due, collection_hash))
        return True

    async def _sit_out(self, known: str, failure: FlipsnackError) -> None:
        """Wait until a collection that is *known* to be there is answered, or end the run."""
        async with self._one_at_a_time:
            for pause in (0.0, *PAUSES):
                await anyio.sleep(_about(pause))
                if not self._troubled:
                    return
                try:
                    await self.ask(partial(self.account.get_stats, known))
                except PASSING as error:
                    failure = error.with_traceback(None)
                except AuthenticationError:
                    raise
                except APIError:
                    return  # it has no statistics any more, but an answer
                else:
                    return
            raise StopError(failure)

    async def keep(self, kept: Kept) -> None:
        """Write down an answer, when there will be more on the same collection."""
        await self.use(self.file.keep, kept, self._spent(), now())

    async def use(self, function: Callable[..., T], *args: Any) -> T:
        """Use the file; the run ends where that is not possible."""
        try:
            return await _blocking.off_the_loop(function, *args)
        except ArchiveError as error:
            raise StopError(error) from None

    async def _leave(self) -> None:
        """Write down what the run has cost, now that no call is under way any more."""
        spent = attrs.evolve(self._spent(), under_way=0)
        await _blocking.off_the_loop(self.file.note, spent, now())


def _about(seconds: float) -> float:
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311 no secret


def _no_excuse(collection_hash: str, error: FlipsnackError) -> NoReturn:
    raise AssertionError from error  # pragma: no cover  each failure has a row already


def _storable(collection_hash: str) -> str:
    try:
        collection_hash.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError("refs", "a hash holds half a surrogate pair") from None
    return collection_hash
