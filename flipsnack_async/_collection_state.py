"""
What the answer on a collection tells under names that are not known.

No page that could be read names the state of the conversion or the
thumbnail's address, so both are looked for in what came beyond the known
names: the state in texts that are called a status or a state, the address in
whatever is called a thumb.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

# The least finished first; a word that is not known is taken for unfinished.
RANKS: Final = {"failed": 0, "processing": 1, "complete": 3, "completed": 3}
UNKNOWN: Final = 2
VISIBILITIES: Final = frozenset({"editable", "private", "public", "unlisted"})

# So many values are looked at, the outermost first.
LONGEST_WALK: Final = 10_000


def state_and_thumbnail(status: object, extra: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """
    Find the least finished state, and the thumbnail's address.

    A word that is not known counts if a known one stands in the same place,
    as in another item, or none anywhere: else it is some other thing's. The
    state may also be in the collection's own *status*, which otherwise says
    who may see it.
    """
    texts = _texts(extra)
    words = [
        (place, text)
        for place, _, text in texts
        if place.endswith(("status", "state")) and text.lower() not in VISIBILITIES
    ]
    if isinstance(status, str) and status.lower() in RANKS:
        words.append(("collectionstatus", status))
    places = {place for place, word in words if word.lower() in RANKS}
    states = [word for place, word in words if place in places or not places]
    thumbs = (text for _, in_thumb, text in texts if in_thumb)
    return min(states, key=_rank, default=None), next(thumbs, None)


def _rank(word: str) -> int:
    return RANKS.get(word.lower(), UNKNOWN)


def _texts(extra: Mapping[str, Any]) -> list[tuple[str, bool, str]]:
    """List the texts that are not blank, with their places and whether they are in a thumb."""
    texts = []
    values: list[tuple[str, bool, Any]] = [("", False, extra)]
    for place, in_thumb, value in values:  # to which is added meanwhile
        room = LONGEST_WALK - len(values)
        if isinstance(value, str):
            if value.strip():
                texts.append((place, in_thumb, value))
        elif isinstance(value, list):
            values += [(place, in_thumb, inner) for inner in value[:room]]
        elif isinstance(value, dict):
            for key, inner in islice(value.items(), room):
                key = key.lower()
                values.append((f"{place[-100:]}.{key}", in_thumb or "thumb" in key, inner))
    return texts
