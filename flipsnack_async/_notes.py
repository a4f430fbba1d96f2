"""What answers told, and later calls need."""

from __future__ import annotations

from typing import Any

import attrs

from ._actions import Action
from .errors import CollectionUnavailableError, FlipsnackError, UploadOutcomeUnknownError
from .models import Collection, UserStats


@attrs.define
class Notes:
    """
    Hold what a client has learned about the account.

    *uploads_left* is the last count, *uploaded* the hashes of what was
    created here, *moved* the new hashes of what was published, by the old.
    """

    uploads_left: int | None = None
    uploaded: set[str] = attrs.field(factory=set)
    moved: dict[str, str] = attrs.field(factory=dict)

    def take(self, action: Action[Any], reply: Any) -> None:
        """Note what a *reply* tells."""
        if isinstance(reply, UserStats):
            self.uploads_left = reply.api_uploads_left
        elif action.name == "collection.create":
            self._created(reply)
        elif isinstance(reply, Collection):
            asked = action.params["collectionHash"]
            if reply.collection_hash != asked:
                self.moved[asked] = reply.collection_hash

    def add_to(self, error: FlipsnackError, action: Action[Any]) -> None:
        """Tell an *error* what is known beyond it."""
        if isinstance(error, UploadOutcomeUnknownError) and action.upload:
            error.uploads_left_before = self.uploads_left
        elif isinstance(error, CollectionUnavailableError):
            error.moved_to = self.moved.get(action.params.get("collectionHash", ""))

    def _created(self, reply: Any) -> None:
        if isinstance(reply, Collection):
            self.uploaded.add(reply.collection_hash)
        else:
            self.uploaded.add(str(reply.get("collectionHash")))
        if self.uploads_left:
            self.uploads_left -= 1
