"""Collections: what they hold, what can be set on them, and made-up ones by the number."""

from base64 import b32encode
from collections.abc import Mapping
from datetime import date, timedelta
from hashlib import blake2b
from math import inf

import attrs

from ._answers import Data
from ._items import Item, State
from ._statistics import Readership
from ._values import number, status

_OCCASIONS = ("Spring", "Summer", "Autumn", "Winter", "Annual", "Wholesale", "Alpine", "City")
_KINDS = ("catalogue", "price list", "magazine", "brochure", "report", "menu", "guide", "lookbook")

# Not counted back from today: a day's numbers must be the same tomorrow.
_FIRST_UPLOAD = date(2020, 1, 1)


@attrs.frozen
class Settings:
    """What an owner can set on a collection."""

    title: str
    description: str
    status: str = "public"
    width: int = 650
    height: int = 385

    def changed(self, params: Mapping[str, str]) -> "Settings":
        """Return what *params* make of these settings: those not mentioned stay."""
        return Settings(
            title=params.get("title", self.title),
            description=params.get("description", self.description),
            status=status(params, self.status),
            width=number(params, "collectionWidth", self.width, least=1),
            height=number(params, "collectionHeight", self.height, least=1),
        )


@attrs.define(eq=False)
class Collection:
    """A collection and its readers. It stays itself when its hash changes."""

    hash: str
    settings: Settings
    readership: Readership
    items: list[Item]

    def listed(self) -> Data:
        """Describe the collection in the vendor's names, as collection.getList does."""
        return {
            "collectionHash": self.hash,
            "collectionTitle": self.settings.title,
            "collectionDescription": self.settings.description,
            "collectionStatus": self.settings.status,
            "collectionWidth": self.settings.width,
            "collectionHeight": self.settings.height,
        }

    def mentions(self, phrase: str) -> bool:
        text = f"{self.settings.title}\n{self.settings.description}"
        return phrase.casefold() in text.casefold()

    def is_in(self, state: State, now: float) -> bool:
        """Tell whether any item is in that state."""
        return any(item.state(now) is state for item in self.items)


def make_collection(seed: int, number: int, today: date) -> Collection:
    """Invent collection *number* of an account, long since converted."""
    chance = blake2b(f"{seed}/{number}".encode(), digest_size=16).digest()
    name = _spelled(chance)
    occasion, kind = _OCCASIONS[chance[7] % 8], _KINDS[chance[8] % 8]
    return Collection(
        hash=name,
        settings=Settings(
            title=f"{occasion} {kind} {number + 1}",
            description=f"The {occasion.lower()} {kind} from cover to cover",
            status=_status(chance[9]),
        ),
        readership=Readership(
            source=f"{seed}/{name}",
            popularity=1 + chance[10] ** 2 // 1600,
            page_count=4 + chance[11] % 21,
            first=_FIRST_UPLOAD + timedelta(days=int.from_bytes(chance[12:14]) % 1000),
            last=today,
        ),
        items=[Item(item_hash(f"{seed}/{name}"), ready=-inf)],
    )


def collection_hash(source: str) -> str:
    """Return the hash that *source* always has, in the shape of the vendor's."""
    return _spelled(blake2b(source.encode(), digest_size=7).digest())


def item_hash(source: str) -> str:
    return blake2b(source.encode(), digest_size=16).hexdigest()


def _spelled(chance: bytes) -> str:
    # Base 32 spells lower-case letters and digits, as the vendor's hashes do.
    return b32encode(chance[:7])[:10].decode().lower()


def _status(chance: int) -> str:
    if chance < 16:
        return "editable"
    return "unlisted" if chance < 64 else "public"
