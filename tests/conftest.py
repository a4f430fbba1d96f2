"""What every test shares: both backends, each on a clock that jumps instead of waiting."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import looptime
import pytest
from trio.testing import MockClock

from flipsnack_async import _blocking, _core
from flipsnack_async._sharing import Registry

T = TypeVar("T")
Backend = tuple[str, dict[str, Any]]


async def on_the_loop(function: Callable[..., T], *args: object) -> T:
    return function(*args)


def virtual_asyncio() -> looptime.LoopTimeEventLoop:
    return looptime.new_event_loop(start=0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have counted."""
    for report in terminalreporter.getreports("passed"):
        for what, number in report.user_properties:
            terminalreporter.write_line(f"{number} {what}: {report.nodeid}")


@pytest.fixture(autouse=True)
def no_memory_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the tokens that clients left behind, since virtual clocks start anew."""
    monkeypatch.setattr(_core, "registry", Registry())


@pytest.fixture
def small_heap() -> Iterator[None]:
    """Let the garbage collector, where it is asked often, look only at what the test makes."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """
    Name an archive where all goes fast.

    Each row is synced, so it lies where the disk is memory, if there is such a
    place. Keys are guarded by a function that takes long by intention.
    """
    slow = hashlib.scrypt
    monkeypatch.setattr(hashlib, "scrypt", lambda key, **more: slow(key, **{**more, "n": 2}))
    memory = Path("/dev/shm")  # noqa: S108
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder, "stats.db")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Virtual time: a test that sleeps an hour is done at once. Never meets sockets or threads."""
    monkeypatch.setattr(_blocking, "off_the_loop", on_the_loop)
    if request.param == "trio":
        return "trio", {"clock": MockClock(autojump_threshold=0)}
    return "asyncio", {"loop_factory": virtual_asyncio}
