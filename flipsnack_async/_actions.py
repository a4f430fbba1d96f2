"""
What can be asked of the vendor: one pure function for each method of his API.

An `Action` is a call before anything is known of keys, time or network. The
names on the wire are the vendor's, the arguments are ours.
"""

from __future__ import annotations

import enum
import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Mapping,
    Sized,
)
from contextlib import aclosing
from datetime import date, datetime
from types import MappingProxyType
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

import attrs

from .errors import InvalidArgumentError
from .models import Collection, CollectionPage, CollectionStats, Embed, Package, UserStats

T = TypeVar("T")

Value: TypeAlias = str | int | bool | date | None
Day: TypeAlias = date | str


class HasHash(Protocol):
    """Be anything that says which collection it belongs to: a collection, statistics, a package."""

    @property
    def collection_hash(self) -> str: ...


Ref: TypeAlias = str | HasHash


class Document(Protocol):
    """
    Be a file to upload: *size* bytes that can be read more than once.

    *name* is told to the vendor in place of the file's own.
    """

    @property
    def name(self) -> str: ...

    @property
    def media_type(self) -> str: ...

    @property
    def size(self) -> int: ...

    def chunks(self) -> AsyncIterator[bytes]: ...


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
    *known* are fields of the *reply* which the arguments settle, *fallback*
    those which they settle where the answer doesn't. *upload* actions go by
    POST to the vendor's second host, with a *file* or without.
    """

    name: str
    reply: type[T]
    effect: Effect
    params: Mapping[str, str] = attrs.field(factory=dict)
    known: Mapping[str, Any] = attrs.field(factory=dict)
    fallback: Mapping[str, Any] = attrs.field(factory=dict)
    file: Document | None = None

    @property
    def upload(self) -> bool:
        return self.file is not None or self.name in UPLOADS

    @property
    def deletes(self) -> bool:
        return self.name == "collection.deleteCollection"


EFFECTS: Final[Mapping[str, Effect]] = {
    "user.getStats": Effect.READ,
    "collection.getStats": Effect.READ,
    "collection.getList": Effect.READ,
    "collection.getCollection": Effect.READ,
    "collection.getEmbed": Effect.READ,
    "collection.downloadHTML": Effect.CONVERGENT,
    "collection.update": Effect.CONVERGENT,
    "collection.deleteCollection": Effect.CONVERGENT,
    "collection.create": Effect.ONCE,
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
        "collectionStatus": _text("status", status),
        "query": query,
        "orderBy": _text("order_by", order_by),
        "orderMode": _text("order", order),
    }
    return _action("collection.getList", CollectionPage, texts(params) | _texts(named))


def page_from(index: int, first: Action[CollectionPage]) -> Action[CollectionPage]:
    """Describe the page that starts at an index."""
    # Where the vendor starts to count is not known: the beginning is asked for without a number.
    if index < 1:
        return first
    return attrs.evolve(first, params={**first.params, "from": str(index)})


def collection_get(ref: Ref) -> Action[Collection]:
    return _action("collection.getCollection", Collection, _hash_param(ref))


def collection_update(
    ref: Ref,
    *,
    title: str | None = None,
    description: str | None = None,
    width: int | None = None,
    height: int | None = None,
    status: str | None = None,
    params: Mapping[str, Value] | None = None,
) -> Action[Collection]:
    changes = _settings(title, description, width, height, status, params)
    if not changes:
        raise InvalidArgumentError("title", "give this or another setting to change")
    asked = _hash_param(ref)
    action = _action("collection.update", Collection, {**changes, **asked})
    # What the vendor answers is not known; a new hash in it counts more than the one asked for.
    return attrs.evolve(action, fallback={"collection_hash": asked["collectionHash"]})


def collection_delete(ref: Ref) -> Action[None]:
    return _action("collection.deleteCollection", type(None), _hash_param(ref))


def collection_get_embed(
    ref: Ref,
    *,
    width: int | None = None,
    height: int | None = None,
    responsive: bool | None = None,
    start_page: int | None = None,
) -> Action[Embed]:
    params = _hash_param(ref)
    named = {
        "width": _positive("width", width),
        "height": _positive("height", height),
        "responsive": _truth("responsive", responsive),
        "startPage": _positive("start_page", start_page),
    }
    return _action(
        "collection.getEmbed",
        Embed,
        {**_texts(named), **params},
        collection_hash=params["collectionHash"],
    )


def collection_create(
    source: Document | str,
    *,
    title: str | None = None,
    description: str | None = None,
    width: int | None = None,
    height: int | None = None,
    status: str | None = None,
    params: Mapping[str, Value] | None = None,
) -> Action[Collection]:
    """Describe an upload of a document, or of one that the vendor is to fetch from an address."""
    settings = _settings(title, description, width, height, status, params)
    return _with_file(_action("collection.create", Collection, settings), source)


def _with_file(action: Action[T], source: Document | str | None) -> Action[T]:
    if isinstance(source, str):
        return attrs.evolve(action, params={**action.params} | _texts({"fileUrl": source}))
    return attrs.evolve(action, file=source)


def _settings(
    title: str | None,
    description: str | None,
    width: int | None,
    height: int | None,
    status: str | None,
    params: Mapping[str, Value] | None,
) -> dict[str, str]:
    named = {
        "title": title,
        "description": description,
        "collectionWidth": _positive("width", width),
        "collectionHeight": _positive("height", height),
        "collectionStatus": _text("status", status),
    }
    return texts(params) | _texts(named)


def _text(field: str, value: str | None) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise InvalidArgumentError(field, "give text that is not empty, or None")
    return value


def _truth(field: str, value: bool | None) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise InvalidArgumentError(field, "give True, False or None")
    return value


def _positive(field: str, value: int | None) -> int | None:
    if value is not None and (type(value) is not int or value < 1):
        raise InvalidArgumentError(field, "give a whole number above 0")
    return value


def collection_download_html(ref: Ref) -> Action[Package]:
    params = _hash_param(ref)
    return _action(
        "collection.downloadHTML", Package, params, collection_hash=params["collectionHash"]
    )


def any_action(
    name: str,
    params: Mapping[str, Value] | None = None,
    effect: Effect | None = None,
    file: Document | str | None = None,
) -> Action[dict[str, Any]]:
    """Describe a call by the vendor's own names; one that is not known counts as `Effect.ONCE`."""
    if not isinstance(name, str) or not name:
        raise InvalidArgumentError("action", "give the vendor's name of an action")
    _check_text("action", name)
    if effect is not None and not isinstance(effect, Effect):
        raise InvalidArgumentError("effect", "give a member of Effect, or None")
    effect = effect or EFFECTS.get(name, Effect.ONCE)
    action: Action[dict[str, Any]] = Action(name, dict, effect, texts(params))
    return _with_file(action, file)


