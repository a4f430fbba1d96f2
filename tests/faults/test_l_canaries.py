"""
Every public action crossed with every outcome and every place where text comes out.

Nowhere is the key, the secret, a signature, or a link that needs no key. What
a server puts into the data of an answer is left out: whoever asked gets it.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import inspect
import logging
import random
import re
import ssl
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import anyio
import attrs
import httpx
import pytest
from canary import (
    KEY,
    LINK,
    SECRET,
    Ears,
    Eyes,
    reachable_from,
    told_by,
    told_by_copies,
    told_by_error,
    told_by_fields,
    told_by_files,
    told_by_frames,
    told_by_rich,
    told_by_traceback,
)
from canary_server import (
    DOWNLOADS,
    ECHO_IN_DATA,
    ECHOES,
    FAULTS,
    NAME,
    SILENCE,
    Reply,
    good,
    serve,
)
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import flipsnack_async
from flipsnack_async import (
    Credentials,
    Flipsnack,
    FlipsnackError,
    Quota,
    QuotaTransport,
    Rate,
    SigningTransport,
    UploadOutcomeUnknownError,
    _archive_job,
    unpack_package,
)
from flipsnack_async import _download as download
from flipsnack_async._resources import Collections, User
from flipsnack_async.archive import Archive

pytestmark = pytest.mark.anyio

TINY: Final = b"%PDF-1.7\ntiny\n%%EOF"
DOCUMENT: Final = f"https://example.com/a.pdf?Policy={LINK}"
DAYS: Final = ("2026-01-01", "2026-01-02")
SHORT: Final[dict[str, Any]] = {"every": 0.01, "within": 0.03}
CONTEXT: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
# Where a server repeats what was asked, so that a span has it.
SPANS: Final = re.compile("echo in (location|header|cookie|encoding|a bad)|echo instead of")
# The modules whose public names are what users may use.
MODULES: Final = (
    *("", ".archive", ".errors", ".models", ".quota", ".transport", ".exports", ".harvest"),
)

Act = Callable[[Flipsnack, Path], Awaitable[object]]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Real time: real sockets take part here."""
    return str(request.param)


# The fixtures have other names than their functions: files that share them import those.
@pytest.fixture(name="haste", autouse=True)
def in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guard keys cheaply, and pause nowhere."""
    slow = hashlib.scrypt
    monkeypatch.setattr(hashlib, "scrypt", lambda key, **more: slow(key, **{**more, "n": 2}))
    monkeypatch.setattr(_archive_job, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    monkeypatch.setattr(random, "uniform", lambda low, high: 0.0)


@pytest.fixture(name="ears")
def hear_everything() -> Iterator[Ears]:
    """Let every logger of every library say all it has."""
    listening = Ears()
    names = [None, *logging.root.manager.loggerDict]
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG)
    logging.root.addHandler(listening)
    yield listening
    logging.root.removeHandler(listening)
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def tracing_to(exporter: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


@pytest.fixture(name="spans")
def trace_everything(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Trace what httpx sends, with all headers, by the instrumentation that everybody uses."""
    for side in ("REQUEST", "RESPONSE"):
        name = f"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_{side}"
        monkeypatch.setenv(name, ".*")
    exporter = InMemorySpanExporter()
    HTTPXClientInstrumentor().instrument(tracer_provider=tracing_to(exporter))
    yield exporter
    HTTPXClientInstrumentor().uninstrument()


def told_by_span(span: ReadableSpan) -> Iterator[str]:
    yield f"{span.name} {dict(span.attributes or {})} {span.status.description}"
    for event in span.events:
        yield f"{event.name} {dict(event.attributes or {})}"


# --- actions


async def all_of(run: Any) -> list[Any]:
    async with run as rows:
        return [*[row async for row in rows], rows.progress]


async def listed(flipsnack: Flipsnack, at: Path) -> list[object]:
    return [each async for each in flipsnack.collections.list(query="spring")]


async def created_from_path(flipsnack: Flipsnack, at: Path) -> object:
    (at / "a.pdf").write_bytes(TINY)
    return await flipsnack.collections.create(at / "a.pdf", title="Spring")


async def reconciled(flipsnack: Flipsnack, at: Path) -> object:
    unknown = UploadOutcomeUnknownError(
        "collection.create", "no answer", title="Spring", uploads_left_before=54
    )
    return await flipsnack.collections.reconcile(unknown, settle=0)


async def harvest_kept(flipsnack: Flipsnack, at: Path) -> object:
    async with Archive.open(at / "stats.db") as archive:
        rows = await all_of(archive.harvest(flipsnack, [NAME]))
        return rows, [row async for row in archive.rows()], await archive.contents()


