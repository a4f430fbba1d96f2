"""Harvests whose tasks are cancelled natively on asyncio, with real threads at work on the file."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from scripted import client

from flipsnack_async import Flipsnack, HarvestRow, _archive_file, _archive_schema
from flipsnack_async.archive import Archive
from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

BOOKS = 60
AT_ONCE = 4


@pytest.fixture
def anyio_backend() -> str:
    """Real time, since threads take part; trio has no such cancellation."""
    return "asyncio"


@pytest.fixture(autouse=True)
def slow_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each row take a while on its way to the disk, so that cancellation finds it there."""
    complete = _archive_file._complete

    def slowly(draft: Any) -> None:
        time.sleep(0.003)
        complete(draft)

    monkeypatch.setattr(_archive_file, "_complete", slowly)


async def gather(rows: Any) -> list[HarvestRow]:
    return [row async for row in rows]


def asked(box: Sandbox) -> Counter[str]:
    return Counter(
        call.params["collectionHash"] for call in box.ledger if call.action == "collection.getStats"
    )


async def harvest(archive: Archive, flipsnack: Flipsnack, seen: list[str]) -> None:
    async with archive.harvest(flipsnack, pages=True, at_once=AT_ONCE) as rows:
        async for row in rows:
            seen.append(row.collection_hash)


async def check(path: Path, box: Sandbox, seen: list[str], cuts: int) -> None:
    """Read the rows, which the digest vouches for, and hold them against what was asked."""
    async with Archive.open(path) as archive:
        rows = await gather(archive.rows())
        (run,) = await archive.contents()
    counted = asked(box)

    assert [*box.hashes] == [row.collection_hash for row in rows]
    assert ("complete", BOOKS) == (run.state, run.done)
    assert len(seen) == len(set(seen))
    assert set(box.hashes) == set(counted)
    assert counted.total() - BOOKS <= AT_ONCE * cuts


async def wait(task: asyncio.Task[None], box: Sandbox, chance: random.Random) -> None:
    """Wait until a harvest has made some calls, or has ended."""
    calls = len(box.ledger) + chance.randrange(10)
    while len(box.ledger) < calls and not task.done():  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    await asyncio.wait([task], timeout=chance.uniform(0.001, 0.01))


@pytest.mark.parametrize("times", [1, 2])
async def test_g15_a_task_may_be_cancelled_during_a_commit(path: Path, times: int) -> None:
    """
    Whenever the task of a harvest is cancelled, once or twice, the next one goes on from there.

    A commit that was under way is through or has not been, and none comes twice.
    """
    box = Sandbox(collections=BOOKS, rates=())
    chance = random.Random(times)  # noqa: S311  no secret
    seen: list[str] = []
    cuts = 0

    async def one(flipsnack: Flipsnack) -> None:
        async with Archive.open(path) as archive:
            if "complete" not in [run.state for run in await archive.contents()]:
                await harvest(archive, flipsnack, seen)

    async with client(box, rates=()) as flipsnack:
        while True:
            task = asyncio.create_task(one(flipsnack))
            await wait(task, box, chance)
            if task.done():
                await task
                break
            cuts += 1
            for _ in range(times):
                task.cancel()
                await asyncio.sleep(chance.choice([0, 0.002]))
            with suppress(asyncio.CancelledError):
                await task

    assert cuts > 2
    await check(path, box, seen, cuts)


async def test_g15_a_commit_that_comes_late_is_harmless(path: Path) -> None:
    """
    When all tasks are cancelled at once, their threads go on while the harvest starts anew.

    What they write then is neither lost nor written again, and the digest is right.
    """
    box = Sandbox(collections=BOOKS, rates=())
    chance = random.Random(15)  # noqa: S311  no secret
    seen: list[str] = []
    cuts = 0
    async with client(box, rates=()) as flipsnack, Archive.open(path) as archive:
        while "complete" not in [run.state for run in await archive.contents()]:
            present = asyncio.all_tasks()
            task = asyncio.create_task(harvest(archive, flipsnack, seen))
            await wait(task, box, chance)
            cuts += not task.done()
            for each in asyncio.all_tasks() - present:
                each.cancel()
            with suppress(asyncio.CancelledError):
                await task

    assert cuts > 2
    await check(path, box, seen, cuts)


async def test_an_archive_whose_opening_was_cancelled_is_not_open(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whoever is cancelled while a thread opens the file leaves it to the next one.
    """
    began, may_go_on = threading.Event(), threading.Event()

    def slowly(path: Path) -> Any:
        began.set()
        may_go_on.wait(5)
        return _archive_schema.connect(path)

    monkeypatch.setattr(_archive_file, "connect", slowly)
    task = asyncio.create_task(Archive.open(path).__aenter__())
    while not began.is_set():  # noqa: ASYNC110  a thread's doing
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.sleep(0.01)
    may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    async with Archive.open(path) as archive:
        assert () == await archive.contents()
