"""Await a collection's HTML package."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from ._polling import poll
from .errors import ExportFailedError, ExportTimeoutError, InvalidAnswerError
from .models import Package


async def await_package(
    ask: Callable[[], Awaitable[Package]],
    collection_hash: str,
    *,
    every: Callable[[], float],
    within: float,
    from_first_answer: bool,
    on_poll: Callable[[Package], object] | None,
) -> Package:
    """Ask until the package is COMPLETE; a status that isn't known counts as unfinished."""
    return await poll(
        ask,
        every=every,
        within=within,
        from_first_answer=from_first_answer,
        on_poll=on_poll,
        is_finished=_is_complete,
        too_late=partial(ExportTimeoutError, collection_hash, within),
    )


def _is_complete(package: Package) -> bool:
    status = package.status.upper()
    if status == "FAILED":
        raise ExportFailedError(package.collection_hash)
    if status == "COMPLETE" and not package.resource_url:
        problem = "is missing from a complete package"
        raise InvalidAnswerError("collection.downloadHTML", problem, field="data.resourceUrl")
    return status == "COMPLETE"
