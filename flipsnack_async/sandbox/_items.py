"""The document inside a collection, and how far its conversion is."""

from enum import IntEnum

import attrs


class State(IntEnum):
    """How far a conversion is."""

    PROCESSING = 0
    COMPLETE = 1
    FAILED = 2


@attrs.define(eq=False)
class Item:
    """A document that is converted at the loop's time *ready*, if it does not fail then."""

    hash: str
    ready: float
    fails: bool = False

    def state(self, now: float) -> State:
        if now < self.ready:
            return State.PROCESSING
        return State.FAILED if self.fails else State.COMPLETE
