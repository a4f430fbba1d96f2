"""H7 to H9: clients and quotas where they don't belong: other event loops, threads, processes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import Any

import anyio
import httpx
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from cutting import GOOD, Act, CuttingServer, Visit, answering, response
from inner import Inner, ok

from flipsnack_async import (
    ClientClosedError,
    ConfigurationError,
    Flipsnack,
    Quota,
    QuotaTransport,
    Rate,
)

BACKENDS = ["asyncio", "trio"]
HOMES = pytest.mark.parametrize("home", BACKENDS)
ELSEWHERE = pytest.mark.parametrize("elsewhere", BACKENDS)


def holding(go: threading.Event) -> Act:
    """Read a request, and answer it when told to."""

    def act(visit: Visit) -> None:
        visit.read_all()
        visit.server.stalling.set()
        go.wait(10)
        visit.send(response(GOOD, "200 OK", "Connection: close"))

    return act


def client(server: CuttingServer, **options: Any) -> Flipsnack:
    given: dict[str, Any] = {"quota": Quota(), **options}
    return Flipsnack("k", "s", api_url=server.url, upload_url=server.url, **given)


def check_refused(work: Callable[[], Awaitable[object]], backend: str) -> None:
    async def run() -> None:
        with anyio.fail_after(5):
            await work()

    with pytest.raises(ClientClosedError, match="belongs to another event loop"):
        anyio.run(run, backend=backend)


# --- H7


def use_in_two_loops(server: CuttingServer, home: str, elsewhere: str) -> None:
    flipsnack = client(server)
    views = anyio.run(flipsnack.user.get_stats, backend=home).views
    assert 7 == views
    for work in (
        flipsnack.user.get_stats,
        flipsnack.with_options(attempts=2).user.get_stats,
        partial(flipsnack.call, "new.action"),
        flipsnack.__aenter__,
        flipsnack.aclose,
    ):
        check_refused(work, elsewhere)
    del flipsnack, work
    gc.collect()


@HOMES
@ELSEWHERE
def test_h7_a_second_run_of_the_same_client(home: str, elsewhere: str) -> None:
    """
    In the next event loop all use is refused in words, closing too, and nothing is sent.

    That it was never closed is told when it is gone.
    """
    with closing(CuttingServer(answering())) as server:
        with pytest.warns(ResourceWarning, match=r"^unclosed <Flipsnack http://127.0.0.1:\d+/v1/>"):
            use_in_two_loops(server, home, elsewhere)

    assert 1 == server.connections


@HOMES
def test_h7_what_is_closed_may_be_closed_anywhere(home: str) -> None:
    """
    Closing a client again does nothing in any loop, and one that was never used has no home.
    """
    with closing(CuttingServer(answering())) as server:
        flipsnack = client(server)

        async def use() -> None:
            async with flipsnack:
                await flipsnack.user.get_stats()

        anyio.run(use, backend=home)
        for used_or_not in (flipsnack, client(server)):
            for backend in BACKENDS:
                anyio.run(used_or_not.aclose, backend=backend)


# --- H8


@contextmanager
def call_under_way(
    portal: BlockingPortal, server: CuttingServer, flipsnack: Flipsnack
) -> Iterator[Future[Any]]:
    """Have a call wait for its answer in a thread's event loop, and close the client there."""
    call = portal.start_task_soon(flipsnack.user.get_stats)
    assert server.stalling.wait(5)
    yield call
    portal.call(flipsnack.aclose)


@HOMES
@ELSEWHERE
def test_h8_two_threads_at_once(home: str, elsewhere: str) -> None:
    """
    While a call is under way in one thread's loop, another's is refused, and the call goes on.
    """
    go = threading.Event()
    with closing(CuttingServer(holding(go))) as server, start_blocking_portal(home) as portal:
        flipsnack = client(server)
        with call_under_way(portal, server, flipsnack) as call:
            check_refused(flipsnack.user.get_stats, elsewhere)
            check_refused(flipsnack.aclose, elsewhere)
            go.set()
            assert 7 == call.result(10).views

    assert 1 == server.connections


