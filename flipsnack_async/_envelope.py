"""
From the bytes of an answer to an object or an error.

The envelope decides, not the HTTP status: ``{"code": 20, "status": "OK",
"data": {...}}``, where only the code 20 is success. Wire names and leniency
live here; the models know neither. Numbers may come as text; where a count is
meant, what is no whole number is refused rather than rounded.

https://developers.flipsnack.com/getting-started
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from types import MappingProxyType, NoneType
from typing import Any, Final, TypeAlias, TypeVar, get_args, get_origin

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override

from ._collection_state import state_and_thumbnail
from ._strict_json import OddError, read_object
from .errors import FlipsnackError, InvalidAnswerError, refusal
from .models import (
    Collection,
    CollectionPage,
    CollectionStats,
    Embed,
    Package,
    PageStats,
    UserStats,
)

T = TypeVar("T")

logger = logging.getLogger("flipsnack_async")

Clean: TypeAlias = Callable[[str], str]
Wrong: TypeAlias = Callable[..., InvalidAnswerError]

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})

SUCCESS: Final = 20
MOST_UNREADABLE: Final = 1000

WIRE_NAMES: Final[Mapping[type, Mapping[str, str]]] = {
    UserStats: {},
    PageStats: {},
    CollectionStats: {},
    Collection: {
        "collection_hash": "collectionHash",
        "title": "collectionTitle",
        "description": "collectionDescription",
        "status": "collectionStatus",
        "width": "collectionWidth",
        "height": "collectionHeight",
    },
    CollectionPage: {"count": "collectionCount"},
    Embed: {"embed_code": "embedCode"},
    Package: {"resource_url": "resourceUrl"},
}
"""Every model that is read from an answer, and the fields that are called something else there."""

# Fields that no answer fills as it is: the arguments settle them, or they are put together here.
_OURS: Final = frozenset(
    {
        "asked_at",
        "collections",
        "end_date",
        "extra",
        "start_date",
        "state",
        "thumbnail_url",
        "unreadable",
    }
)


def decode(
    body: bytes,
    action: str,
    reply: type[T],
    known: Mapping[str, Any],
    fallback: Mapping[str, Any] = _NOTHING,
    http_status: int = 200,
    clean: Clean = str,
) -> T:
    """
    Read an answer to *action* as a *reply*.

    The *known* fields are filled in whatever came, those of *fallback* where
    nothing came. What the server wrote goes through *clean* before it gets
    into an error. Raises the `APIError` that the envelope names, or
    `InvalidAnswerError`.
    """
    try:
        return _decoded(body, action, reply, known, fallback, http_status, clean)
    except FlipsnackError as error:
        failure = error.with_traceback(None)
    # Raised bare: the frames it came through hold the answer, which may repeat the signed address.
    del body
    raise failure


def _decoded(
    body: bytes,
    action: str,
    reply: type[T],
    known: Mapping[str, Any],
    fallback: Mapping[str, Any],
    http_status: int,
    clean: Clean,
) -> T:
    wrong = partial(InvalidAnswerError, action, http_status=http_status)
    envelope = _envelope(body, wrong, clean)
    code = _code(envelope, wrong)
    if code != SUCCESS:
        raise refusal(code, _printable(envelope.get("status"), clean), action)
    if http_status >= 500:
        raise wrong("claims success")
    if reply is NoneType:
        return reply()
    data = envelope.get("data")
    if data == []:
        # An empty object, as PHP writes it; past the end of a list it is an empty page.
        data = {"collections": []} if reply is CollectionPage else {}
    if data is None and (fallback or reply is dict):
        data = {}
    if reply is dict:
        # Of an undocumented action, whatever it is.
        return data if isinstance(data, dict) else {"data": data}  # type: ignore[return-value]
    if not isinstance(data, dict):
        raise wrong("is missing" if data is None else "is no object", field="data")
    try:
        return _object(data, reply, known, fallback, wrong)
    except InvalidAnswerError as error:
        name = data.get("collectionHash")
        if action != "collection.create" or not isinstance(name, str) or not name:
            raise
        logger.warning("%s", error)
    # Created it was; to lose its hash for another odd field would be worse.
    return reply(name, extra=data)  # type: ignore[call-arg]


def _envelope(body: bytes, wrong: Wrong, clean: Clean) -> dict[str, Any]:
    try:
        return read_object(body)
    except OddError as error:
        odd = error
    raise wrong(odd.reason, field=_printable(odd.field[1:], clean) or None)


def _code(envelope: Mapping[str, Any], wrong: Wrong) -> int:
    code = envelope.get("code")
    if isinstance(code, str) and re.fullmatch("0|[1-9][0-9]{0,8}", code):
        return int(code)
    if type(code) is not int:
        raise wrong("is missing" if code is None else "is no whole number", field="code")
    return code


_SIGNATURE: Final = re.compile("[0-9a-fA-F]{32,}")


def _printable(text: object, clean: Clean) -> str:
    """Make what the server wrote fit for one line of a terminal, and for anybody's eyes."""
    if not isinstance(text, str):
        return ""
    text = _SIGNATURE.sub("<hidden>", clean(text))
    return "".join(c if c.isprintable() else " " for c in text[:200]).strip()


# --- envelope to object


