"""What the text of a parameter stands for. Text that stands for nothing answers 40."""

import re
from collections.abc import Mapping
from datetime import date

from ._codes import BAD_REQUEST, RefusedError

Params = Mapping[str, str]

_DIGITS = re.compile("[0-9]{1,9}")
_STATUSES = frozenset({"public", "editable", "unlisted"})


def day(params: Params, name: str) -> date | None:
    text = params.get(name)
    if text is None:
        return None
    try:
        value = date.fromisoformat(text)
    except ValueError:
        raise RefusedError(BAD_REQUEST) from None
    # fromisoformat() reads week dates and dates without hyphens as well.
    if value.isoformat() != text:
        raise RefusedError(BAD_REQUEST)
    return value


def number(params: Params, name: str, default: int, *, least: int) -> int:
    text = params.get(name)
    if text is None:
        return default
    if not _DIGITS.fullmatch(text) or int(text) < least:
        raise RefusedError(BAD_REQUEST)
    return int(text)


def status(params: Params, default: str) -> str:
    value = params.get("collectionStatus", default)
    if value not in _STATUSES:
        raise RefusedError(BAD_REQUEST)
    return value
