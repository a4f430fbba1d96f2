"""
When it is no use to send: what a client has learned from the answers to all its callers.

In maintenance one call at a time goes out to find out whether that is over,
and the others wait for its answer. After wrong credentials, three times in a
row, nothing goes out any more: a key that is misused may be shut off. What was
under way by then can't be called back.
"""

from __future__ import annotations

import random
from typing import Final

import anyio

from .errors import APIError, AuthenticationError, MaintenanceError

FIRST_PAUSE: Final = 30.0
LONGEST_PAUSE: Final = 300.0
REJECTIONS: Final = 3


class Gate:
    """Stand between the quota and the sending of one client's calls."""

    def __init__(self) -> None:
        self._rejections = 0
        self._closed_by: APIError | None = None
        self._closed_at = 0.0
        self._probes = 0
        self._next_probe = 0.0
        self._reopened: anyio.Event | None = None

    def check(self) -> None:
        """Raise what the vendor said last, where he would only say it again."""
        refusal = self._closed_by
        if refusal is None:
            return
        if isinstance(refusal, MaintenanceError) and self.seconds_to_probe() <= 0:
            self._pause()  # and this call is the probe
            return
        raise type(refusal)(*refusal.args)

    def seconds_to_probe(self) -> float:
        """Say when a call may find out whether the maintenance is over."""
        return max(0.0, self._next_probe - anyio.current_time())

    async def wait(self, seconds: float) -> None:
        """Wait so long, or until the maintenance is over."""
        if self._reopened is not None:
            with anyio.move_on_after(seconds):
                await self._reopened.wait()

    def learn(self, refusal: APIError | None, sent_at: float) -> None:
        """
        Take note of the vendor's answer to a call, which may be that he did as he was told.

        An answer to a call that was sent before the maintenance began says
        nothing of its end. Nothing opens again what wrong credentials closed.
        """
        if isinstance(self._closed_by, AuthenticationError):
            return
        if isinstance(refusal, MaintenanceError):
            if self._closed_by is None:
                self._closed_by, self._probes = refusal, 0
                self._closed_at = anyio.current_time()
                self._reopened = anyio.Event()
                self._pause()
            return
        if isinstance(self._closed_by, MaintenanceError) and sent_at < self._closed_at:
            return
        self._rejections = self._rejections + 1 if isinstance(refusal, AuthenticationError) else 0
        self._closed_by = refusal if self._rejections >= REJECTIONS else None
        if self._reopened is not None:
            self._reopened.set()

    def _pause(self) -> None:
        self._probes += 1
        upper = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._probes)
        pause = max(FIRST_PAUSE, random.uniform(upper / 2, upper))  # noqa: S311 no secret
        self._next_probe = anyio.current_time() + pause
