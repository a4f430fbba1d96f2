"""Fixtures for faults on real sockets; a test module names this file as its plugin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from cutting import Act, CuttingServer
from proxy import BoxBehind, Passage, Proxy, Serve, ServeBehind

from flipsnack_async import _gate as gate
from flipsnack_async._retry import Tries
from flipsnack_async.sandbox import Sandbox


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(Tries, "pause", lambda self, state: 0.0)
    monkeypatch.setattr(gate, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(gate, "LONGEST_PAUSE", 0.0)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve by acts, each connection by the next."""
    servers: list[CuttingServer] = []

    def start(*acts: Act, **options: Any) -> CuttingServer:
        servers.append(CuttingServer(*acts, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def proxied() -> Iterator[ServeBehind]:
    """Put a proxy in front of whatever listens at a URL."""
    proxies: list[Proxy] = []

    def start(url: str, *passages: Passage) -> Proxy:
        proxies.append(Proxy(url, *passages))
        return proxies[-1]

    yield start
    for proxy in proxies:
        proxy.close()


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Sandbox, str]]:
    """Serve a sandbox, in a loop and thread of its own, that all tests of a module share."""
    box = Sandbox(collections=1, rates=())
    with start_blocking_portal("asyncio") as portal:
        with portal.wrap_async_context_manager(box.serve()) as url:
            yield box, url


@pytest.fixture
def box_behind(served: tuple[Sandbox, str], proxied: ServeBehind) -> BoxBehind:
    """Put a proxy in front of a sandbox that has seen no call."""
    box, url = served
    box.ledger.clear()

    def start(*passages: Passage) -> tuple[Sandbox, Proxy]:
        return box, proxied(url, *passages)

    return start
