"""H1 to H4: actions that are cancelled at each of their checkpoints in turn, on real sockets."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import shutil
import zipfile
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import anyio
import pytest
import trio
from cutting import CuttingServer, Visit, envelope, response

from flipsnack_async import Flipsnack, Quota, Rate
from flipsnack_async.archive import Archive

pytestmark = pytest.mark.anyio

HASHES = ["hash1", "hash2", "hash3"]
How: TypeAlias = Literal["scope", "task", "task, twice"]

DOCUMENT = b"%PDF-1.7\n" + bytes(300_000) + b"%%EOF"


# --- a vendor


def package() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("index.html", "<html></html>")
    return packed.getvalue()


PACKAGE = package()


def answer(visit: Visit) -> None:
    """Answer one call of any kind, or hand out the package."""
    visit.read_all()
    arrived = reversed(visit.server.arrived)
    action = next(request.action for request in arrived if request.connection == visit.number)
    if action == "never.answered":
        visit.read_head()  # which will not come
    link = {"status": "COMPLETE", "resourceUrl": f"{visit.server.url}package.zip"}
    ready = json.dumps({"code": 20, "data": link}).encode()
    answers = {
        "": PACKAGE,
        "collection.downloadHTML": ready,
        "collection.getList": envelope(
            collections=[{"collectionHash": name} for name in HASHES], collectionCount=len(HASHES)
        ),
    }
    body = answers.get(action, envelope(views=7, collectionHash="new1"))
    visit.send(response(body, "200 OK", "Connection: close"))


@pytest.fixture
def server() -> Iterator[CuttingServer]:
    server = CuttingServer(answer)
    yield server
    server.close()


# --- the actions, each of which leaves nothing in its folder but what it was to make


async def read(flipsnack: Flipsnack, folder: Path) -> None:
    await flipsnack.user.get_stats()


async def wait_in_vain(flipsnack: Flipsnack, folder: Path) -> None:
    with anyio.move_on_after(0.2):
        await flipsnack.call("never.answered")


async def upload(flipsnack: Flipsnack, folder: Path) -> None:
    await flipsnack.collections.create(DOCUMENT)


async def read_list(flipsnack: Flipsnack, folder: Path) -> None:
    assert HASHES == [each.collection_hash async for each in flipsnack.collections.list()]


async def save_package(flipsnack: Flipsnack, folder: Path) -> None:
    await flipsnack.collections.save_package("hash1", folder / "made")


async def export(flipsnack: Flipsnack, folder: Path) -> None:
    async with flipsnack.export_many(["hash1"], folder, at_once=1) as rows:
        assert [None] == [row.error async for row in rows]


async def harvest(flipsnack: Flipsnack, folder: Path) -> None:
    async with flipsnack.harvest(HASHES, at_once=2) as rows:
        assert [None] * 3 == [row.error async for row in rows]


async def harvest_into_archive(flipsnack: Flipsnack, folder: Path) -> None:
    async with Archive.open(folder / "made") as archive:
        async with archive.harvest(flipsnack, HASHES[:1], at_once=1) as rows:
            assert [None] == [row.error async for row in rows]


Action = Callable[[Flipsnack, Path], Awaitable[None]]
ACTIONS: tuple[Action, ...] = (
    read,
    wait_in_vain,
    upload,
    read_list,
    save_package,
    export,
    harvest,
    harvest_into_archive,
)


# --- cancelling


class Checkpoints:
    """Count the checkpoints that tasks come to, and strike at one of them, or again at the next."""

    def __init__(self, at: int, strike: Callable[[], object], *, times: int = 1) -> None:
        self._passed = 0
        self._struck = range(at, at + times)
        self.strike = strike

    @property
    def has_struck(self) -> bool:
        return self._passed > self._struck[0]

    def is_struck(self) -> bool:
        """Count one more."""
        self._passed += 1
        return self._passed - 1 in self._struck


class Steps(trio.abc.Instrument):
    """Have the checkpoints of trio's tasks counted."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._checkpoints.is_struck():
            self._checkpoints.strike()


class Stepped(Coroutine[Any, Any, Any]):
    """Be the work of a task of asyncio's, and have its checkpoints counted."""

    def __init__(self, work: Any, checkpoints: Checkpoints) -> None:
        self._work = work
        self._checkpoints = checkpoints

    def send(self, value: Any) -> Any:
        return self._suspended(self._work.send(value))

    def throw(self, *error: Any) -> Any:
        return self._suspended(self._work.throw(*error))

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Any:
        return self._work.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)

    def _suspended(self, waited_for: Any) -> Any:
        if self._checkpoints.is_struck():  # and strike when the task does wait
            asyncio.get_running_loop().call_soon(self._checkpoints.strike)
        return waited_for


Work: TypeAlias = Callable[[], Awaitable[None]]
End: TypeAlias = Literal["undisturbed", "cancelled", "too late"]


