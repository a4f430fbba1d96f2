"""
Read a list that others change meanwhile, page after page.

How long a page is, from where *from* counts, and whether the count in a page
is of all collections, the vendor doesn't say. So each page is asked for from
the last collection that came: if that one, or another one known, stands at
the page's head, nothing was left out between the two. If not, something
before was removed and the rest has moved up, so the reading goes back until a
page joins on.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from ._actions import Action, page_from
from .errors import InvalidAnswerError
from .models import Collection, CollectionPage

logger = logging.getLogger("flipsnack_async")


# How often the reading may go back, and how far it goes on, without finding anything new.
PATIENCE = 3


class Listing(AsyncIterator[Collection]):
    """
    Yield each collection once.

    One that cannot be read is logged, and its error raised when all others
    have come. No generator, so that leaving it early leaves nothing to close.
    """

    def __init__(
        self,
        ask: Callable[[Action[CollectionPage]], Awaitable[CollectionPage]],
        first: Action[CollectionPage],
    ) -> None:
        self._ask = ask
        self._first = first
        start = first.params.get("from", "")
        self._start = self._index = int(start) if re.fullmatch("[0-9]{1,9}", start) else 0
        self._overlap = 0
        self._step = 0
        self._longest = 0
        self._steps_back = 0
        self._known_to = 0  # an index up to which pages may well bring nothing new
        self._barren = 0  # pages since then that brought nothing
        self._page: CollectionPage | None = None
        self._seen: set[str] = set()
        self._islands: set[str] = set()  # seen on pages that did not join on
        self._ready: deque[Collection] = deque()
        self._more = True
        self._unreadable: InvalidAnswerError | None = None

    @property
    def is_ready(self) -> bool:
        """Say whether the next collection comes without a call."""
        return bool(self._ready)

    @property
    def is_over(self) -> bool:
        """Say whether all pages were read."""
        return not self._more

    async def __anext__(self) -> Collection:
        while not self._ready and self._more:
            is_first = self._index <= self._start
            page = self._first if is_first else page_from(self._index, self._first)
            self._take_in(await self._ask(page))
        if self._ready:
            return self._ready.popleft()
        if self._unreadable is None:
            raise StopAsyncIteration
        error, self._unreadable = self._unreadable, None
        raise error

    def _take_in(self, page: CollectionPage) -> None:
        fresh = {
            c.collection_hash: c for c in page.collections if c.collection_hash not in self._seen
        }
        joins_on = self._joins_on(page)
        self._ready.extend(fresh.values())
        self._seen.update(fresh)
        self._note(page.unreadable)
        end = self._index + _length(page)
        if fresh:
            self._steps_back = self._barren = 0
        elif end > self._known_to:
            self._barren += 1
        if joins_on:
            self._islands.difference_update(c.collection_hash for c in page.collections)
            self._go_on(page, end)
        else:
            self._islands.update(fresh)
            self._known_to = max(self._known_to, end)
            self._go_back()
        self._page = page

    def _joins_on(self, page: CollectionPage) -> bool:
        if not self._overlap or page.unreadable:
            return True
        first = page.collections[0].collection_hash if page.collections else ""
        return first in self._seen and first not in self._islands

    def _go_on(self, page: CollectionPage, end: int) -> None:
        length = _length(page)
        self._more = not (
            length <= self._overlap
            or self._is_counted(page, end)
            or (self._barren and self._repeats(page))
            or self._barren > PATIENCE
        )
        self._overlap = 1 if length > 1 else 0
        self._index = end - self._overlap
        self._step = length

    def _repeats(self, page: CollectionPage) -> bool:
        """Say whether whoever sent the page pays no heed to *from*."""
        has_more = page.count not in (None, _length(page)) and page.count > len(self._seen)
        return page == self._page and not has_more

    def _is_counted(self, page: CollectionPage, end: int) -> bool:
        """Say whether the page's count tells that these were all."""
        length = _length(page)
        if page.count is None or page.count == length:
            return False  # a count that equals this page's length may be the page's own
        # The index may be one too high, from wherever *from* counts, but not on a short page.
        is_full = length >= self._longest
        self._longest = max(self._longest, length)
        return page.count <= min(end - (is_full and self._index > self._start), len(self._seen))

    def _go_back(self) -> None:
        self._steps_back += 1
        self._index = max(self._start, self._index - self._step * self._steps_back)
        self._overlap = 1 if self._index > self._start else 0
        if self._steps_back > PATIENCE:
            self._more = False
            logger.warning("the list changes faster than it can be read; some may be missing")

    def _note(self, unreadable: Sequence[InvalidAnswerError]) -> None:
        if unreadable and self._unreadable is None:
            self._unreadable = unreadable[0]
            logger.warning("left out of the list: %s", self._unreadable)


def _length(page: CollectionPage) -> int:
    return len(page.collections) + len(page.unreadable)
