"""
One quota for all clients of a key and API host in an event loop.

When the last of them closes, the tokens that are still out are remembered in
monotonic time, and the next event loop of this process starts with them out.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence

import anyio
import attrs
from anyio.lowlevel import EventLoopToken, current_token

from .errors import ConfigurationError
from .quota import Quota, Rate


@attrs.define
class Shared:
    """Hold a quota and the number of clients that use it."""

    quota: Quota
    ahead: float  # of the event loop's clock, the monotonic one is so much
    clients: int = 0
    thread: int = attrs.field(factory=threading.get_ident)


class Registry:
    """Know the quotas in use, by account and event loop, and what is left of others."""

    def __init__(self) -> None:
        self.free()
        self._live: dict[tuple[object, EventLoopToken], Shared] = {}
        self._remembered: dict[object, list[float]] = {}

    def join(self, account: object, rates: Sequence[Rate]) -> Quota:
        """
        Give a client the quota of its account, which it has to `leave`.

        Raises `ConfigurationError` where the account is in use at other rates.
        """
        place = (account, current_token())
        with self._lock:
            shared = self._live.get(place)
            if shared is None:
                self._forget_loops_that_are_over(account)
                shared = Shared(Quota(*rates), time.monotonic() - anyio.current_time())
                ends = self._remembered.pop(account, [])
                shared.quota.recall(end - shared.ahead for end in ends)
            elif shared.quota.rates != tuple(rates):
                raise ConfigurationError(
                    "rates", "another client uses this key at other rates; give both the same"
                )
            # A client may be collected at any point above, be the last one, and leave.
            self._live[place] = shared
            shared.clients += 1
            return shared.quota

    def leave(self, account: object, loop: EventLoopToken) -> None:
        """Note that a client of an event loop has closed, or was forgotten open."""
        with self._lock:
            shared = self._live.get((account, loop))
            if shared is not None:
                shared.clients -= 1
                if not shared.clients:
                    self._remember(account, loop)

    def _forget_loops_that_are_over(self, account: object) -> None:
        # A thread has one event loop at a time, so that those it had before this one are over.
        here = threading.get_ident()
        for place in list(self._live):
            shared = self._live.get(place)
            if shared is not None and place[0] == account and shared.thread == here:
                self._remember(*place)

    def _remember(self, account: object, loop: EventLoopToken) -> None:
        shared = self._live.pop((account, loop))
        # By that loop's clock, as it goes on without the loop.
        is_here = shared.thread == threading.get_ident() and _runs(loop)
        now = anyio.current_time() if is_here else time.monotonic() - shared.ahead
        ends = [end + shared.ahead for end in shared.quota.ends(now)]
        self._remembered.setdefault(account, []).extend(ends)

    def free(self) -> None:
        """Let nobody hold it: no other thread lives on in a forked child to let go of it."""
        # Event loops may run in several threads, and a collected client leaves wherever it is.
        self._lock = threading.RLock()


def _runs(loop: EventLoopToken) -> bool:
    try:
        return loop == current_token()
    except RuntimeError:  # none does
        return False


registry = Registry()
if hasattr(os, "register_at_fork"):  # pragma: no branch  Windows has none
    os.register_at_fork(after_in_child=registry.free)