async def series_kept(flipsnack: Flipsnack, at: Path) -> object:
    async with Archive.open(at / "stats.db") as archive:
        rows = await all_of(archive.series(flipsnack, None, *DAYS))
        return rows, [row async for row in archive.series_rows()]


async def sent_by_httpx(flipsnack: Flipsnack, at: Path) -> object:
    signing = SigningTransport(httpx.AsyncHTTPTransport(verify=CONTEXT), Credentials(KEY, SECRET))
    async with httpx.AsyncClient(
        transport=QuotaTransport(signing, Quota()), timeout=flipsnack._options.timeout
    ) as client:
        answer = await client.get(flipsnack._core.api_url, params={"action": "user.getStats"})
        request = answer.request
        return repr(answer), repr(request), vars(request), str(request.url), request.headers


async def posted_by_httpx(flipsnack: Flipsnack, at: Path) -> object:
    signing = SigningTransport(httpx.AsyncHTTPTransport(verify=CONTEXT), Credentials(KEY, SECRET))
    async with httpx.AsyncClient(transport=signing, timeout=flipsnack._options.timeout) as client:
        fields = {"action": "collection.create"}
        answer = await client.post(
            flipsnack._core.api_url,
            files={"file": TINY},
            extensions={"flipsnack_fields": fields},
            headers={"Content-Type": "multipart/form-data; boundary=innocent"},
        )
        return repr(answer), repr(answer.request), str(answer.request.url)


ACTIONS: Final[Mapping[str, Act]] = {
    "User.get_stats": lambda f, at: f.user.get_stats(),
    "Collections.list": listed,
    "Collections.get": lambda f, at: f.collections.get(NAME),
    "Collections.update": lambda f, at: f.collections.update(NAME, title="Spring"),
    "Collections.delete": lambda f, at: f.collections.delete(NAME),
    "Collections.get_embed": lambda f, at: f.collections.get_embed(NAME),
    "Collections.get_stats": lambda f, at: f.collections.get_stats(NAME, pages=True),
    "Collections.create": lambda f, at: f.collections.create(TINY, title="Spring"),
    "Collections.create, path": created_from_path,
    "Collections.create, address": lambda f, at: f.collections.create(DOCUMENT),
    "Collections.reconcile": reconciled,
    "Collections.wait_until_converted": (
        lambda f, at: f.collections.wait_until_converted(NAME, **SHORT)
    ),
    "Collections.download_html": lambda f, at: f.collections.download_html(NAME),
    "Collections.export": lambda f, at: f.collections.export(NAME, **SHORT),
    "Collections.save_package": (
        lambda f, at: f.collections.save_package(NAME, at / "a.zip", **SHORT)
    ),
    "Flipsnack.call": lambda f, at: f.call("flipbook.delete", {"hash": NAME}),
    "Flipsnack.call, file": lambda f, at: f.call("flipbook.add", {"title": "a"}, file=TINY),
    "Flipsnack.harvest": lambda f, at: all_of(f.harvest([NAME])),
    "Flipsnack.harvest, all": lambda f, at: all_of(f.harvest()),
    "Flipsnack.export_many": lambda f, at: all_of(f.export_many([NAME], at / "p", **SHORT)),
    "Archive.harvest": harvest_kept,
    "Archive.series": series_kept,
    "QuotaTransport.handle_async_request": sent_by_httpx,
    "SigningTransport.handle_async_request": posted_by_httpx,
}


async def no_archive(flipsnack: Flipsnack, at: Path) -> None:
    (at / "stats.db").write_bytes(TINY)
    async with Archive.open(at / "stats.db"):
        pass


async def no_address(flipsnack: Flipsnack, at: Path) -> None:
    Flipsnack(KEY, SECRET, api_url="http://example.com/")


async def no_package(flipsnack: Flipsnack, at: Path) -> None:
    (at / "a.zip").write_bytes(TINY)
    await unpack_package(at / "a.zip", at / "unpacked")


# What fails before anything is sent.
AT_HOME: Final[Mapping[str, Act]] = {
    "Collections.get, no hash": lambda f, at: f.collections.get(""),
    "Archive.open": no_archive,
    "Flipsnack.from_env, address": no_address,
    "unpack_package": no_package,
}
# What each of the above uses.
COMMON: Final = {
    *("Flipsnack.with_options", "Flipsnack.aclose", "Flipsnack.quota"),
    *("Archive.rows", "Archive.series_rows", "Archive.contents"),
    *("QuotaTransport.aclose", "SigningTransport.aclose"),
    "KeptSeries.plan",
    *(f"{run}.progress" for run in ("Harvest", "Exports", "KeptHarvest", "KeptSeries")),
}
# What meets no key, or shows none by a test of its own.
KEYLESS: Final = {
    **dict.fromkeys(("Quota", "Permit", "Rate"), "counts calls"),
    "Credentials": "test_l3_credentials_show_nothing_of_themselves",
}