def hash_of(ref: Ref) -> str:
    """Take the hash out of whatever refers to a collection."""
    collection_hash = ref if isinstance(ref, str) else getattr(ref, "collection_hash", None)
    if not isinstance(collection_hash, str):
        raise InvalidArgumentError("ref", "give a hash, or an object with a collection_hash")
    return collection_hash


def hashes_of(refs: Iterable[Ref] | AsyncIterable[Ref]) -> AsyncGenerator[str]:
    """Take the hashes out of many, and close what they come from."""
    if isinstance(refs, (str, bytes)) or not isinstance(refs, (Iterable, AsyncIterable)):
        remedy = "give hashes or collections in a list, or in another iterable"
        raise InvalidArgumentError("refs", remedy)
    return _hashes_in(refs)


def count_of(refs: Iterable[Ref] | AsyncIterable[Ref]) -> int | None:
    """Say how many different ones there are, where that uses none of them up."""
    if not isinstance(refs, Sized) or not isinstance(refs, Iterable):
        return None
    try:
        return len({getattr(ref, "collection_hash", ref) for ref in refs})
    except TypeError:
        return len(refs)  # one of them is no ref, and will be refused in its turn


async def _hashes_in(refs: Iterable[Ref] | AsyncIterable[Ref]) -> AsyncGenerator[str]:
    if isinstance(refs, AsyncGenerator):
        async with aclosing(refs):
            async for ref in refs:
                yield hash_of(ref)
    elif isinstance(refs, AsyncIterable):
        async for ref in refs:
            yield hash_of(ref)
    else:
        for ref in refs:
            yield hash_of(ref)


def _hash_param(ref: Ref) -> dict[str, str]:
    collection_hash = hash_of(ref)
    _check_text("ref", collection_hash)
    if not collection_hash.strip():
        raise InvalidArgumentError("ref", "is empty; give the flipbook's hash")
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


def texts(params: Mapping[str, Value] | None) -> dict[str, str]:
    """
    Write parameters as the vendor reads them.

    True and False in lower case, whole numbers as plain decimals, days as
    2026-01-31, text as it is; what is None is left out.
    """
    if params is None:
        return {}
    if not isinstance(params, Mapping):
        raise InvalidArgumentError("params", "give a mapping from the vendor's names to values")
    for name in params:
        if not isinstance(name, str) or not name or name in RESERVED:
            raise InvalidArgumentError(f"params[{name!r}]", "this name cannot be set by hand")
        _check_text(f"params[{name!r}]", name)
        if '"' in name or "\\" in name:  # forms quote these, each reader in his own way
            raise InvalidArgumentError(f"params[{name!r}]", "has a quote or backslash in its name")
    return _texts(params)


def _texts(named: Mapping[str, Value]) -> dict[str, str]:
    return {name: _written(name, value) for name, value in named.items() if value is not None}


def _written(name: str, value: Value) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() if -(2**63) <= value < 2**63:
            return format(value, "d")
        case str():
            _check_text(name, value)
            return str.__str__(value)  # plain, where it is a member of a text enum
        case date() if not isinstance(value, datetime):
            return value.isoformat()
    raise InvalidArgumentError(name, "give text, a whole number, a date, True or False")


# Lone surrogates have no UTF-8 form, so what is signed and what is sent could differ.
_UNSENDABLE: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def _check_text(field: str, value: str) -> None:
    if _UNSENDABLE.search(value):
        raise InvalidArgumentError(field, "holds a control character or half a surrogate pair")
