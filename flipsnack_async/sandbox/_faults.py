"""Scripted faults: what becomes of a call instead of the right answer, and how often."""

from collections.abc import Callable
from typing import Generic, TypeVar

import attrs
from starlette.responses import Response

from ._answers import Envelope
from ._breakdowns import NoAnswer, Reset, Torn
from ._codes import MESSAGES

ANY = "*"

T = TypeVar("T")


@attrs.frozen
class Instead:
    """An answer in the place of all work. *code* is that of its envelope, if it is one."""

    response: Response
    code: int | None = None


@attrs.frozen
class Afterwards:
    """What happens to the right answer after the work is done."""

    spoil: Callable[[Response], Response]


Fault = Instead | Afterwards

RESET = Instead(Reset())
LOST = Afterwards(lambda answer: NoAnswer())
TORN = Afterwards(Torn)


def refusal(code: int, message: str | None) -> Envelope:
    """Return the envelope of *code*, whose documented message is taken if none is given."""
    status = MESSAGES.get(code) if message is None else message
    if status is None:
        raise ValueError(f"Code {code} is not documented: say message= as well.")
    return Envelope(code, status)


@attrs.define
class _Scripted(Generic[T]):
    target: str
    fault: T
    times_left: int | None


class FaultScript(Generic[T]):
    """Hands out faults in the order in which they were added."""

    def __init__(self) -> None:
        self._scripted: list[_Scripted[T]] = []

    def add(self, target: str, fault: T, *, times: int | None) -> None:
        if times is not None and times < 1:
            raise ValueError("A fault strikes at least once: times=1 or more, None for ever.")
        self._scripted.append(_Scripted(target, fault, times))

    def take(self, target: str) -> T | None:
        """Return the fault that next strikes *target*, and count it down."""
        for scripted in self._scripted:
            if scripted.target in (ANY, target):
                self._count_down(scripted)
                return scripted.fault
        return None

    def _count_down(self, scripted: _Scripted[T]) -> None:
        if scripted.times_left is None:
            return
        scripted.times_left -= 1
        if scripted.times_left == 0:
            # By identity: two faults that read the same are still two.
            self._scripted = [other for other in self._scripted if other is not scripted]
