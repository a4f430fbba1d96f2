"""What answers told, and later calls need."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ._actions import Action
from .errors import CollectionUnavailableError, FlipsnackError, UploadOutcomeUnknownError
from .models import Collection, UserStats


class Notes:
    """
    Hold what a client has learned about the account.

    *uploaded* are the hashes of what was created here, *moved* the new hashes
    of what was published, by the old.

    The count of uploads left is a proof only if it is clear what it counts.
    One that was asked for while an upload was under way may hold that one or
    not, and is not noted. An upload of which nobody knows what became of it
    makes the count useless until it is asked for again.
    """

    def __init__(self) -> None:
        self.uploaded: set[str] = set()
        self.moved: dict[str, str] = {}
        self._uploads_left: int | None = None
        self._counted_in = (0, 0)
        self._under_way = 0
        self._uploads = 0  # begun or ended, ever

    def begin(self, action: Action[Any]) -> int:
        """Note that a call begins, and return what `end` has to be told."""
        if action.upload:
            self._under_way += 1
            self._uploads += 1
        return self._uploads

    def end(self, action: Action[Any], began: int, reply: Any, error: BaseException | None) -> None:
        """Note what a call came to, and tell its *error* what is known beyond it."""
        if isinstance(error, UploadOutcomeUnknownError) and action.upload:
            error.uploads_left_before = self._count()
        elif isinstance(error, CollectionUnavailableError):
            error.moved_to = self._newest(action.params.get("collectionHash", ""))
        if action.upload:
            self._under_way -= 1
            self._uploads += 1
            if error is None:
                self._created(action, reply)
            elif isinstance(error, UploadOutcomeUnknownError) or not isinstance(
                error, FlipsnackError
            ):
                self._uploads_left = None  # open, or cancelled; any other error says: not created
        elif isinstance(reply, UserStats) and not self._under_way and began == self._uploads:
            self._uploads_left = reply.api_uploads_left
            self._counted_in = _month()
        elif isinstance(reply, Collection):
            asked = action.params["collectionHash"]
            if reply.collection_hash != asked:
                self.moved[asked] = reply.collection_hash

    def _created(self, action: Action[Any], reply: Any) -> None:
        if action.name == "collection.create":
            is_typed = isinstance(reply, Collection)
            name = reply.collection_hash if is_typed else str(reply.get("collectionHash"))
            self.uploaded.add(name)
            if self._uploads_left:
                self._uploads_left -= 1

    def _count(self) -> int | None:
        return self._uploads_left if self._counted_in == _month() else None

    def _newest(self, name: str) -> str | None:
        newest = self.moved.get(name)
        for _ in self.moved:
            newest = self.moved.get(newest or "", newest)
        return newest


def _month() -> tuple[int, int]:
    now = datetime.now(UTC)
    return now.year, now.month
