"""Results for programs: one JSON object a line, in the library's own names."""

from __future__ import annotations

import codecs
import json
import re
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import PurePath
from typing import Any, Final

import attrs

from flipsnack_async import FlipsnackError

# JSON escapes the first 32 characters and nothing else. These drive terminals too, turn the
# direction of text, end a line for some readers, or have no UTF-8 form.
_UNSAFE: Final = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def write_line(result: Any, *, indent: int | None = None) -> None:
    """
    Write one of the library's objects to stdout, and send it on its way.

    With an *indent* it is several lines, for people.
    """
    print(line_of(result, sys.stdout.encoding, indent=indent), flush=True)


def line_of(result: Any, encoding: str, *, indent: int | None = None) -> str:
    """Write one of the library's objects for a stream of an *encoding*."""
    # Where that cannot hold every character, escapes still say the same.
    ascii_only = codecs.lookup(encoding).name != "utf-8"
    text = json.dumps(plain(result), ensure_ascii=ascii_only, allow_nan=False, indent=indent)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def plain(value: Any) -> Any:
    """Turn one of the library's objects into what JSON knows, leaving out an empty *extra*."""
    if isinstance(value, FlipsnackError):
        code = getattr(value, "code", None)
        return {"type": type(value).__name__, "code": code, "message": str(value)}
    if attrs.has(type(value)):
        fields = {field.name: getattr(value, field.name) for field in attrs.fields(type(value))}
        return {k: plain(v) for k, v in fields.items() if k != "extra" or v}
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, PurePath):
        return str(value)
    return value
