"""H6, H11: clients that are closed before a call or during it, and what comes out of blocks."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import httpx
import pytest
from cutting import CuttingServer, swallowing
from inner import Inner
from scripted import answering, client, done, refused

from flipsnack_async import (
    AuthenticationError,
    ClientClosedError,
    Flipsnack,
    Quota,
    Rate,
    UploadOutcomeUnknownError,
)
from flipsnack_async.archive import Archive
from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

DOCUMENT = b"%PDF-1.7\ntiny\n%%EOF"


# --- used after its end

# What the public methods are given, by the names of their parameters.
GIVEN: dict[str, Any] = {
    "ref": "hash1",
    "refs": ["hash1", "hash2"],
    "source": DOCUMENT,
    "action": "new.action",
    "title": "Spring",
    "error": UploadOutcomeUnknownError("collection.create", "no answer", title="Spring"),
    "start_date": "2026-01-01",
    "end_date": "2026-01-31",
}
# What ends a client or makes another, and sends nothing.
NO_CALLS = {"aclose", "with_options", "from_env"}


def methods(owner: object) -> Iterator[Callable[..., Any]]:
    for name, _ in inspect.getmembers(type(owner), inspect.isfunction):
        if not name.startswith("_") and name not in NO_CALLS:
            yield getattr(owner, name)


def of_client(flipsnack: Flipsnack) -> Iterator[Callable[..., Any]]:
    yield from methods(flipsnack)
    for name, part in vars(flipsnack).items():
        if not name.startswith("_"):
            yield from methods(part)


def required(method: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(method).parameters.values()
    names = [each.name for each in parameters if each.default is each.empty or each.name == "title"]
    return {name: given[name] for name in names}


async def read(rows: AsyncIterator[object]) -> None:
    async for _ in rows:
        pass


async def exhaust(what: Any) -> None:
    """Await, enter or read what a method returned, to its end."""
    if isinstance(what, AbstractAsyncContextManager):
        async with what as rows:
            await read(rows)
    elif isinstance(what, AsyncIterator):
        await read(what)
    else:
        await what


@pytest.mark.parametrize("was_used", [False, True])
async def test_h6_every_method_of_a_closed_client_says_so(
    tmp_path: Path, path: Path, was_used: bool
) -> None:
    """
    Whatever is asked of a closed client, or of a view, ends at once, in words, and is not sent.
    """
    box = Sandbox(collections=2)
    flipsnack = client(box)
    if was_used:
        await flipsnack.user.get_stats()
    view = flipsnack.with_options(lane="bulk")
    await flipsnack.aclose()
    sent, began = len(box.ledger), anyio.current_time()
    given = {**GIVEN, "target": tmp_path / "a.zip", "folder": tmp_path, "flipsnack": flipsnack}

    async with Archive.open(path) as archive:
        kept = [x for x in methods(archive) if "flipsnack" in inspect.signature(x).parameters]
        found = [*of_client(flipsnack), *of_client(view), *kept]
        for method in found:
            with pytest.raises(ClientClosedError, match="the client is closed"):
                await exhaust(method(**required(method, given)))

    assert len(found) >= 2 * 16 + 2
    assert sent == len(box.ledger)
    assert began == anyio.current_time()
    await flipsnack.aclose()


# --- closed during a call


Call: TypeAlias = Callable[[Flipsnack], Awaitable[object]]

CALLS: dict[str, Call] = {
    "read": lambda flipsnack: flipsnack.user.get_stats(),
    "convergent": lambda flipsnack: flipsnack.collections.delete("hash1"),
    "once": lambda flipsnack: flipsnack.call("new.action"),
    "upload": lambda flipsnack: flipsnack.collections.create(DOCUMENT, title="Spring"),
}


async def silence(request: httpx.Request) -> httpx.Response:
    await request.aread()
    await anyio.sleep_forever()
    raise AssertionError


async def end_of(
    call: Call, flipsnack: Flipsnack, under_way: Awaitable[object], *, within: float = 1e6
) -> Exception:
    """Start a call, close the client when it is *under_way*, and return what is raised."""
    ends: list[Exception] = []

    async def carry_out() -> None:
        try:
            await call(flipsnack)
        except Exception as error:
            ends.append(error)

    with anyio.fail_after(within):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(carry_out)
            await under_way
            await flipsnack.aclose()
    (end,) = ends
    return end


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("code", [None, 31, 22], ids=["queued", "refused", "in maintenance"])
async def test_h6_a_call_that_waits_ends_when_its_client_is_closed(
    call: Call, code: int | None
) -> None:
    """
    A call in line, between attempts or in maintenance ends at once, and is not sent any more.
    """
    transport, seen = answering(refused(code) if code else done(views=7))
    quota = Quota(Rate(1, per=3600))
    flipsnack = Flipsnack("k", "s", transport=transport, quota=quota)
    if code is None:
        await flipsnack.user.get_stats()

    began = anyio.current_time()
    error = await end_of(call, flipsnack, anyio.sleep(0.5))

    assert ClientClosedError is type(error)
    assert 0.5 == pytest.approx(anyio.current_time() - began, abs=0.01)
    assert 1 == len(seen)
    assert {0} == set(quota.statistics().waiting.values())


@pytest.mark.parametrize("kind", CALLS)
async def test_h6_a_call_under_way_says_why_it_ended(kind: str) -> None:
    """
    What is closed while it waits for its answer tells that, and what may have been carried out.
    """
    flipsnack = Flipsnack("k", "s", transport=Inner(silence))

    error = await end_of(CALLS[kind], flipsnack, anyio.sleep(0.5))

    if kind in ("once", "upload"):
        assert isinstance(error, UploadOutcomeUnknownError)
        assert "the client was closed" == error.reason.partition(": ")[2]
    else:
        assert ClientClosedError is type(error)
        assert str(error).startswith("the client was closed during ")
        assert ("may have been carried out" in str(error)) is (kind == "convergent")


@pytest.mark.parametrize("what", ["harvest", "export"])
async def test_h6_what_hands_out_rows_ends_when_its_client_is_closed(
    tmp_path: Path, what: str
) -> None:
    """
    A closed client ends the whole, and not row for row.
    """
    flipsnack = Flipsnack("k", "s", transport=Inner(silence))
    refs = [f"hash{n}" for n in range(10)]
    rows: list[object] = []

    async def work(flipsnack: Flipsnack) -> None:
        made = (
            flipsnack.harvest(refs) if what == "harvest" else flipsnack.export_many(refs, tmp_path)
        )
        async with made as some:
            async for row in some:
                rows.append(row)

    error = await end_of(work, flipsnack, anyio.sleep(0.5))

    assert ClientClosedError is type(error)
    assert [] == rows


# --- H11


@pytest.mark.parametrize("code", [41, 44])
async def test_h11_failures_at_once_come_out_as_one(tmp_path: Path, code: int) -> None:
    """
    When all workers fail of the same, the library's error comes out, in no group.
    """
    transport, _ = answering(refused(code))
    async with Flipsnack("k", "s", transport=transport, rates=()) as flipsnack:
        refs = [f"hash{n}" for n in range(20)]
        for rows in (flipsnack.harvest(refs), flipsnack.export_many(refs, tmp_path)):
            with pytest.raises(AuthenticationError) as caught:
                await exhaust(rows)
            assert code == caught.value.code


# --- on real sockets


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.parametrize("kind", CALLS)
async def test_h6_on_a_real_socket(kind: str) -> None:
    """
    A client that is closed while a server keeps silent hangs up, and says so.
    """
    with closing(CuttingServer(swallowing())) as server:
        flipsnack = Flipsnack("k", "s", api_url=server.url, upload_url=server.url, quota=Quota())
        silent = anyio.to_thread.run_sync(server.stalling.wait, 5)

        error = await end_of(CALLS[kind], flipsnack, silent, within=20)

    once = kind in ("once", "upload")
    assert (UploadOutcomeUnknownError if once else ClientClosedError) is type(error)
    assert "the client was closed" in str(error)
    assert 1 == server.connections