def _object(
    data: dict[str, Any],
    reply: type[T],
    known: Mapping[str, Any],
    fallback: Mapping[str, Any],
    wrong: Wrong,
) -> T:
    for name, value in fallback.items():
        wire = WIRE_NAMES[reply].get(name, name)
        if data.get(wire) in (None, ""):
            data[wire] = value
    if reply is CollectionPage:
        known = {**known, **_collections(data.get("collections"), wrong)}
    try:
        found: T = _readers()[reply](data, known)
    except cattrs.BaseValidationError as error:
        field, reason = _first_fault(error, "data")
    else:
        return found
    raise wrong(reason, field=field)


def _collections(elements: Any, wrong: Wrong) -> dict[str, Any]:
    """Tell the collections of a page that can be read from those that cannot."""
    path = "data.collections"
    if not isinstance(elements, list):
        raise wrong("is missing" if elements is None else "is no list", field=path)
    read = _readers()[Collection]
    readable: list[Collection] = []
    unreadable: list[InvalidAnswerError] = []
    for index, element in enumerate(elements):
        try:
            readable.append(read(element))
        except (cattrs.BaseValidationError, ValueError) as error:
            field, reason = _first_fault(error, f"{path}[{index}]")
            unreadable.append(wrong(reason, field=field))
        if len(unreadable) > MOST_UNREADABLE:
            raise wrong("holds too many that cannot be read", field=path)
    return {"collections": tuple(readable), "unreadable": tuple(unreadable)}


@cache
def _readers() -> dict[type, Callable[..., Any]]:
    converter = cattrs.Converter(detailed_validation=True)
    hooks: dict[Any, Callable[..., Any]] = {int: _whole_number, float: _number, str: _text}
    for kind, hook in hooks.items():
        converter.register_structure_hook(kind, hook)
        # The converter's own way to None looks for the hook again with each value.
        converter.register_structure_hook(kind | None, _or_none(hook))
    converter.register_structure_hook_func(_is_tuple, partial(_list, converter))
    return {model: _reader(model, converter) for model in WIRE_NAMES}


def _reader(model: type, converter: cattrs.Converter) -> Callable[..., Any]:
    """Make a function from an object on the wire, and fields that are known, to a *model*."""
    names = {f.name: WIRE_NAMES[model].get(f.name, f.name) for f in attrs.fields(model)}
    overrides: dict[str, Any] = {
        name: override(rename=wire, struct_hook=_HOOKS.get(name)) for name, wire in names.items()
    }
    structure: Callable[..., Any] = make_dict_structure_fn(model, converter, **overrides)
    wire_names = frozenset(names.values()) - _OURS

    def read(data: Any, known: Mapping[str, Any] = _NOTHING) -> Any:
        if not isinstance(data, dict):
            raise ValueError("is no object")
        fields = {names[name]: value for name, value in known.items() if name in names}
        extra = {k: v for k, v in data.items() if k not in wire_names or k in fields}
        fields["extra"] = extra
        if not _OURS.isdisjoint(data):
            data = {k: v for k, v in data.items() if k not in _OURS}
        if model is Collection:
            status = data.get("collectionStatus")
            fields["state"], fields["thumbnail_url"] = state_and_thumbnail(status, extra)
        return structure({**data, **fields}, model)

    converter.register_structure_hook(model, lambda data, _: read(data))
    return read


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _or_none(hook: Callable[..., Any]) -> Callable[..., Any]:
    return lambda value, kind: None if value is None else hook(value, kind)


def _as_it_is(value: Any, _: type) -> Any:
    return value


def _list(converter: cattrs.Converter, value: Any, kind: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ValueError("is no list")
    element = get_args(kind)[0]
    read = []
    for index, inner in enumerate(value):
        try:
            read.append(converter.structure(inner, element))
        except (cattrs.BaseValidationError, ValueError) as error:
            # The converter's own way gathers an error for each of however many elements.
            error.add_note(cattrs.IterableValidationNote("", index, element))
            raise cattrs.IterableValidationError("", [error], kind) from None
    return tuple(read)


def _whole_number(value: Any, _: type) -> int:
    as_text = isinstance(value, str) and re.fullmatch("-?[0-9]{1,19}", value)
    as_float = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    if as_text or as_float:
        value = int(value)
    if type(value) is not int:
        raise ValueError("is no whole number")
    if not -(2**63) <= value < 2**63:
        raise ValueError("is beyond 64 bits")
    return value


def _number(value: Any, kind: type) -> float:
    if isinstance(value, float):
        return value
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}\.[0-9]{1,19}", value):
        return float(value)
    try:
        return _whole_number(value, kind)
    except ValueError as error:
        raise ValueError(str(error).replace("whole ", "")) from None


def _text(value: Any, _: type) -> str:
    if not isinstance(value, str):
        raise ValueError("is no text")
    return value


def _name(value: Any, kind: type) -> str:
    text = _text(value, kind)
    if not text:
        raise ValueError("is empty")
    return text


_HOOKS: Final = {**dict.fromkeys(_OURS, _as_it_is), "collection_hash": _name}


def _first_fault(error: BaseException, path: str) -> tuple[str, str]:
    if not isinstance(error, cattrs.BaseValidationError):
        if isinstance(error, KeyError):
            return path, "is missing"
        return path, str(error) if type(error) is ValueError else "is of the wrong type"
    inner = error.exceptions[0]
    steps = (_step(error.cl, note) for note in getattr(inner, "__notes__", ()))
    return _first_fault(inner, path + "".join(steps))


def _step(model: type, note: object) -> str:
    if isinstance(note, cattrs.AttributeValidationNote):
        return f".{WIRE_NAMES[model].get(note.name, note.name)}"
    return f"[{note.index}]" if isinstance(note, cattrs.IterableValidationNote) else ""