@HOMES
@ELSEWHERE
@pytest.mark.parametrize("what", ["quota", "transport", "client"])
def test_h8_a_quota_serves_one_loop(home: str, elsewhere: str, what: str) -> None:
    """
    A quota that admitted a call in one loop refuses all others in words; who waits is served.
    """
    quota = Quota(Rate(1, per=0.2))
    transport = QuotaTransport(Inner(ok), quota)

    async def permit() -> None:
        async with quota.permit() as permit:
            permit.answered()

    async def request() -> None:
        await transport.handle_async_request(httpx.Request("GET", "https://example.com"))

    async def call() -> None:
        async with Flipsnack("k", "s", transport=Inner(ok), quota=quota) as flipsnack:
            await flipsnack.user.get_stats()

    use = {"quota": permit, "transport": request, "client": call}[what]
    with start_blocking_portal(home) as portal:
        portal.call(permit)
        waiting = portal.start_task_soon(permit)
        with pytest.raises(ConfigurationError, match="quota: belongs to another event loop"):
            anyio.run(use, backend=elsewhere)
        waiting.result(10)
        assert 2 == portal.call(quota.statistics).admitted


# --- H9


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
REFUSED = "child: the client belongs to another event loop or process; "
USED, CLOSED = f"{REFUSED}make one client for each", f"{REFUSED}close it there"

BEGINNING = """
    import gc, os, signal, sys, anyio
    from flipsnack_async import ClientClosedError, Flipsnack, Quota, _core

    url, home, elsewhere, folder = sys.argv[1:]
    here, go = f"{folder}/here", f"{folder}/go"

    async def call(flipsnack, who):
        print(f"{who}:", (await flipsnack.user.get_stats()).views, flush=True)

    async def attempt(work):
        try:
            await work()
        except ClientClosedError as error:
            print("child:", error, flush=True)
"""

UNDER_WAY = """
    async def main():
        async with Flipsnack("k", "s", api_url=url, quota=Quota(), attempts=1) as flipsnack:
            await call(flipsnack, "parent")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call, flipsnack, "parent")
                while not os.path.exists(here):
                    await anyio.sleep(0.01)
                child = os.fork()
                if not child:
                    await attempt(flipsnack.user.get_stats)
                    await attempt(flipsnack.with_options(attempts=2).user.get_stats)
                    await attempt(flipsnack.aclose)
                    os._exit(0)
                os.waitpid(child, 0)
                open(go, "w").close()
            await call(flipsnack, "parent")

    anyio.run(main, backend=home)
"""

BETWEEN_RUNS = """
    async def renew():
        async with Flipsnack("k", "s", api_url=url) as flipsnack:
            await call(flipsnack, "child")

    flipsnack = Flipsnack("k", "s", api_url=url)
    anyio.run(call, flipsnack, "parent", backend=home)
    _core.registry._lock.acquire()  # as another thread may just do when a process forks
    child = os.fork()
    if not child:
        signal.alarm(30)
        anyio.run(attempt, flipsnack.user.get_stats, backend=elsewhere)
        anyio.run(attempt, flipsnack.aclose, backend=elsewhere)
        anyio.run(renew, backend=elsewhere)
        del flipsnack
        gc.collect()
        sys.exit()
    os.waitpid(child, 0)
    os._exit(0)
"""


def printed(script: str, *arguments: str) -> list[str]:
    """Run a script, and return what it and its children print, warnings being errors."""
    done = subprocess.run(  # noqa: S603  our own script
        [sys.executable, "-W", "error", "-c", dedent(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.stdout.splitlines()


@forks
@HOMES
def test_h9_a_fork_while_a_call_is_under_way(tmp_path: Path, home: str) -> None:
    """
    In a forked child all use is refused, closing too; the parent's call gets its answer.
    """

    def hold(visit: Visit) -> None:
        visit.read_all()
        (tmp_path / "here").touch()
        while not (tmp_path / "go").exists() and not visit.server.over.wait(0.01):
            pass
        visit.send(response(GOOD, "200 OK", "Connection: close"))

    with closing(CuttingServer(answering(), hold, answering())) as server:
        lines = printed(BEGINNING + UNDER_WAY, server.url, home, home, str(tmp_path))

    assert ["parent: 7", USED, USED, CLOSED, "parent: 7", "parent: 7"] == lines
    assert 3 == len(server.arrived)


@forks
@pytest.mark.parametrize(("home", "elsewhere"), [("asyncio", "trio"), ("trio", "asyncio")])
def test_h9_a_fork_between_two_event_loops(tmp_path: Path, home: str, elsewhere: str) -> None:
    """
    A child that runs a loop of its own is refused the parent's client, but may make one anew.

    It ends without a word about the parent's client, which is not its own to close.
    """
    with closing(CuttingServer(answering())) as server:
        script = BEGINNING + BETWEEN_RUNS
        lines = printed(script, server.url, home, elsewhere, str(tmp_path))

    assert ["parent: 7", USED, CLOSED, "child: 7"] == lines
    assert 2 == len(server.arrived)
