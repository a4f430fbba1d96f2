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


class Registry:
    """Know the quotas in use, by account and event loop, and what is left of others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # event loops may run in several threads
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
                shared = Shared(Quota(*rates), time.monotonic() - anyio.current_time())
                ends = self._remembered.pop(account, [])
                shared.quota.recall(end - shared.ahead for end in ends)
                self._live[place] = shared
            elif shared.quota.rates != tuple(rates):
                raise ConfigurationError(
                    "rates", "another client uses this key at other rates; give both the same"
                )
            shared.clients += 1
            return shared.quota

    def leave(self, account: object) -> None:
        """Note that a client has closed."""
        place = (account, current_token())
        with self._lock:
            shared = self._live.get(place)
            if shared is None:
                return  # closed from another event loop than it was used in
            shared.clients -= 1
            if not shared.clients:
                del self._live[place]
                ends = [end + shared.ahead for end in shared.quota.ends()]
                self._remembered.setdefault(account, []).extend(ends)

    def free(self) -> None:
        """Let nobody hold it: no other thread lives on in a forked child to let go of it."""
        self._lock = threading.Lock()


registry = Registry()
if hasattr(os, "register_at_fork"):  # pragma: no branch  Windows has none
    os.register_at_fork(after_in_child=registry.free)
