"""Arguments that every room has: seconds, paths, and functions to call back."""

from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path

from .errors import InvalidArgumentError


def seconds(field: str, value: object, *, may_be_zero: bool = False) -> None:
    """Refuse what is no finite number of seconds above 0, or at least 0."""
    match value:
        case bool():
            pass
        case int() | float() if 0 < value <= sys.float_info.max or (may_be_zero and value == 0):
            return
    least = "at least" if may_be_zero else "above"
    raise InvalidArgumentError(field, f"give a number of seconds {least} 0")


def truth(field: str, value: object) -> None:
    """Refuse what is neither true nor false."""
    if not isinstance(value, bool):
        raise InvalidArgumentError(field, "give True or False")


def path(field: str, value: str | os.PathLike[str]) -> Path:
    """Refuse what no system could have for a path."""
    try:
        found = Path(value)
        if b"\0" not in os.fsencode(found):
            return found
    except (TypeError, UnicodeEncodeError):
        pass
    raise InvalidArgumentError(field, "give a path in text, without NUL or half a surrogate pair")


def function(field: str, value: object) -> None:
    """Refuse what cannot be called, or would have to be awaited."""
    if value is not None and not callable(value):
        raise InvalidArgumentError(field, "give a function, or None")
    if inspect.iscoroutinefunction(value):
        raise InvalidArgumentError(field, "give a plain function; nobody would await this one")
