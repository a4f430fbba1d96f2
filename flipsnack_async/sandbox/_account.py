"""The one account of a sandbox: its credentials and what it owns."""

import re
import secrets
from collections.abc import Iterable

from ._codes import FORBIDDEN, INVALID_HASH, RefusedError
from ._collections import Collection
from ._exports import Exports

# The shape of every hash in the documentation and in the wild.
_WELL_FORMED_HASH = re.compile("[a-z0-9]{7,10}")


class Account:
    """A key, its secret and the collections they open."""

    def __init__(
        self, collections: Iterable[Collection], exports: Exports, *, page_size: int
    ) -> None:
        self.key = f"sandbox-key-{secrets.token_hex(8)}"
        self.secret = f"sandbox-secret-{secrets.token_hex(16)}"
        self.collections = {collection.hash: collection for collection in collections}
        self.exports = exports
        self.page_size = page_size

    def collection(self, collection_hash: str) -> Collection:
        """Find a collection, or refuse: 46 to what is no hash at all, 43 to one not here."""
        if not _WELL_FORMED_HASH.fullmatch(collection_hash):
            raise RefusedError(INVALID_HASH)
        if collection_hash not in self.collections:
            raise RefusedError(FORBIDDEN)
        return self.collections[collection_hash]
