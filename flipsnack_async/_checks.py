"""Arguments that every room has: seconds, and functions to call back."""

from __future__ import annotations

import math

from .errors import InvalidArgumentError


def seconds(field: str, value: object, *, may_be_zero: bool = False) -> None:
    """Refuse what is no finite number of seconds above 0, or at least 0."""
    match value:
        case bool():
            pass
        case int() | float() if 0 < value < math.inf or (may_be_zero and value == 0):
            return
    least = "at least" if may_be_zero else "above"
    raise InvalidArgumentError(field, f"give a number of seconds {least} 0")


def function(field: str, value: object) -> None:
    """Refuse what cannot be called."""
    if value is not None and not callable(value):
        raise InvalidArgumentError(field, "give a function, or None")
