"""A key, a secret and a link that are like no other text, and eyes for where they turn up."""

from __future__ import annotations

import copy
import gc
import logging
import pickle
import re
import traceback
from base64 import b64encode
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from contextvars import Context
from pathlib import Path
from secrets import token_hex
from types import CodeType, FrameType, FunctionType, ModuleType, TracebackType
from typing import Any, Final
from urllib.parse import quote

import attrs
from rich.traceback import Traceback

# Each holds what an address writes otherwise, so that there are two ways to write it.
KEY: Final = f"canary/key+{token_hex(8)}"
SECRET: Final = f"canary/secret+{token_hex(8)}"
# In a signed link to a package, and in one to a document.
LINK: Final = f"canary/link+{token_hex(8)}"

TESTS: Final = str(Path(__file__).parents[1])
# Whose frames are no library's that a key goes through.
RUNNERS: Final = (TESTS, "/_pytest/", "/pluggy/", "/anyio/pytest_plugin.py")


def _forms(value: str) -> Iterator[str]:
    """Write *value* in all the ways that text is likely to hold it."""
    yield value
    yield quote(value, safe="")
    yield value.encode().hex()
    for ahead in range(3):  # base64 reads differently with one or two bytes in front
        yield b64encode(bytes(ahead) + value.encode()).decode()[4:-4]


def _looking_for(*values: str) -> tuple[set[str], set[bytes]]:
    forms = {form.lower() for value in values for form in _forms(value)}
    return forms, {form.encode(code) for form in forms for code in ("utf-8", "utf-16-be")}


_ALL: Final = _looking_for(KEY, SECRET, LINK)
_SECRETS: Final = _looking_for(KEY, SECRET)
_DIGITS: Final = re.compile("[0-9a-fA-F]{32,}")
# A salt and a fingerprint, as archives keep them, the number of a trace, the boundary of a body.
_NO_SIGNATURE: Final = re.compile(
    "[0-9a-f]{32}:[0-9a-f]{32}|[0-9a-f]{32}-[0-9a-f]{16}|(?:0x|--|boundary=)[0-9a-f]{32}"
)


class Eyes:
    """
    Look for the canaries, and for signatures: those that a server saw, and what looks like one.

    *paths* counts where there was something to look at, *leaks* names where something was seen.
    """

    def __init__(self) -> None:
        self.signatures: set[str] = set()
        self.paths = 0
        self.leaks: list[str] = []

    def look(self, path: str, told: Iterable[str | bytes], *, at_links: bool = True) -> None:
        """Look at all that is told on a *path*, and remember it if something is to be seen."""
        texts: list[str] = []
        data: list[bytes] = []
        for each in told:
            if isinstance(each, str):
                texts.append(each)
            else:
                data.append(each)
        whole = ("\n".join(texts), b"\n".join(data))
        self.paths += any(whole)
        if any(self.sees(text, at_links=at_links) for text in whole):
            self.leaks.append(path)

    def sees(self, text: str | bytes, *, at_links: bool = True) -> bool:
        in_text, in_bytes = _ALL if at_links else _SECRETS
        if isinstance(text, str):
            lower = text.lower()
            return any(form in lower for form in in_text) or self._sees_signature(text)
        lowered = text.lower()
        found = any(form in lowered for form in in_bytes)
        return found or self._sees_signature(text.decode("latin-1"))

    def _sees_signature(self, text: str) -> bool:
        digits: list[str] = _DIGITS.findall(text)
        if not digits:
            return False
        innocent = " ".join(_NO_SIGNATURE.findall(text))
        return any(self._is_signature(run, innocent) for run in digits)

    def _is_signature(self, digits: str, innocent: str) -> bool:
        parts = {digits[at : at + 32].lower() for at in range(len(digits) - 31)}
        is_like_one = len(digits) == 32 and digits not in innocent
        return is_like_one or not parts.isdisjoint(self.signatures)


class Ears(logging.Handler):
    """Hear what every logger of every library says, down to DEBUG."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.heard += [record.getMessage(), repr(vars(record))]
        self.heard += told_by_error(error) if error else ()

    def take(self) -> list[str]:
        heard, self.heard = self.heard, []
        return heard


# --- what things tell


def told_by(thing: object, depth: int = 2) -> Iterator[str]:
    """Write down a thing as an error tracker does, and what it is made of."""
    with suppress(Exception):  # what is half made has no repr
        yield repr(thing)
    for part in _parts(thing) if depth else ():
        yield from told_by(part, depth - 1)


def _parts(thing: object) -> list[object]:
    if isinstance(thing, Mapping):
        return [*thing.keys(), *thing.values()]
    if isinstance(thing, (list, tuple, set, frozenset, deque)):
        return [*thing]
    if isinstance(thing, (type, ModuleType, FunctionType)):
        return []
    return [*getattr(thing, "__dict__", {}).values()]


def told_by_error(error: BaseException) -> Iterator[str]:
    """Write down an error, and all that hangs on to it."""
    for each in _family(error):
        notes = getattr(each, "__notes__", ())
        yield from (str(each), repr(each), repr(each.args), repr(vars(each)), repr(notes))
        yield f"{each:}"


def told_by_copies(thing: object) -> Iterator[str | bytes]:
    """Write down what a thing is pickled to, and its copies."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield pickle.dumps(thing, protocol)
    copies = (copy.copy(thing), copy.deepcopy(thing), pickle.loads(pickle.dumps(thing)))  # noqa: S301
    for twin in copies:
        yield from told_by(twin)


