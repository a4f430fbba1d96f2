"""Scripted faults: what is answered instead of the truth, and how often."""

import attrs
from starlette.responses import Response

from ._answers import Envelope, NoAnswer
from ._codes import MESSAGES

ANY_ACTION = "*"


@attrs.frozen
class Fault:
    """An answer to put in the place of the right one."""

    response: Response
    code: int | None = None
    does_the_work: bool = False


def refusal(code: int, message: str | None, *, http_status: int, numbers_as_text: bool) -> Fault:
    """Answer an envelope with *code*, whose documented message is taken if none is given."""
    status = MESSAGES.get(code) if message is None else message
    if status is None:
        raise ValueError(f"Code {code} is not documented: say message= as well.")
    envelope = Envelope(code, status)
    return Fault(envelope.response(numbers_as_text=numbers_as_text, http_status=http_status), code)


def foreign(body: bytes | str, *, http_status: int) -> Fault:
    """Answer bytes that are no envelope."""
    return Fault(Response(body, http_status))


def lost() -> Fault:
    """Do the work, and let its answer get lost."""
    return Fault(NoAnswer(), does_the_work=True)


@attrs.define
class _Scripted:
    action: str
    fault: Fault
    times_left: int | None


class FaultScript:
    """Hands out faults in the order in which they were added."""

    def __init__(self) -> None:
        self._scripted: list[_Scripted] = []

    def add(self, action: str, fault: Fault, *, times: int | None) -> None:
        if times is not None and times < 1:
            raise ValueError("A fault strikes at least once: times=1 or more, None for ever.")
        self._scripted.append(_Scripted(action, fault, times))

    def take(self, action: str) -> Fault | None:
        """Return the fault that strikes the next call of *action*, and count it down."""
        for scripted in self._scripted:
            if scripted.action in (ANY_ACTION, action):
                self._count_down(scripted)
                return scripted.fault
        return None

    def _count_down(self, scripted: _Scripted) -> None:
        if scripted.times_left is None:
            return
        scripted.times_left -= 1
        if scripted.times_left == 0:
            # By identity: two faults that read the same are still two.
            self._scripted = [other for other in self._scripted if other is not scripted]
