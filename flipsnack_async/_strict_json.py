"""
From bytes to JSON that can be believed.

Python's own reading is lenient where it must not be here: of two codes the
last would win, and NaN, numbers of any length and halves of surrogate pairs
get in, which no database could hold. The one leniency is for trailing commas,
which the vendor's own example has.

A text is read the fast way first. A scan of its bytes tells whether it needs
a closer look, which few do.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import cache, partial
from itertools import accumulate
from typing import Any, Final

DEEPEST: Final = 64


class OddError(Exception):
    """Say what is wrong with an answer, and in which *field* if only that is."""

    def __init__(self, reason: str, field: str = "") -> None:
        super().__init__(reason, field)
        self.reason = reason
        self.field = field


# Writes alike what calls for a closer look: digits, opening brackets, \uD and \ud.
_ALIKE: Final = bytes.maketrans(b"123456789{D", b"000000000[d")
_LONG_NUMBER: Final = b"0" * 19


def read_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object, or raise `OddError`."""
    alike = body.translate(_ALIKE)
    try:
        text = body.decode("utf-8-sig")
        if b"\\ud" in alike:
            text = _without_half_pairs(text)
        if alike.count(b"[") > DEEPEST and _is_too_deep(text):
            raise OddError("the answer is nested too deeply")
        value = _value(text, alike)
    except UnicodeDecodeError:
        reason = "the answer is not UTF-8 text"
    except ValueError:
        reason = _what_else(text)
    else:
        if isinstance(value, dict):
            return value
        reason = "the answer is JSON but no envelope"
    # Raised out here, so that no error of the parser, which holds the whole text, hangs on to it.
    raise OddError(reason)


def _value(text: str, alike: bytes) -> Any:
    if _LONG_NUMBER not in alike:
        try:
            return _parsed(text, _strict)
        except OddError:
            pass  # where it was, the slower reading tells
    value = _parsed(text, _marking)
    odd = _first_odd(value) if isinstance(value, dict) else None
    if odd is not None:
        raise odd
    return value


def _parsed(text: str, decoder: json.JSONDecoder) -> Any:
    try:
        return decoder.decode(text)
    except json.JSONDecodeError:
        return decoder.decode(_without_trailing_commas(text))


def _first_odd(value: Any) -> OddError | None:
    if isinstance(value, OddError):
        return value
    is_list = isinstance(value, list)
    places = enumerate(value) if is_list else value.items() if isinstance(value, dict) else ()
    for place, inner in places:
        if odd := _first_odd(inner):
            step = f"[{place}]" if is_list else f".{place}"
            return OddError(odd.reason, step + odd.field)
    return None


def _what_else(text: str) -> str:
    # The text itself stays out of the error: an error page may repeat the signed address.
    start = text.lstrip()[:1]
    if not start:
        return "the answer is empty"
    if start == "<":
        return "a page came instead of an answer"
    return "the answer is torn or no JSON"


# --- what is not to be believed


def _refuse(reason: str) -> Any:
    raise OddError(reason)


def _object(odd: Callable[[str], Any], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    # The last of two codes would win, and could turn an error into a success.
    if len(found) != len(pairs) and [name for name, _ in pairs].count("code") > 1:
        found["code"] = odd("comes twice")
    return found


def _finite(odd: Callable[[str], Any], text: str) -> Any:
    number = float(text)
    return number if math.isfinite(number) else odd("is no finite number")


def _whole(digits: str) -> Any:
    # The length first: making a number of very many digits takes long, or is refused.
    if len(digits) <= 20 and -(2**63) <= (number := int(digits)) < 2**63:
        return number
    return OddError("is beyond 64 bits")


def _decoder(
    odd: Callable[[str], Any], whole: Callable[[str], Any] | None = None
) -> json.JSONDecoder:
    """Make a decoder that asks *odd* what to put in place of what is not to be believed."""
    finite = partial(_finite, odd)
    return json.JSONDecoder(
        object_pairs_hook=partial(_object, odd),
        parse_float=finite,
        parse_constant=finite,
        parse_int=whole,
    )


_strict: Final = _decoder(_refuse)  # for texts without long numbers
_marking: Final = _decoder(cache(OddError), _whole)  # there can be as many as the text has room for


# --- text to text

# Possessive, so that memory and time grow no faster than the text. What is repeated so must not
# fail half-way: Python before 3.11.5 would go on from there.
_STRING: Final = r'"(?:[^"\\]++|\\.)*+"?'
_STRINGS: Final = re.compile(_STRING, re.DOTALL)

# Strings are passed over whole, and so is a comma with nothing before it: only a trailing one goes.
_TRAILING_COMMA: Final = re.compile(rf"({_STRING}|[\[{{,]\s*,[\s,]*+)|,(?=\s*[}}\]])", re.DOTALL)


def _without_trailing_commas(text: str) -> str:
    return _TRAILING_COMMA.sub(lambda found: found[1] or "", text)


_HIGH: Final = r"\\u[dD][89abAB][0-9a-fA-F]{2}"
_LOW: Final = r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_HALF_PAIR: Final = re.compile(rf"{_HIGH}(?!{_LOW})|(?<!{_HIGH}){_LOW}")


def _without_half_pairs(text: str) -> str:
    # A backslash that stands for itself, written otherwise, makes no escape of what follows it.
    return _HALF_PAIR.sub(r"\\ufffd", text.replace(r"\\", r"\u005c"))


_STEPS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS: Final = bytes(set(range(256)) - _STEPS.keys())


def _is_too_deep(text: str) -> bool:
    brackets = _STRINGS.sub("", text).encode().translate(None, _NO_BRACKETS)
    return any(depth > DEEPEST for depth in accumulate(map(_STEPS.__getitem__, brackets)))
