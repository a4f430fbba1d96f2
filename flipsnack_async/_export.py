"""Await a collection's HTML package by asking for it, again and again, politely."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable

import anyio

from .errors import (
    ExportFailedError,
    ExportTimeoutError,
    InvalidAnswerError,
    InvalidArgumentError,
    QuotaWaitError,
)
from .models import Package

JITTER = 0.1
MARGIN = 0.02
# A job that has taken longer than ten times *every* is asked for at a tenth of its age.
PATIENCE = 0.1


async def await_package(
    ask: Callable[[], Awaitable[Package]],
    collection_hash: str,
    *,
    every: float,
    within: float,
    on_poll: Callable[[Package], object] | None,
) -> Package:
    """
    Ask until the package is COMPLETE, at once and then *every* so many seconds.

    The pause is jittered and grows for long jobs; a last question is fitted
    into *within*. A status that isn't known counts as unfinished.
    """
    for name, seconds in (("every", every), ("within", within)):
        if not 0 < seconds < math.inf:
            raise InvalidArgumentError(name, "give a number of seconds above 0")
    began = anyio.current_time()
    with anyio.CancelScope(deadline=began + within):
        while True:
            asked = anyio.current_time()
            try:
                package = await ask()
            except QuotaWaitError as error:
                if asked + error.retry_after < began + within:
                    raise  # for the caller's own sake
                break
            if on_poll is not None:
                on_poll(package)
            if _is_complete(package):
                return package
            now = anyio.current_time()
            pause = max(every, PATIENCE * (now - began))
            pause *= random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 no secret
            # Early enough for the answer to come in time, judging by how long this one took.
            last = began + within - max(2 * (now - asked), MARGIN * min(every, within))
            if last <= now:
                break
            await anyio.sleep(min(pause, last - now))
    raise ExportTimeoutError(collection_hash, within)


def _is_complete(package: Package) -> bool:
    status = package.status.upper()
    if status == "FAILED":
        raise ExportFailedError(package.collection_hash)
    if status == "COMPLETE" and not package.resource_url:
        problem = "is missing from a complete package"
        raise InvalidAnswerError("collection.downloadHTML", problem, field="data.resourceUrl")
    return status == "COMPLETE"
