"""Where links lead: to a package, or a part of it, or what is scripted in its place."""

import anyio
from starlette.requests import Request
from starlette.responses import Response

from ._exports import Exports, Link
from ._faults import FaultScript, Instead
from ._ledger import SandboxDownload
from ._ranges import Part, asked_part
from ._transfers import Mishap, Transfer


class Downloads:
    """Answers whoever follows a link."""

    def __init__(self, exports: Exports, *, ranges: bool, expired_status: int) -> None:
        self._exports = exports
        self._ranges = ranges
        self._expired_status = expired_status
        self.faults = FaultScript[Instead | Mishap]()
        self.noted: list[SandboxDownload] = []

    async def answer(self, request: Request) -> Response:
        link = self._exports.link(request.url.path)
        if link is None:
            return Response(status_code=404)
        now = anyio.current_time()
        if now >= link.expires:
            return self._noted(Response(status_code=self._expired_status), link, now)
        fault = self.faults.take(link.collection.hash)
        if isinstance(fault, Instead):
            return self._noted(fault.response, link, now)
        return self._transfer(request, link, now, fault or Mishap())

    def _noted(self, response: Response, link: Link, now: float) -> Response:
        sent = len(response.body)
        self.noted.append(
            SandboxDownload(now, link.collection.hash, response.status_code, sent=sent)
        )
        return response

    def _transfer(self, request: Request, link: Link, now: float, mishap: Mishap) -> Transfer:
        package = self._exports.package(link.collection)
        part = asked_part(package, request.headers) if self._ranges else Part(range(package.size))
        note = SandboxDownload(now, link.collection.hash, part.status, part.span.start)
        self.noted.append(note)
        return Transfer(package, part, note, mishap, ranges=self._ranges)
