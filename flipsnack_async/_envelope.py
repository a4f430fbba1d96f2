"""
From the bytes of an answer to an object or an error.

The envelope decides, not the HTTP status: ``{"code": 20, "status": "OK",
"data": {...}}``, where only the code 20 is success. Wire names and leniency
live here; the models know neither. Numbers may come as text; where a count is
meant, what is no whole number is refused rather than rounded.

https://developers.flipsnack.com/getting-started
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Final, TypeVar

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override

from .errors import InvalidAnswerError, refusal
from .models import Collection, CollectionPage, CollectionStats, Package, PageStats, UserStats

T = TypeVar("T")

SUCCESS: Final = 20

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
    Package: {"resource_url": "resourceUrl"},
}
"""Every model that is read from an answer, and the fields that the vendor calls something else."""

# Fields that no answer fills: the arguments settle them, or they hold what is left over.
_OURS: Final = frozenset({"asked_at", "end_date", "extra", "start_date"})


def decode(
    body: bytes, action: str, reply: type[T], known: Mapping[str, Any], http_status: int = 200
) -> T:
    """
    Read an answer to *action* as a *reply*, with the *known* fields filled in.

    Raises the `APIError` that the envelope names, or `InvalidAnswerError`.
    """
    envelope = _envelope(body, action, http_status)
    code = _code(envelope, action, http_status)
    if code != SUCCESS:
        raise refusal(code, _printable(envelope.get("status")), action)
    if http_status >= 500:
        raise InvalidAnswerError(action, "claims success", http_status=http_status)
    data = envelope.get("data")
    if data == []:
        # An empty object, as PHP writes it; past the end of a list it is an empty page.
        data = {"collections": []} if reply is CollectionPage else {}
    if reply is dict and data is None:
        data = {}  # deletion, for one, answers without data
    if not isinstance(data, dict):
        problem = "is missing" if data is None else "is no object"
        raise InvalidAnswerError(action, problem, field="data", http_status=http_status)
    if reply is dict:
        return data  # type: ignore[return-value]  # T is dict here
    try:
        return _converter().structure({**data, _KNOWN: known}, reply)
    except cattrs.BaseValidationError as error:
        field, reason = _first_fault(error, "data")
    raise InvalidAnswerError(action, reason, field=field, http_status=http_status)


# --- bytes to envelope


class _UnbelievableError(ValueError):
    """Say that JSON is well-formed and yet not to be believed."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    # The last of two codes would win, and could turn an error into a success.
    if len(found) != len(pairs) and [name for name, _ in pairs].count("code") > 1:
        raise _UnbelievableError("holds two codes")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _UnbelievableError(f"{text} is no finite number")
    return number


_strict: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_finite, parse_constant=_finite
)

# Strings are passed over whole, and so is a comma with nothing before it: only a trailing one goes.
_TRAILING_COMMA: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{,]\s*,|,(?=\s*[}\]])')


def _without_trailing_commas(text: str) -> str:
    return _TRAILING_COMMA.sub(lambda found: "" if found[0] == "," else found[0], text)


def _envelope(body: bytes, action: str, http_status: int) -> dict[str, Any]:
    field = None
    try:
        text = body.decode("utf-8-sig")
        try:
            envelope = _strict.decode(text)
        except json.JSONDecodeError:
            # The vendor's own example of a package has a trailing comma.
            envelope = _strict.decode(_without_trailing_commas(text))
        if isinstance(envelope, dict):
            return envelope
        reason = "the answer is JSON but no envelope"
    except UnicodeDecodeError:
        reason = "the answer is not UTF-8 text"
    except _UnbelievableError as error:
        reason, field = str(error), _path_of_odd_number(text)
    except RecursionError:
        reason = "the answer is nested too deeply"
    except ValueError:
        reason = _what_else(text)
    # Raised out here, so that no error of the parser, which holds the whole text, hangs on to it.
    raise InvalidAnswerError(action, reason, field=field, http_status=http_status)


def _what_else(text: str) -> str:
    # The text itself stays out of the error: an error page may repeat the signed address.
    start = text.lstrip()[:1]
    if not start:
        return "the answer is empty"
    if start == "<":
        return "a page came instead of an answer"
    return "the answer is torn or no JSON"


def _path_of_odd_number(text: str) -> str | None:
    def walk(value: Any, path: str) -> Iterator[str]:
        if isinstance(value, float) and not math.isfinite(value):
            yield path
        elif isinstance(value, dict):
            for name, inner in value.items():
                yield from walk(inner, f"{path}.{name}" if path else name)
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                yield from walk(inner, f"{path}[{index}]")

    found = next(walk(json.loads(_without_trailing_commas(text)), ""), None)
    return _printable(found) if found else "code"


def _code(envelope: Mapping[str, Any], action: str, http_status: int) -> int:
    code = envelope.get("code")
    if isinstance(code, str) and re.fullmatch("[0-9]{1,9}", code):
        return int(code)
    if type(code) is not int:
        reason = "is missing" if code is None else "is no whole number"
        raise InvalidAnswerError(action, reason, field="code", http_status=http_status)
    return code


def _printable(text: object) -> str:
    """Make what the server wrote fit for one line of a terminal."""
    if not isinstance(text, str):
        return ""
    return "".join(c if c.isprintable() else " " for c in text[:200]).strip()


# --- envelope to object

# A name that no JSON object can have, to hand the known fields through the converter.
_KNOWN: Final = 0


@cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    converter.register_structure_hook(int, _whole_number)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(str, _text)
    for model in WIRE_NAMES:
        _register(model, converter)
    return converter


def _register(model: type, converter: cattrs.Converter) -> None:
    names = {f.name: WIRE_NAMES[model].get(f.name, f.name) for f in attrs.fields(model)}
    overrides: dict[str, Any] = {
        name: override(rename=wire, struct_hook=_as_it_is if name in _OURS else None)
        for name, wire in names.items()
    }
    structure: Callable[..., Any] = make_dict_structure_fn(model, converter, **overrides)
    wire_names = frozenset(names.values()) - _OURS

    def hook(data: Any, _: type) -> Any:
        if not isinstance(data, dict):
            raise ValueError("is no object")
        known = data.pop(_KNOWN, {})
        extra = {k: v for k, v in data.items() if k not in wire_names or k in known}
        return structure({**data, **known, "extra": extra}, model)

    converter.register_structure_hook(model, hook)


def _as_it_is(value: Any, _: type) -> Any:
    return value


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
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}\.[0-9]{1,19}", value):
        return float(value)
    if isinstance(value, float):
        return value
    try:
        return _whole_number(value, kind)
    except ValueError as error:
        raise ValueError(str(error).replace("whole ", "")) from None


def _text(value: Any, _: type) -> str:
    if not isinstance(value, str):
        raise ValueError("is no text")
    return value


def _first_fault(error: BaseException, path: str) -> tuple[str, str]:
    if not isinstance(error, cattrs.BaseValidationError):
        if isinstance(error, KeyError):
            return path, "is missing"
        return path, str(error) if type(error) is ValueError else "is of the wrong type"
    inner = error.exceptions[0]
    for note in getattr(inner, "__notes__", ()):
        if isinstance(note, cattrs.AttributeValidationNote):
            names = WIRE_NAMES.get(error.cl, {})
            return _first_fault(inner, f"{path}.{names.get(note.name, note.name)}")
        if isinstance(note, cattrs.IterableValidationNote):
            return _first_fault(inner, f"{path}[{note.index}]")
    return _first_fault(inner, path)
