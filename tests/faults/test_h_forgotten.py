"""H10: clients that nobody closed, and what the garbage collector and the interpreter say then."""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from textwrap import dedent

import pytest
from cutting import CuttingServer, answering
from scripted import client

from flipsnack_async import ConfigurationError, Flipsnack
from flipsnack_async.archive import Archive
from flipsnack_async.sandbox import Sandbox

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("small_heap")]


async def use(box: Sandbox) -> None:
    flipsnack = client(box)
    await flipsnack.user.get_stats()


async def use_a_view(box: Sandbox) -> None:
    await client(box).with_options(attempts=1).user.get_stats()


async def close(box: Sandbox) -> None:
    flipsnack = client(box)
    await flipsnack.user.get_stats()
    await flipsnack.aclose()


async def forget_a_view(box: Sandbox) -> None:
    async with client(box) as flipsnack:
        flipsnack.with_options(attempts=1)
        await flipsnack.user.get_stats()
        gc.collect()


async def make(box: Sandbox) -> None:
    client(box)


async def make_badly(box: Sandbox) -> None:
    with suppress(ConfigurationError):
        Flipsnack("k", "s", api_url="http://flipsnack.com")


async def describe(box: Sandbox) -> None:
    """Make all that is for a block, and enter none."""
    async with client(box) as flipsnack:
        archive = Archive.open("stats.db")
        flipsnack.harvest()
        flipsnack.export_many(box.hashes, "packages")
        flipsnack.collections.list()
        archive.harvest(flipsnack, box.hashes)
        archive.series(flipsnack, None, "2026-01-01", "2026-01-31")
        archive.rows()


async def break_off(box: Sandbox) -> None:
    async with client(box) as flipsnack:
        async for _ in flipsnack.collections.list():
            break


async def told_of(work: Callable[[Sandbox], Awaitable[None]]) -> list[str]:
    """List the warnings that come when what *work* made is collected."""
    gc.collect()
    box = Sandbox(collections=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await work(box)
        gc.collect()
    assert box.api_key not in str(caught)
    return [f"{warning.category.__name__}: {warning.message}" for warning in caught]


@pytest.mark.parametrize("work", [use, use_a_view])
async def test_h10_a_client_that_is_not_closed(work: Callable[[Sandbox], Awaitable[None]]) -> None:
    """
    Of a client that was used and is gone one warning tells which it was, and what to do.
    """
    (told,) = await told_of(work)

    assert told == (
        "ResourceWarning: unclosed <Flipsnack https://api.flipsnack.com/v1/>: "
        "use `async with`, or await its aclose()"
    )


@pytest.mark.parametrize("work", [close, forget_a_view, make, make_badly, describe, break_off])
async def test_h10_what_needs_no_closing(work: Callable[[Sandbox], Awaitable[None]]) -> None:
    """
    Nothing is said of a client that was closed, was never used, or could not be made.
    """
    assert [] == await told_of(work)


# --- the interpreter's end

FORGETFUL = """
    import gc, sys, anyio
    from flipsnack_async import Flipsnack, Quota

    async def main():
        global still_there
        for name in ("gone", "there"):
            still_there = Flipsnack("CANARYKEY", "CANARYSECRET", api_url=sys.argv[1] + name)
            print((await still_there.user.get_stats()).views)
        still_there.harvest(["hash1"])
        gc.collect()

    anyio.run(main, backend=sys.argv[2])
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("option", ["-Xdev", "-Werror", "-q"])
def test_h10_an_interpreter_that_ends(option: str, backend: str) -> None:
    """
    A client that is gone and one that is there to the last: of each is told, to who wants to know.

    Nothing else is, and no traceback shown, but what Python makes of a warning that is an error.
    """
    with closing(CuttingServer(answering())) as server:
        done = subprocess.run(  # noqa: S603  our own script
            [sys.executable, option, "-c", dedent(FORGETFUL), server.url, backend],
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert (0, "7\n7\n") == (done.returncode, done.stdout)
    told = [line for line in done.stderr.splitlines() if "Warning: " in line]
    clients = [
        line for line in told if f"ResourceWarning: unclosed <Flipsnack {server.url}" in line
    ]
    hints = [line for line in told if "Enable tracemalloc" in line]
    assert (0 if option == "-q" else 2) == len(clients) == len(told) - len(hints)
    assert (2 if option == "-Werror" else 0) == done.stderr.count("Traceback")
    assert "CANARY" not in done.stderr
