"""Made-up collections, the same for the same seed, and the ways to list them."""

import re
from base64 import b32encode
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from hashlib import blake2b

import attrs

from ._answers import Data
from ._codes import BAD_REQUEST, RefusedError
from ._statistics import Readership

_OCCASIONS = ("Spring", "Summer", "Autumn", "Winter", "Annual", "Wholesale", "Alpine", "City")
_KINDS = ("catalogue", "price list", "magazine", "brochure", "report", "menu", "guide", "lookbook")

# Not counted back from today: a day's numbers must be the same tomorrow.
_FIRST_UPLOAD = date(2020, 1, 1)
_INDEX = re.compile("[0-9]{1,9}")


@attrs.frozen
class Collection:
    """A collection and its readers."""

    hash: str
    title: str
    description: str
    status: str
    width: int
    height: int
    readership: Readership

    def listed(self) -> Data:
        """Describe the collection in the vendor's names, as collection.getList does."""
        return {
            "collectionHash": self.hash,
            "collectionTitle": self.title,
            "collectionDescription": self.description,
            "collectionStatus": self.status,
            "collectionWidth": self.width,
            "collectionHeight": self.height,
        }

    def mentions(self, phrase: str) -> bool:
        return phrase.casefold() in f"{self.title}\n{self.description}".casefold()


def make_collection(seed: int, number: int, today: date) -> Collection:
    """Invent collection *number* of an account."""
    chance = blake2b(f"{seed}/{number}".encode(), digest_size=16).digest()
    # Base 32 spells lower-case letters and digits, as the vendor's hashes do.
    name = b32encode(chance[:7])[:10].decode().lower()
    occasion, kind = _OCCASIONS[chance[7] % 8], _KINDS[chance[8] % 8]
    return Collection(
        hash=name,
        title=f"{occasion} {kind} {number + 1}",
        description=f"The {occasion.lower()} {kind} from cover to cover",
        status=_status(chance[9]),
        width=650,
        height=385,
        readership=Readership(
            source=f"{seed}/{name}",
            popularity=1 + chance[10] ** 2 // 1600,
            page_count=4 + chance[11] % 21,
            first=_FIRST_UPLOAD + timedelta(days=int.from_bytes(chance[12:14]) % 1000),
            last=today,
        ),
    )


def _status(chance: int) -> str:
    if chance < 16:
        return "editable"
    return "unlisted" if chance < 64 else "public"


def list_page(
    collections: Iterable[Collection], params: Mapping[str, str], *, page_size: int
) -> Data:
    """
    Answer one page of the collections that *params* select.

    *from* counts from 0; *to* is the last index, *limit* and *count* are sizes.
    *collectionCount* counts all selected ones, not the page's.
    """
    selected = _selected(collections, params)
    start = _number(params, "from", 0)
    size = _number(params, "limit", _number(params, "count", page_size))
    stop = _number(params, "to", start + size - 1) + 1
    return {
        "collectionCount": len(selected),
        "collections": [collection.listed() for collection in selected[start:stop]],
    }


def _selected(collections: Iterable[Collection], params: Mapping[str, str]) -> list[Collection]:
    status, phrase = params.get("collectionStatus"), params.get("query", "")
    selected = [
        collection
        for collection in collections
        if status in (None, collection.status) and collection.mentions(phrase)
    ]
    if params.get("orderBy") == "name":
        selected.sort(key=lambda collection: (collection.title.casefold(), collection.hash))
    return selected[::-1] if params.get("orderMode") == "desc" else selected


def _number(params: Mapping[str, str], name: str, default: int) -> int:
    text = params.get(name)
    if text is None:
        return default
    if not _INDEX.fullmatch(text):
        raise RefusedError(BAD_REQUEST)
    return int(text)
