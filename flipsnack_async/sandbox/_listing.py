"""The ways to list collections."""

from collections.abc import Iterable, Mapping

from ._answers import Data
from ._collections import Collection
from ._values import number


def list_page(
    collections: Iterable[Collection], params: Mapping[str, str], *, page_size: int
) -> Data:
    """
    Answer one page of the collections that *params* select.

    *from* counts from 0; *to* is the last index, *limit* and *count* are sizes.
    *collectionCount* counts all selected ones, not the page's.
    """
    selected = _selected(collections, params)
    start = number(params, "from", 0, least=0)
    size = number(params, "limit", number(params, "count", page_size, least=0), least=0)
    stop = number(params, "to", start + size - 1, least=0) + 1
    return {
        "collectionCount": len(selected),
        "collections": [collection.listed() for collection in selected[start:stop]],
    }


def _selected(collections: Iterable[Collection], params: Mapping[str, str]) -> list[Collection]:
    status, phrase = params.get("collectionStatus"), params.get("query", "")
    selected = [
        collection
        for collection in collections
        if status in (None, collection.settings.status) and collection.mentions(phrase)
    ]
    if params.get("orderBy") == "name":
        selected.sort(key=lambda listed: (listed.settings.title.casefold(), listed.hash))
    return selected[::-1] if params.get("orderMode") == "desc" else selected
