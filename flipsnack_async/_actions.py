"""
What can be asked of the vendor: one pure function for each method of his API.

An `Action` is a call before anything is known of keys, time or network. The
names on the wire are the vendor's, the arguments are ours.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from datetime import date, datetime
from types import MappingProxyType
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

import attrs

from .errors import InvalidArgumentError
from .models import CollectionPage, CollectionStats, Package, UserStats

T = TypeVar("T")

Value: TypeAlias = str | int | bool
Day: TypeAlias = date | str


class HasHash(Protocol):
    """Be anything that says which collection it belongs to: a collection, statistics, a package."""

    @property
    def collection_hash(self) -> str: ...


Ref: TypeAlias = str | HasHash


class Effect(enum.Enum):
    """What a call does to the account, and so when it may be sent a second time."""

    READ = "read"
    """Changes nothing."""
    CONVERGENT = "convergent"
    """Leaves the same state however often it is carried out."""
    ONCE = "once"
    """Must not be carried out twice."""


@attrs.frozen
class Action(Generic[T]):
    """
    Describe one call.

    *params* are what is signed and sent, as text, in the vendor's names.
    *known* are fields of the *reply* which the arguments settle. *upload*
    actions go by POST to the vendor's second host.
    """

    name: str
    reply: type[T]
    effect: Effect
    params: Mapping[str, str] = attrs.field(factory=dict)
    known: Mapping[str, Any] = attrs.field(factory=dict)
    upload: bool = False


EFFECTS: Final[Mapping[str, Effect]] = {
    "user.getStats": Effect.READ,
    "collection.getStats": Effect.READ,
    "collection.getList": Effect.READ,
    "collection.getCollection": Effect.READ,
    "collection.getEmbed": Effect.READ,
    "collection.downloadHTML": Effect.CONVERGENT,
    "collection.update": Effect.CONVERGENT,
    "collection.deleteCollection": Effect.CONVERGENT,
    "zapier.getZapierLeadFormSample": Effect.READ,
}
UPLOADS: Final = frozenset(
    {"collection.create", "flipbook.add", "collection.setLogo", "collection.setBackgroundImage"}
)


def _action(
    name: str, reply: type[T], params: Mapping[str, str] = MappingProxyType({}), **known: Any
) -> Action[T]:
    return Action(name, reply, EFFECTS[name], params, known)


def user_get_stats() -> Action[UserStats]:
    return _action("user.getStats", UserStats)


def collection_get_stats(
    ref: Ref, *, start_date: Day | None = None, end_date: Day | None = None, pages: bool = False
) -> Action[CollectionStats]:
    params = _hash_param(ref)
    start, end = days(start_date, end_date)
    if start:
        params["startDate"] = start.isoformat()
    if end:
        params["endDate"] = end.isoformat()
    if pages:
        params["includePageStats"] = "true"
    return _action(
        "collection.getStats",
        CollectionStats,
        params,
        collection_hash=params["collectionHash"],
        start_date=start,
        end_date=end,
    )


def collection_get_list(
    *,
    status: str | None = None,
    query: str | None = None,
    order_by: str | None = None,
    order: str | None = None,
    params: Mapping[str, Value] | None = None,
) -> Action[CollectionPage]:
    named = {
        "collectionStatus": status,
        "query": query,
        "orderBy": order_by,
        "orderMode": order,
    }
    given = {name: value for name, value in named.items() if value is not None}
    return _action("collection.getList", CollectionPage, texts({**(params or {}), **given}))


def page_from(received: int, first: Action[CollectionPage]) -> Action[CollectionPage]:
    """Describe the page that comes after so many collections."""
    # Where the vendor starts to count is not known: the beginning is asked for without a number.
    if not received:
        return first
    return attrs.evolve(first, params={**first.params, "from": str(received)})


def collection_download_html(ref: Ref) -> Action[Package]:
    params = _hash_param(ref)
    return _action(
        "collection.downloadHTML", Package, params, collection_hash=params["collectionHash"]
    )


def any_action(
    name: str, params: Mapping[str, Value] | None = None, effect: Effect | None = None
) -> Action[dict[str, Any]]:
    """Describe a call by the vendor's own names; one that is not known counts as `Effect.ONCE`."""
    _check_text("action", name)
    return Action(
        name,
        dict,
        effect or EFFECTS.get(name, Effect.ONCE),
        texts(params or {}),
        upload=name in UPLOADS,
    )


def hash_of(ref: Ref) -> str:
    """Take the hash out of whatever refers to a collection."""
    collection_hash = ref if isinstance(ref, str) else getattr(ref, "collection_hash", None)
    if not isinstance(collection_hash, str):
        raise InvalidArgumentError("ref", "give a hash, or an object with a collection_hash")
    return collection_hash


def _hash_param(ref: Ref) -> dict[str, str]:
    collection_hash = hash_of(ref)
    _check_text("collection_hash", collection_hash)
    if not collection_hash.strip():
        raise InvalidArgumentError("collection_hash", "is empty; give the flipbook's hash")
    return {"collectionHash": str.__str__(collection_hash)}


def days(start_date: Day | None, end_date: Day | None) -> tuple[date | None, date | None]:
    """Read a range of days, either end of which may be open."""
    start, end = _day("start_date", start_date), _day("end_date", end_date)
    if start and end and end < start:
        raise InvalidArgumentError("end_date", f"{end} is before start_date, {start}")
    return start, end


def _day(field: str, value: Day | None) -> date | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass  # a 30th of February: told below, like any other text that is no date
    raise InvalidArgumentError(field, f"{value!r} is no date; write it as YYYY-MM-DD")


# Names that the call path sets itself, and the two that would change the form of every answer.
RESERVED: Final = frozenset({"action", "apiKey", "signature", "format", "callback", "file"})


def texts(params: Mapping[str, Value]) -> dict[str, str]:
    """Write parameters as the vendor reads them: true and false, plain decimals, text as it is."""
    written = {}
    for name, value in params.items():
        if not isinstance(name, str) or not name or name in RESERVED:
            raise InvalidArgumentError(f"params[{name!r}]", "this name cannot be set by hand")
        _check_text(f"params[{name!r}]", name)
        if isinstance(value, bool):
            written[name] = "true" if value else "false"
        elif isinstance(value, int):
            written[name] = format(value, "d")
        elif isinstance(value, str):
            _check_text(name, value)
            written[name] = str.__str__(value)  # plain, where it is a member of a text enum
        else:
            raise InvalidArgumentError(name, "give text, a whole number, True or False")
    return written


# Lone surrogates have no UTF-8 form, so what is signed and what is sent could differ.
_UNSENDABLE: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def _check_text(field: str, value: str) -> None:
    if _UNSENDABLE.search(value):
        raise InvalidArgumentError(field, "holds a control character or half a surrogate pair")
