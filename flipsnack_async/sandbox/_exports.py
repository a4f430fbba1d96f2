"""Offline packages: they take their time, and their links do not live long."""

import secrets
from collections.abc import Callable
from typing import Literal

import attrs

from ._answers import Data
from ._collections import Collection
from ._items import State
from ._packages import Package, make_package


@attrs.frozen
class Link:
    """A way to one package, while it lasts."""

    collection: Collection
    expires: float


class Exports:
    """Builds the packages of an account."""

    def __init__(
        self,
        *,
        export_seconds: float | Callable[[], float],
        link_seconds: float,
        package_size: int | None,
    ) -> None:
        self._export_seconds = export_seconds
        self._link_seconds = link_seconds
        self._package_size = package_size
        self._ready: dict[Collection, float] = {}
        self._stuck: dict[Collection, str] = {}
        self._links: dict[str, Link] = {}

    def stick(self, collection: Collection, status: Literal["FAILED", "PROCESSING"]) -> None:
        """Let the package of a collection never get beyond *status*."""
        self._stuck[collection] = status

    def ask(self, collection: Collection, *, origin: str, now: float) -> Data:
        """Start the export if this is the first question, and say how far it is."""
        if collection.is_in(State.FAILED, now):
            return {"status": "FAILED"}
        if collection in self._stuck:
            return {"status": self._stuck[collection]}
        if collection not in self._ready:
            self._ready[collection] = now + self._duration()
        if now < self._ready[collection]:
            return {"status": "PROCESSING"}
        return {"status": "COMPLETE", "resourceUrl": origin + self._fresh_path(collection, now)}

    def link(self, path: str) -> Link | None:
        """Find a link by its path, expired or not."""
        return self._links.get(path)

    def package(self, collection: Collection) -> Package:
        """Return the zip file that a link leads to."""
        return make_package(collection.hash, collection.settings.title, self._package_size)

    def _duration(self) -> float:
        seconds = self._export_seconds
        return seconds() if callable(seconds) else seconds

    def _fresh_path(self, collection: Collection, now: float) -> str:
        path = f"/packages/{secrets.token_urlsafe(16)}/{collection.hash}.zip"
        self._links[path] = Link(collection, now + self._link_seconds)
        return path
