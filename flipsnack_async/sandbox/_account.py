"""The one account of a sandbox: its credentials, what it owns, and what it may still upload."""

import re
import secrets
from collections.abc import Iterable, Mapping
from datetime import date
from hashlib import blake2b

from ._choices import Choices
from ._codes import INVALID_HASH, PROCESSING, RefusedError
from ._collections import Collection, Settings, collection_hash, item_hash
from ._documents import Document
from ._exports import Exports
from ._items import Item, State
from ._statistics import Readership

# What tells made-up credentials from real ones, which no sandbox should be given.
KEY = "sandbox-key"
SECRET = "sandbox-secret"  # noqa: S105  the beginning of one

# The shape of every hash in the documentation and in the wild.
_WELL_FORMED_HASH = re.compile("[a-z0-9]{7,10}")


class Account:
    """A key, its secret and the collections they open."""

    def __init__(
        self,
        collections: Iterable[Collection],
        exports: Exports,
        choices: Choices,
        *,
        seed: int,
        credentials: tuple[str, str] | None,
        today: date,
        uploads_left: int,
    ) -> None:
        self.key, self.secret = credentials or (
            f"{KEY}-{secrets.token_hex(8)}",
            f"{SECRET}-{secrets.token_hex(16)}",
        )
        if not (self.key.startswith(KEY) and self.secret.startswith(SECRET)):
            # Not quoted: somebody may have given his own.
            raise ValueError(f"credentials: begin the key with {KEY}, the secret with {SECRET}")
        # In embed codes seen in public, an account is eleven upper-case hex digits.
        self.id = blake2b(f"{seed}/account".encode(), digest_size=6).hexdigest()[:11].upper()
        self.collections = {collection.hash: collection for collection in collections}
        self.exports = exports
        self.choices = choices
        self.uploads_left = uploads_left
        self.conversions_to_fail = 0
        self._seed = seed
        self._today = today
        self._documents = 0
        self._later_hashes: dict[str, str] = {}

    def known(self, name: str) -> Collection:
        """Find a collection by its hash, or by one that it had before, or raise `KeyError`."""
        while name in self._later_hashes:
            name = self._later_hashes[name]
        return self.collections[name]

    def collection(self, name: str) -> Collection:
        """Find a collection, or refuse: 46 to what is no hash at all, 43 to one not here."""
        if not _WELL_FORMED_HASH.fullmatch(name):
            raise RefusedError(INVALID_HASH)
        try:
            return self.known(name)
        except KeyError:
            raise RefusedError(self.choices.unknown_hash_code) from None

    def converted(self, name: str, now: float) -> Collection:
        """Find a collection, or refuse, with 38 while an item of it is converted."""
        collection = self.collection(name)
        if collection.is_in(State.PROCESSING, now):
            raise RefusedError(PROCESSING)
        return collection

    def add(self, document: Document, params: Mapping[str, str], now: float) -> Collection:
        """Make a collection of one document, as *params* want it, in front of all others."""
        title = document.title or f"Document {self._documents + 1}"
        found = Settings(title=title, description=f"The first words of {title}")
        settings = found.changed(params)
        item = self.convert(now)
        collection = Collection(
            hash=collection_hash(f"{self._seed}/{item.hash}"),
            settings=settings,
            readership=Readership(
                source=f"{self._seed}/{item.hash}",
                popularity=1,
                page_count=document.page_count,
                first=self._today,
                last=self._today,
            ),
            items=[item],
        )
        self.collections = {collection.hash: collection, **self.collections}
        return collection

    def convert(self, now: float) -> Item:
        """Start the conversion of the next document."""
        self._documents += 1
        fails = self.conversions_to_fail > 0
        if fails:
            self.conversions_to_fail -= 1
        name = item_hash(f"{self._seed}/document {self._documents}")
        return Item(name, ready=now + self.choices.convert_seconds, fails=fails)

    def publish(self, collection: Collection) -> None:
        """Give a collection its final hash."""
        old, new = collection.hash, collection_hash(f"{self._seed}/{collection.hash}")
        collection.hash = new
        self.collections = {other.hash: other for other in self.collections.values()}
        if self.choices.keep_old_hashes:
            self._later_hashes[old] = new

    def remove(self, collection: Collection) -> None:
        del self.collections[collection.hash]
