"""The local Flipsnack: wires its rooms, and is what users touch."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, date, datetime

import anyio
import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ._account import Account
from ._answers import Envelope, done, refused
from ._arrivals import Arrival, read_arrival
from ._checks import carry_out
from ._codes import RefusedError
from ._collections import make_collection
from ._exports import Exports, package_of
from ._faults import FaultScript, foreign, refusal
from ._faults import lost as lost_answer
from ._ledger import SandboxCall, ledger_entry
from ._rates import RateGate, RateLike, WindowKind
from ._server import serve
from ._transport import SandboxTransport


class Sandbox:
    """
    Stand in for Flipsnack, with one account full of made-up collections.

    Offers user.getStats, collection.getStats, collection.getList and
    collection.downloadHTML; all other actions answer 42 for now. Answers come
    from the vendor's documentation. Where that is silent, this was chosen:

    - *rates* are (calls, seconds), or objects with `limit` and `per`. Calls
      count as they arrive, in a *window* that is "sliding" or "fixed"; refused
      ones too if *count_refused*. Scripted refusals never do. Of several rates
      the shortest answers 31, the others 32.
    - Calls are examined in this order: 30 for apiKey, signature and action; 41;
      31, 32; 42; 40; 44; 30 for the rest; 46, 43; 40 for values.
    - All envelopes come with HTTP 200. *stringly* puts numbers as text.
    - A POST answers 40; without *strict* a form counts as much as a query.
    - A parameter given twice, or a value that is no date or number, answers 40.
    - A hash of 7 to 10 lower-case letters and digits that is not here answers
      43, any other text 46.
    - Statistics of a range are the sum of its days, both ends included, from
      the upload (2020 to 2022) to *today* (by default the day in UTC when the
      sandbox was made); a missing date means as far as they go. Pages come
      only with includePageStats=true.
    - getList has the field names seen in public code. It counts `from` from 0,
      takes `to` as the last index and `limit` or `count` as a size (else
      *page_size*), and its collectionCount is of all that match.
    - An export takes *export_seconds* from the first question, every later one
      gets a fresh link, and that answers HTTP 403 after *link_seconds*. A
      failed export is FAILED at once, inside code 20.
    - *latency*, in seconds, is spent before a call is counted and again before
      its answer leaves; a function is asked each time.
    """

    def __init__(
        self,
        *,
        collections: int = 40,
        seed: int = 0,
        rates: Sequence[tuple[int, float] | RateLike] = ((5, 1.0), (60, 60.0)),
        window: WindowKind = "sliding",
        count_refused: bool = False,
        latency: float | Callable[[], float] = 0.0,
        page_size: int = 50,
        export_seconds: float = 20.0,
        link_seconds: float = 60.0,
        strict: bool = True,
        stringly: bool = False,
        today: date | None = None,
    ) -> None:
        last_day = today or datetime.now(UTC).date()
        self._account = Account(
            (make_collection(seed, number, last_day) for number in range(collections)),
            Exports(export_seconds=export_seconds, link_seconds=link_seconds),
            page_size=page_size,
        )
        self._gate = RateGate(rates, window=window, count_refused=count_refused)
        self._faults = FaultScript()
        self._latency = latency
        self._strict = strict
        self._stringly = stringly
        self.ledger: list[SandboxCall] = []
        self.app: Starlette = Starlette(
            routes=[
                Route("/v1", self._call, methods=["GET", "POST"]),
                Route("/v1/", self._call, methods=["GET", "POST"]),
                Route("/packages/{token}/{name}", self._package),
            ]
        )

    def __repr__(self) -> str:
        return f"<Sandbox: {len(self._account.collections)} collections, {len(self.ledger)} calls>"

    @property
    def api_key(self) -> str:
        return self._account.key

    @property
    def api_secret(self) -> str:
        return self._account.secret

    @property
    def hashes(self) -> tuple[str, ...]:
        """Every collection's hash, in listing order."""
        return tuple(self._account.collections)

    def transport(self) -> httpx.AsyncBaseTransport:
        """Return a transport that reaches the sandbox in process, under any host name."""
        return SandboxTransport(self.app)

    def serve(self, port: int = 0) -> AbstractAsyncContextManager[str]:
        """
        Serve on 127.0.0.1 for the length of an `async with` block, which gets the API's URL.

        Port 0 means any free one. Works on asyncio only.
        """
        return serve(self.app, port)

    def remove(self, collection_hash: str) -> None:
        """Delete a collection, whose hash answers 43 from now on."""
        del self._account.collections[collection_hash]

    def fail_export(self, collection_hash: str) -> None:
        """Let the package of a collection be FAILED from now on."""
        self._account.exports.fail(collection_hash)

    def fail(
        self,
        action: str,
        *,
        code: int | None = None,
        message: str | None = None,
        body: bytes | str | None = None,
        http_status: int = 200,
        lost: bool = False,
        times: int | None = 1,
    ) -> None:
        """
        Let the next calls of *action* go wrong, "*" being any action.

        Say one of three: *code* is answered in an envelope, *body* as it is, both
        on arrival and in place of all work and counting; *lost* does the work
        and never answers. Faults strike in the order they were given, each
        *times* times, or for ever if that is `None`.
        """
        if [code is not None, body is not None, lost].count(True) != 1:
            raise ValueError("Say exactly one of code=, body= and lost=True.")
        if code is not None:
            fault = refusal(code, message, http_status=http_status, numbers_as_text=self._stringly)
        elif body is not None:
            fault = foreign(body, http_status=http_status)
        else:
            fault = lost_answer()
        self._faults.add(action, fault, times=times)

    async def _call(self, request: Request) -> Response:
        body = await request.body()
        await self._travel()
        arrival = read_arrival(request, body, anyio.current_time())
        code, response = self._answer(arrival)
        self.ledger.append(ledger_entry(arrival, code))
        await self._travel()
        return response

    async def _travel(self) -> None:
        await anyio.sleep(self._latency() if callable(self._latency) else self._latency)

    def _answer(self, arrival: Arrival) -> tuple[int | None, Response]:
        fault = self._faults.take(arrival.action)
        if fault is None:
            envelope = self._work(arrival)
            return envelope.code, envelope.response(numbers_as_text=self._stringly)
        if fault.does_the_work:
            self._work(arrival)
        return fault.code, fault.response

    def _work(self, arrival: Arrival) -> Envelope:
        try:
            return done(carry_out(arrival, self._account, self._gate, strict=self._strict))
        except RefusedError as error:
            return refused(error.code)

    async def _package(self, request: Request) -> Response:
        link = self._account.exports.link(request.url.path)
        if link is None:
            return Response(status_code=404)
        if anyio.current_time() >= link.expires:
            return Response(status_code=403)
        return Response(package_of(link.collection), media_type="application/zip")