def told_by_fields(thing: object) -> Iterator[str]:
    """Write down the fields of a thing that attrs made."""
    if attrs.has(type(thing)):
        yield repr(attrs.asdict(thing))  # type: ignore[arg-type]


def told_by_traceback(error: BaseException) -> Iterator[str]:
    """Format a traceback with the locals of every frame."""
    seen = traceback.TracebackException.from_exception(error, capture_locals=True)
    yield from seen.format()


def told_by_rich(error: BaseException) -> Iterator[str]:
    """Write down what rich shows in a traceback with locals, shortened as it does and whole."""
    for length in (80, 10_000):
        yield from _told_by_rich(error, length)


def _told_by_rich(error: BaseException, length: int) -> Iterator[str]:
    seen = Traceback.extract(
        type(error),
        error,
        error.__traceback__,
        show_locals=True,
        locals_max_length=1000,
        locals_max_string=length,
    )
    for stack in seen.stacks:
        yield f"{stack.exc_value} {stack.notes}"
        for frame in stack.frames:
            yield from (str(node) for node in (frame.locals or {}).values())


def told_by_frames(error: BaseException) -> Iterator[str]:
    """Write down what an error tracker finds in the frames of a traceback."""
    for each in _family(error):
        yield from told_by_locals(_frames_of(each.__traceback__))


def told_by_locals(frames: Iterable[FrameType]) -> Iterator[str]:
    for frame in frames:
        for value in frame.f_locals.values():
            yield from told_by(value)


def told_by_files(folder: Path) -> Iterator[str | bytes]:
    """Read each file below a folder, and its name."""
    for path in folder.rglob("*"):
        yield str(path.relative_to(folder))
        if path.is_file():
            yield path.read_bytes()


def _family(error: BaseException) -> list[BaseException]:
    """List an error, its causes, its contexts, and the members of groups."""
    family: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    while todo:
        each = todo.pop()
        if each is not None and each not in family:
            family.append(each)
            members = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
            todo += [each.__cause__, each.__context__, *members]
    return family


# --- frames


def _frames_of(trace: TracebackType | None) -> Iterator[FrameType]:
    while trace is not None:
        if not is_runners(trace.tb_frame):
            yield trace.tb_frame
        trace = trace.tb_next


def is_runners(frame: FrameType) -> bool:
    return any(place in frame.f_code.co_filename for place in RUNNERS)


def frames_of_coroutine(coroutine: Any) -> Iterator[FrameType]:
    """Find the frames that a suspended coroutine waits in."""
    while coroutine is not None:
        for kind in ("cr", "gi", "ag"):
            frame = getattr(coroutine, f"{kind}_frame", None)
            if frame is not None and not is_runners(frame):
                yield frame
        awaited = ("cr_await", "gi_yieldfrom", "ag_await")
        inner = (getattr(coroutine, name, None) for name in awaited)
        coroutine = next((one for one in inner if one is not None), None)


# --- what is reachable


def reachable_from(error: BaseException) -> Iterator[str | bytes]:
    """Find every text that the garbage collector would find alive by holding *error*."""
    todo: list[Any] = [error]
    seen: dict[int, Any] = {}
    texts: list[str] = []
    globals_of_modules = {id(vars(module)) for module in _modules()}
    while todo:
        thing = todo.pop()
        if id(thing) in seen or id(thing) in globals_of_modules:
            continue
        seen[id(thing)] = thing
        if type(thing) is str:
            texts.append(thing)
        elif type(thing) in (bytes, bytearray):
            yield bytes(thing)
        else:
            todo += _referents(thing)
    yield "\n".join(texts)


def _modules() -> list[ModuleType]:
    import sys

    return [module for module in sys.modules.values() if isinstance(module, ModuleType)]


# From an event loop, a thread or a log all that runs can be reached, the test itself included.
_ELSEWHERE: Final = ("_pytest", "_thread", "asyncio.unix", "logging", "opentelemetry", "threading")
_SCHEDULERS: Final = ("trio._core", "canary", "cutting")


def _referents(thing: Any) -> list[Any]:
    place = type(thing).__module__ or ""
    if isinstance(thing, (type, ModuleType, CodeType, Context)):
        return []
    if place.startswith(_ELSEWHERE) or place.startswith(_SCHEDULERS):
        return []
    if isinstance(thing, FrameType):
        return [] if is_runners(thing) else [*thing.f_locals.values()]
    if isinstance(thing, FunctionType):
        return [*(thing.__closure__ or ()), *(thing.__defaults__ or ()), *vars(thing).values()]
    for kind in ("cr", "gi", "ag"):
        frame = getattr(thing, f"{kind}_frame", None)
        if isinstance(frame, FrameType):
            return [frame]
    return gc.get_referents(thing)
