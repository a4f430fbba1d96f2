"""The local Flipsnack: wires its rooms, and is what users touch."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, date, datetime
from typing import Any, Literal

import anyio
import httpx
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from ._account import Account
from ._actions import ACTIONS
from ._answers import Envelope, done
from ._arrivals import Arrival, arrival_of, read_form
from ._checks import carry_out
from ._choices import Choices, States
from ._codes import RefusedError
from ._collections import make_collection
from ._deprecated import DEPRECATED_ACTIONS
from ._downloads import Downloads
from ._exports import Exports
from ._faults import ANY, LOST, RESET, TORN, Fault, FaultScript, Instead, refusal
from ._ledger import SandboxCall, SandboxDownload, ledger_entry
from ._numbers import check_at_least, check_http_status
from ._placeholders import ITEM_STATE, LEAD_SAMPLE, STATES
from ._rates import RateGate, RateLike, WindowKind
from ._server import serve
from ._transfers import Mishap
from ._transport import SandboxTransport


class Sandbox:
    """
    Stand in for Flipsnack, with one account full of made-up collections.

    Offers every method of the vendor's current documentation: user.getStats;
    collection.create, getCollection, update, deleteCollection, getEmbed,
    getStats, getList and downloadHTML; zapier.getZapierLeadFormSample. All other
    actions answer 42. With *deprecated* it also offers flipbook.add and delete,
    and collection.setLogo, deleteLogo, setBackgroundImage, deleteBackgroundImage.

    Its key and secret are made up for each, unless given as *credentials*,
    which begin like sandbox-key and sandbox-secret; any other key gets a 41.
    Answers come from the vendor's documentation. Where that is silent, or says
    two things, this was chosen:

    Calls

    - *rates* are (calls, seconds), or objects with `limit` and `per`. Calls
      count as they arrive, in a *window* that is "sliding" or "fixed"; refused
      ones too if *count_refused*. Scripted refusals never do. Of several rates
      the shortest answers 31, the others 32.
    - Calls are examined in this order: 40 for a form that cannot be read, which
      does not count; 30 for apiKey, signature and action; 41; 31, 32; 42; 40;
      44; 30 for the rest; 46, 43; 38; for uploads 33, 36, 34, 45, 35; 40 for
      values. 22 comes only if scripted.
    - All envelopes come with HTTP 200, but for codes that *http_statuses* maps
      to another. *stringly* puts numbers as text.
    - Uploads by GET and all else by POST answer 40; without *strict* a form
      counts as much as a query, but uploads stay POSTs. The vendor's two hosts
      are one here, with and without a slash after /v1.
    - A parameter given twice answers 40, and so does a value that is no date,
      number or collectionStatus where one is due. Parameters that are unknown
      are signed like all others, under their names as sent, and then ignored.
    - A form with more than 256 KiB beside its file cannot be read.
    - A hash of 7 to 10 lower-case letters and digits that is not here answers
      *unknown_hash_code* (43 or 46), any other text 46.

    Uploads

    - user.getStats counts *uploads_left* down for every collection.create that
      succeeds, whatever its conversion comes to; flipbook.add is free. At 0,
      create answers *quota_code*: 33, or 32 with the message of the vendor's
      page on limits. No month ever ends.
    - A file may have *max_file_size* bytes (500 million: a MB is taken to be
      10**6) and *max_pages* pages, and be a PDF, JPG or PNG, or with *pdf_only*
      a PDF. Its type is judged by its first bytes, and its pages are counted
      where the PDF names them uncompressed, with 1 as the least.
    - Any part with a file name is a file; two answer 36, and the one that counts
      is named file. Nothing of it is kept but what the ledger shows.
    - What fileUrl points to is made up, for the sandbox asks no other host: 8
      pages, if it is an absolute http or https URL, else 40.
    - A new collection is public unless told otherwise, has the title of its PDF
      or "Document N", is the first in the list, and has readers from *today* on.
    - Conversion takes *convert_seconds*; until then update and downloadHTML
      answer 38. The package of a failed one is FAILED.

    Collections

    - getCollection, create and update answer alike. The names thumb, items,
      itemHash and, in an item, *state_field* are made up, and its values, for
      processing, complete and failed, are *states*. Links to pictures and
      players lead nowhere.
    - A collection that update makes public or unlisted, having been editable,
      gets a new hash; the old one leads to it as well, if *keep_old_hashes*.
    - Statistics of a range are the sum of its days, both ends included, from
      the upload (2020 to 2022) to *today* (by default the day in UTC when the
      sandbox was made); a missing date means as far as they go. Pages come
      only with includePageStats=true, likes and shares (for a user, only
      shares) only with *legacy_counters*.
    - getList has the field names seen in public code. It counts `from` from 0,
      takes `to` as the last index and `limit` or `count` as a size (else
      *page_size*), and its collectionCount is of all that match. It sorts by
      orderBy=name, else lists the newest upload first.
    - getEmbed answers an iframe as public pages have it, of the collection's
      size, with startPage and startBook in its address if given. That is always
      https, whatever the parameter says.
    - The lead sample is *lead_sample*, by default three made-up fields.
    - flipbook.delete answers 37 for the last item of a collection, and 43 for an
      item that is not in it. Logos and backgrounds must be JPG or PNG, and
      change nothing that an answer shows.

    Packages

    - An export takes *export_seconds* from the first question, a function being
      asked once for each, and every later question gets a fresh link. A failed
      export is FAILED at once, inside code 20.
    - A link answers HTTP *expired_status* after *link_seconds*, but what began
      before goes on. A path that was never a link answers 404.
    - A package is a zip file of *package_size* bytes with eight pages of noise
      (larger if they need more), or by default a small page of HTML. It is made
      as it is sent, and the same while the collection's hash and title are.
    - Downloads have an ETag. With *ranges* they answer a range that has a start:
      206, or 416 beyond the end, or the whole if If-Range names another ETag.
      Other ranges are ignored, and without *ranges* all.

    *latency*, in seconds, is spent before a call is counted and again before
    its answer leaves; a function is asked each time. Downloads have none.
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
        export_seconds: float | Callable[[], float] = 20.0,
        link_seconds: float = 60.0,
        expired_status: int = 403,
        package_size: int | None = None,
        ranges: bool = True,
        strict: bool = True,
        stringly: bool = False,
        today: date | None = None,
        deprecated: bool = False,
        uploads_left: int = 1000,
        quota_code: Literal[33, 32] = 33,
        max_file_size: int = 500 * 10**6,
        max_pages: int = 1000,
        pdf_only: bool = False,
        convert_seconds: float = 20.0,
        state_field: str = ITEM_STATE,
        states: States = STATES,
        unknown_hash_code: Literal[43, 46] = 43,
        keep_old_hashes: bool = True,
        legacy_counters: bool = False,
        lead_sample: Mapping[str, Any] | None = None,
        http_statuses: Mapping[int, int] | None = None,
        credentials: tuple[str, str] | None = None,
    ) -> None:
        check_at_least(0, link_seconds=link_seconds, package_size=package_size)
        if not callable(export_seconds):
            check_at_least(0, export_seconds=export_seconds)
        check_http_status(expired_status=expired_status)
        last_day = today or datetime.now(UTC).date()
        exports = Exports(
            export_seconds=export_seconds, link_seconds=link_seconds, package_size=package_size
        )
        self._account = Account(
            (make_collection(seed, number, last_day) for number in range(collections)),
            exports,
            Choices(
                page_size=page_size,
                quota_code=quota_code,
                max_file_size=max_file_size,
                max_pages=max_pages,
                pdf_only=pdf_only,
                convert_seconds=convert_seconds,
                state_field=state_field,
                states=states,
                unknown_hash_code=unknown_hash_code,
                keep_old_hashes=keep_old_hashes,
                legacy_counters=legacy_counters,
                lead_sample=LEAD_SAMPLE if lead_sample is None else lead_sample,
            ),
            seed=seed,
            credentials=credentials,
            today=last_day,
            uploads_left=uploads_left,
        )
        self._actions = {**ACTIONS, **DEPRECATED_ACTIONS} if deprecated else ACTIONS
        self._gate = RateGate(rates, window=window, count_refused=count_refused)
        self._faults = FaultScript[Fault]()
        self._downloads = Downloads(exports, ranges=ranges, expired_status=expired_status)
        self._latency = latency
        self._strict = strict
        self._stringly = stringly
        self._http_statuses = dict(http_statuses or {})
        self.ledger: list[SandboxCall] = []
        self.downloads: list[SandboxDownload] = self._downloads.noted
        self.app: Starlette = Starlette(
            routes=[
                Route("/v1", self._call, methods=["GET", "POST"]),
                Route("/v1/", self._call, methods=["GET", "POST"]),
                Route("/packages/{token}/{name}", self._downloads.answer),
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

    @property
    def uploads_left(self) -> int:
        """How many uploads the month still allows. Set it to what a test needs."""
        return self._account.uploads_left

    @uploads_left.setter
    def uploads_left(self, number: int) -> None:
        self._account.uploads_left = number

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
        self._account.remove(self._account.known(collection_hash))

    def fail_export(self, collection_hash: str) -> None:
        """Let the package of a collection be FAILED from now on."""
        self._account.exports.stick(self._account.known(collection_hash), "FAILED")

    def stall_export(self, collection_hash: str) -> None:
        """Let the package of a collection be PROCESSING from now on, for ever."""
        self._account.exports.stick(self._account.known(collection_hash), "PROCESSING")

    def fail_conversion(self, collection_hash: str | None = None) -> None:
        """
        Let the conversion of a collection end as failed, at the time it ends anyway.

        Without a hash, that of the next document uploaded; called twice, of the
        next two.
        """
        if collection_hash is None:
            self._account.conversions_to_fail += 1
            return
        for item in self._account.known(collection_hash).items:
            item.fails = True

    def fail(
        self,
        action: str,
        *,
        code: int | None = None,
        message: str | None = None,
        body: bytes | str | None = None,
        http_status: int | None = None,
        lost: bool = False,
        reset: bool = False,
        torn: bool = False,
        times: int | None = 1,
    ) -> None:
        """
        Let the next calls of *action* go wrong, "*" being any action.

        Say one of five. In place of all work and counting, once the call has
        arrived, *code* is answered in an envelope, *body* is answered as it is,
        and *reset* cuts the connection. *lost* does the work and never answers,
        *torn* does it and breaks its answer off in the middle; the two that cut
        need `transport` or `serve`, and no other server.

        Faults strike in the order they were given, each *times* times, or for
        ever if that is `None`. *http_status* goes with *code* and *body*.
        """
        if [code is not None, body is not None, lost, reset, torn].count(True) != 1:
            raise ValueError("Say exactly one of code=, body=, lost=True, reset=True, torn=True.")
        if code is not None:
            response = self._response(refusal(code, message), http_status)
            self._faults.add(action, Instead(response, code), times=times)
        elif body is not None:
            self._faults.add(action, Instead(Response(body, http_status or 200)), times=times)
        else:
            self._faults.add(action, RESET if reset else LOST if lost else TORN, times=times)

    def fail_download(
        self,
        *,
        collection_hash: str | None = None,
        cut_at: int | None = None,
        status: int | None = None,
        body: bytes | None = None,
        length: int | None = None,
        redirect: str | None = None,
        times: int | None = 1,
    ) -> None:
        """
        Let the next downloads of a package go wrong; without a hash, of any.

        Say one of five. In place of the package, *status* is answered with
        nothing, *body* with 200 as if it were HTML, and *redirect* is an address
        that 302 leads to. *cut_at* resets the connection after so many bytes of
        what is sent; on a socket the last of them may be lost. *length* is the
        Content-Length: with too large a one the connection closes too early,
        and of too small a one no more is sent. The two that cut need `transport`
        or `serve`, and no other server.

        Faults strike links that have not expired, in the order they were given,
        each *times* times, or for ever if that is `None`.
        """
        kinds = [cut_at, status, body, length, redirect]
        if len(kinds) - kinds.count(None) != 1:
            raise ValueError("Say exactly one of cut_at=, status=, body=, length=, redirect=.")
        check_at_least(0, cut_at=cut_at, length=length)
        check_http_status(status=status)
        fault: Instead | Mishap
        if status is not None:
            fault = Instead(Response(status_code=status))
        elif body is not None:
            fault = Instead(Response(body, media_type="text/html"))
        elif redirect is not None:
            fault = Instead(RedirectResponse(redirect, 302))
        else:
            fault = Mishap(cut_at, length)
        target = ANY if collection_hash is None else self._account.known(collection_hash).hash
        self._downloads.faults.add(target, fault, times=times)

    async def _call(self, request: Request) -> Response:
        try:
            form = await read_form(request)
        except ClientDisconnect:
            # What has not arrived is no call, and nobody is left to be answered.
            return Response(status_code=400)
        await self._travel()
        arrival = arrival_of(request, form, anyio.current_time())
        code, response = self._answer(arrival)
        self.ledger.append(ledger_entry(arrival, code))
        await self._travel()
        return response

    async def _travel(self) -> None:
        await anyio.sleep(self._latency() if callable(self._latency) else self._latency)

    def _answer(self, arrival: Arrival) -> tuple[int | None, Response]:
        fault = self._faults.take(arrival.action)
        if isinstance(fault, Instead):
            return fault.code, fault.response
        envelope = self._work(arrival)
        response = self._response(envelope)
        return (envelope.code, response) if fault is None else (None, fault.spoil(response))

    def _work(self, arrival: Arrival) -> Envelope:
        try:
            return done(
                carry_out(arrival, self._account, self._gate, self._actions, strict=self._strict)
            )
        except RefusedError as error:
            return Envelope(error.code, error.message)

    def _response(self, envelope: Envelope, http_status: int | None = None) -> Response:
        return envelope.response(
            numbers_as_text=self._stringly,
            http_status=http_status or self._http_statuses.get(envelope.code, 200),
        )