# --- outcomes


@attrs.frozen
class Outcome:
    """What a server says, and what is wrong with the client."""

    reply: Reply = good
    timeout: float = 5.0
    is_closed: bool = False
    is_out_of_quota: bool = False
    is_unreachable: bool = False
    is_cancelled: bool = False


OUTCOMES: Final[Mapping[str, Outcome]] = {
    "good": Outcome(),
    "echo in data": Outcome(ECHO_IN_DATA),
    **{name: Outcome(reply) for name, reply in {**FAULTS, **ECHOES, **DOWNLOADS}.items()},
    "silent": Outcome(lambda asked: SILENCE, timeout=0.05),
    "cancelled": Outcome(lambda asked: SILENCE, is_cancelled=True),
    "closed": Outcome(is_closed=True),
    "no quota": Outcome(is_out_of_quota=True),
    "unreachable": Outcome(is_unreachable=True),
}
# Whatever is split between the backends, these are not: few actions meet them.
ON_BOTH: Final = {"good", "failed", "unfinished", "closed"}
# What a span of the stock instrumentation holds is out of our hands: the text of an error of
# httpx, which quotes what is no HTTP, and headers if all of them are asked for.
QUOTED_IN_SPANS: Final = {name for name in (*ECHOES, *DOWNLOADS) if SPANS.search(name)}
# An archive has all the time in the world.
WAITED_FOR: Final = {"code 22", "code 31", "code 32", "too fast", "no quota"}
# What a server repeats in the data of an answer is for whoever asked.
REPEATED_IN_DATA: Final = {"echo in data", *ECHOES}


def makes_sense(action: str, outcome: str) -> bool:
    if action in AT_HOME:
        return outcome == "good"
    # The text of an error that httpx raises while a body is read is between it and its user.
    if "Transport" in action and outcome == "echo in a torn chunk":
        return False
    if outcome in DOWNLOADS:
        return action in {"Collections.save_package", "Flipsnack.export_many"}
    return not (action.startswith("Archive") and outcome in WAITED_FOR)


@attrs.define
class Crossing:
    """Carry out actions, and look at all that comes of them."""

    eyes: Eyes
    ears: Ears
    spans: InMemorySpanExporter
    capfd: pytest.CaptureFixture[str]
    folder: Path
    turn: int
    kinds: set[type[BaseException]] = attrs.field(factory=set)
    drawn: set[tuple[str, type[BaseException]]] = attrs.field(factory=set)

    async def meet(self, outcome: str, actions: Mapping[str, Act]) -> None:
        """Let each action meet one outcome."""
        expected = OUTCOMES[outcome]
        server = serve(expected.reply, self.eyes)
        try:
            if expected.is_unreachable:
                server.close()
            for number, (action, act) in enumerate(actions.items(), list(OUTCOMES).index(outcome)):
                is_due = number % 2 == self.turn or outcome in ON_BOTH
                if is_due and makes_sense(action, outcome):
                    await self._meet(action, act, outcome, server.url)
        finally:
            server.close()
            gc.collect()  # or many clients' keys are looked for in each line of a log

    async def _meet(self, action: str, act: Act, outcome: str, url: str) -> None:
        name = f"{action} x {outcome}"
        at = self.folder / str(self.eyes.paths)
        at.mkdir()
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            for variable, value in environment(url).items():
                patch.setenv(variable, value)
            result, failures = await _carry_out(act, OUTCOMES[outcome], at)
        look = self.eyes.look
        if result is not None and outcome not in REPEATED_IN_DATA:
            look(f"{name}: result", [repr(result)])
            look(f"{name}: parts of the result", told_by(result, 3), at_links=False)
            look(f"{name}: fields", told_by_fields(result), at_links=False)
            look(f"{name}: copies of the result", told_by_copies(result), at_links=False)
        for error in failures:
            self._look_at(name, error)
        look(f"{name}: logs", self.ears.take())
        look(f"{name}: warnings", [repr(vars(warning)) for warning in warned])
        look(f"{name}: output", self.capfd.readouterr())
        if outcome not in QUOTED_IN_SPANS:
            look(f"{name}: spans", _take(self.spans))
        self.spans.clear()
        if outcome != "echo in data":
            look(f"{name}: files", told_by_files(at))

    def _look_at(self, name: str, error: BaseException) -> None:
        look = self.eyes.look
        self.kinds.add(type(error))
        look(f"{name}: error", told_by_error(error))
        look(f"{name}: traceback", told_by_traceback(error), at_links=False)
        look(f"{name}: frames", told_by_frames(error), at_links=False)
        look(f"{name}: reach", reachable_from(error), at_links=False)
        if isinstance(error, FlipsnackError):
            look(f"{name}: copies", told_by_copies(error))
        drawing = (name.partition(" x ")[2], type(error))
        if drawing not in self.drawn:
            self.drawn.add(drawing)
            look(f"{name}: rich", told_by_rich(error), at_links=False)


