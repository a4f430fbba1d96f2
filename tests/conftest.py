"""What every test shares: both backends, each on a clock that jumps instead of waiting."""

from __future__ import annotations

from typing import Any

import looptime
import pytest
from trio.testing import MockClock

from flipsnack_async import _core
from flipsnack_async._sharing import Registry

Backend = tuple[str, dict[str, Any]]


def virtual_asyncio() -> looptime.LoopTimeEventLoop:
    return looptime.new_event_loop(start=0)


@pytest.fixture(autouse=True)
def no_memory_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the tokens that clients left behind, since virtual clocks start anew."""
    monkeypatch.setattr(_core, "registry", Registry())


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    """Virtual time: a test that sleeps an hour is done at once. Never meets sockets or threads."""
    if request.param == "trio":
        return "trio", {"clock": MockClock(autojump_threshold=0)}
    return "asyncio", {"loop_factory": virtual_asyncio}