async def end_on_trio(work: Work, at: int) -> End:
    """Cancel work at a checkpoint, and say what came of it."""
    with anyio.CancelScope() as scope:
        checkpoints = Checkpoints(at, scope.cancel)
        steps = Steps(checkpoints)
        trio.lowlevel.add_instrument(steps)
        try:
            await work()
        finally:
            trio.lowlevel.remove_instrument(steps)
    return end_of(checkpoints, is_cancelled=scope.cancelled_caught)


async def end_on_asyncio(work: Work, at: int, how: How) -> End:
    """Cancel work at a checkpoint of any of its tasks, and say what came of it."""
    scope = anyio.CancelScope()

    async def inside() -> None:
        with scope:
            await work()

    def strike() -> None:
        if how == "scope":
            scope.cancel()
        else:
            task.cancel()

    def follow(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(Stepped(work, checkpoints), loop=loop, **options)

    checkpoints = Checkpoints(at, strike, times=2 if how == "task, twice" else 1)
    loop = asyncio.get_running_loop()
    loop.set_task_factory(follow)
    try:
        task = loop.create_task(inside())
        await asyncio.wait([task])
    finally:
        loop.set_task_factory(None)
    if not task.cancelled():
        task.result()
    return end_of(checkpoints, is_cancelled=scope.cancelled_caught or task.cancelled())


def end_of(checkpoints: Checkpoints, *, is_cancelled: bool) -> End:
    assert checkpoints.has_struck or not is_cancelled
    if not checkpoints.has_struck:
        return "undisturbed"
    return "cancelled" if is_cancelled else "too late"


# --- what is left


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def tasks() -> int:
    """Count the tasks of this event loop."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return trio.lowlevel.current_statistics().tasks_living


async def soon(is_so: Callable[[], bool]) -> bool:
    """Give threads, and a server, a moment to make it so."""
    with anyio.move_on_after(2):
        while not is_so():  # noqa: ASYNC110 - others make it so, in threads of theirs
            await anyio.sleep(0.002)
    return is_so()


@pytest.mark.parametrize(
    ("anyio_backend", "how"),
    [("asyncio", "scope"), ("asyncio", "task"), ("asyncio", "task, twice"), ("trio", "scope")],
)
@pytest.mark.parametrize("action", ACTIONS)
async def test_h1_to_h4_cancelled_at_any_checkpoint(
    server: CuttingServer, path: Path, anyio_backend_name: str, action: Action, how: How
) -> None:
    """
    Wherever an action is cancelled it leaves no task, file or permit, and the client goes on.

    The quota has one token: where it were lost, no call would go out again.
    """
    quota = Quota(Rate(1, per=0.001), linger=0.0)
    folder = path.parent / "folder"
    target = "hash1.zip" if action is export else "made"
    ends: list[End] = []

    async def end(flipsnack: Flipsnack, at: int) -> End:
        work = partial(action, flipsnack, folder)
        if anyio_backend_name == "trio":
            return await end_on_trio(work, at)
        return await end_on_asyncio(work, at, how)

    def is_clean() -> bool:
        return {each.name for each in folder.iterdir()} <= {target} and before == tasks()

    async with Flipsnack(
        "key", "secret", api_url=server.url, upload_url=server.url, quota=quota
    ) as flipsnack:
        await read(flipsnack, folder)
        before, opened = tasks(), descriptors()
        while "undisturbed" not in ends:
            folder.mkdir()
            with anyio.fail_after(10):
                ends.append(await end(flipsnack, len(ends)))
                assert await soon(is_clean), ends
                assert {0} == set(quota.statistics().waiting.values()), ends
                await read(flipsnack, folder)
            shutil.rmtree(folder)
        assert await soon(lambda: descriptors() <= opened)

    # While the last things are put away, there is nothing left to cancel.
    assert ends.count("too late") <= max(4, len(ends) // 5)
    assert ends.count("cancelled") >= 5


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("by", ["wait_for", "timeout"])
async def test_h4_timeouts_of_asyncio(server: CuttingServer, by: str) -> None:
    """
    Hundreds of calls that `asyncio.wait_for` or `asyncio.timeout` end leave every permit there.
    """
    chance = random.Random(by)  # noqa: S311 - no secret
    ends: Counter[str] = Counter()
    quota = Quota(Rate(20, per=0.001), linger=0.0)

    async def call(flipsnack: Flipsnack, seconds: float) -> None:
        try:
            if by == "wait_for":
                await asyncio.wait_for(flipsnack.user.get_stats(), seconds)
            else:
                async with asyncio.timeout(seconds):
                    await flipsnack.user.get_stats()
        except TimeoutError:
            ends["timed out"] += 1
        else:
            ends["answered"] += 1

    async with Flipsnack("key", "secret", api_url=server.url, quota=quota) as flipsnack:
        before = tasks()
        for _ in range(15):
            calls = [call(flipsnack, chance.uniform(0, 0.05)) for _ in range(20)]
            await asyncio.gather(*calls)
        assert await soon(lambda: before == tasks())
        assert await soon(lambda: [20] == list(quota.statistics().free.values()))
        assert 7 == (await flipsnack.user.get_stats()).views
    assert 300 == ends.total()
    assert ends["timed out"] >= 20