def environment(url: str) -> dict[str, str]:
    return {
        "FLIPSNACK_API_KEY": KEY,
        "FLIPSNACK_API_SECRET": SECRET,
        "FLIPSNACK_API_URL": url,
        "FLIPSNACK_UPLOAD_URL": url,
    }


def _take(exporter: InMemorySpanExporter) -> list[str]:
    return [text for span in exporter.get_finished_spans() for text in told_by_span(span)]


async def _carry_out(act: Act, outcome: Outcome, at: Path) -> tuple[object, list[BaseException]]:
    quota = Quota(Rate(1, per=1000.0), reach=None) if outcome.is_out_of_quota else Quota()
    client = Flipsnack.from_env(quota=quota, timeout=outcome.timeout, attempts=1)
    result: object = None
    failures: list[BaseException] = []
    async with client:
        view = client.with_options(max_wait=0)
        if outcome.is_out_of_quota:
            async with quota.permit():
                pass
        if outcome.is_closed:
            await client.aclose()
        with anyio.move_on_after(0.05 if outcome.is_cancelled else 30):
            try:
                result = await act(view, at)
            except (FlipsnackError, httpx.HTTPError) as error:
                failures.append(error)
            except anyio.get_cancelled_exc_class() as error:
                failures.append(error)
                raise
    failures += [row.error for row in _rows_in(result) if row.error is not None]
    return result, failures


def _rows_in(result: object) -> list[Any]:
    results = result if isinstance(result, (list, tuple)) else [result]
    inner = [row for each in results if isinstance(each, list) for row in each]
    return [row for row in [*results, *inner] if hasattr(row, "error")]


@pytest.mark.usefixtures("small_heap")
async def test_l_no_action_shows_a_secret_whatever_comes_of_it(
    ears: Ears,
    spans: InMemorySpanExporter,
    capfd: pytest.CaptureFixture[str],
    path: Path,
    anyio_backend: str,
    record_property: Callable[[str, object], None],
) -> None:
    """
    Key, secret, signatures and links are nowhere, after any action with any outcome.

    Each pair of the two is tried on one backend, and each of the two on both.
    """
    crossing = Crossing(Eyes(), ears, spans, capfd, path.parent, turn=len(anyio_backend) % 2)

    for outcome in OUTCOMES:
        await crossing.meet(outcome, {**ACTIONS, **AT_HOME})

    record_property("paths looked at", crossing.eyes.paths)
    assert [] == crossing.eyes.leaks
    assert len(crossing.eyes.signatures) >= 15  # the same for the same call, for ever
    assert crossing.eyes.paths >= 3000
    never = {kind for kind in public_classes() if issubclass(kind, Exception)} - crossing.kinds
    assert {FlipsnackError} == never  # which is only an ancestor


def public_classes() -> set[type]:
    """Collect every class that users may import."""
    modules = [importlib.import_module(f"flipsnack_async{name}") for name in MODULES]
    found = {getattr(module, name) for module in modules for name in module.__all__}
    return {each for each in found if isinstance(each, type)}


def public_methods(kind: type) -> Iterator[str]:
    """Name the methods and properties of a class, those of its ancestors here included."""
    for ancestor in kind.__mro__:
        if ancestor.__module__.startswith("flipsnack_async"):
            members = inspect.getmembers_static(ancestor, _is_called)
            yield from (f"{kind.__name__}.{name}" for name, _ in members if name[0] != "_")


def _is_called(member: object) -> bool:
    return inspect.isfunction(member) or isinstance(member, (classmethod, property))


async def test_l_no_public_method_is_left_out() -> None:
    """
    A method or function that is new takes part in the crossing, or says why not.
    """
    kinds = {kind for kind in public_classes() if not issubclass(kind, Exception)}
    methods = {name for kind in {*kinds, User, Collections} for name in public_methods(kind)}
    known = {name.partition(",")[0] for name in {**ACTIONS, **AT_HOME}} | COMMON

    assert set() == {name for name in methods - known if name.partition(".")[0] not in KEYLESS}
    assert {"unpack_package"} == known - methods
    functions = {name for name in vars(flipsnack_async)["__all__"] if name.islower()}
    assert {"unpack_package"} == functions
