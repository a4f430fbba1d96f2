"""Offline packages: they take their time, and their links do not live long."""

import secrets
import zipfile
from html import escape
from io import BytesIO

import attrs

from ._answers import Data
from ._collections import Collection
from ._items import State


@attrs.frozen
class Link:
    """A way to one package, while it lasts."""

    collection: Collection
    expires: float


class Exports:
    """Builds the packages of an account."""

    def __init__(self, *, export_seconds: float, link_seconds: float) -> None:
        self._export_seconds = export_seconds
        self._link_seconds = link_seconds
        self._started: dict[Collection, float] = {}
        self._failed: set[Collection] = set()
        self._links: dict[str, Link] = {}

    def fail(self, collection: Collection) -> None:
        self._failed.add(collection)

    def ask(self, collection: Collection, *, origin: str, now: float) -> Data:
        """Start the export if this is the first question, and say how far it is."""
        if collection in self._failed or collection.is_in(State.FAILED, now):
            return {"status": "FAILED"}
        started = self._started.setdefault(collection, now)
        if now < started + self._export_seconds:
            return {"status": "PROCESSING"}
        return {"status": "COMPLETE", "resourceUrl": origin + self._fresh_path(collection, now)}

    def link(self, path: str) -> Link | None:
        """Find a link by its path, expired or not."""
        return self._links.get(path)

    def _fresh_path(self, collection: Collection, now: float) -> str:
        path = f"/packages/{secrets.token_urlsafe(16)}/{collection.hash}.zip"
        self._links[path] = Link(collection, now + self._link_seconds)
        return path


def package_of(collection: Collection) -> bytes:
    """Make the zip file that a link leads to."""
    title = escape(collection.settings.title)
    page = f"<!doctype html><meta charset=utf-8><title>{title}</title><h1>{title}</h1>\n"
    package = BytesIO()
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED) as archive:
        # A fixed date: the same collection is the same bytes at every download.
        archive.writestr(zipfile.ZipInfo("index.html", (2025, 1, 1, 0, 0, 0)), page)
    return package.getvalue()
