"""
Downloads over real sockets: cut, cancelled, on a slow disk, and never with a key.

FLIPSNACK_TEST_CUTS says how many transfers to cut, for a thorough run.
"""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import random
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import attrs
import httpx
import pytest
from anyio.from_thread import start_blocking_portal
from cutting import Act, CuttingServer, Visit, answering, keeping, response, swallowing
from scripted import done

from flipsnack_async import DownloadError, Flipsnack, SavedPackage
from flipsnack_async import _download as download
from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

TRANSFERS = int(os.environ.get("FLIPSNACK_TEST_CUTS", "20"))
SIZE = 400_000


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Real time, since there are sockets."""
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take transfers up at once."""
    monkeypatch.setattr(download, "random", SimpleNamespace(uniform=lambda low, high: 0.0))


@attrs.frozen
class Served:
    """A sandbox on loopback, and the package of its first book."""

    box: Sandbox
    url: str
    package: bytes

    @property
    def name(self) -> str:
        return self.box.hashes[0]

    def client(self, **options: Any) -> Flipsnack:
        options = {"rates": (), "api_url": self.url, **options}
        return Flipsnack(self.box.api_key, self.box.api_secret, **options)

    async def save(self, flipsnack: Flipsnack, target: Path) -> SavedPackage:
        return await flipsnack.collections.save_package(self.name, target, overwrite=True)


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Serve sandboxes in a loop and thread of their own."""
    with start_blocking_portal("asyncio") as portal:
        serving = []

        def start(**options: Any) -> Served:
            options = {"collections": 1, "package_size": SIZE, **options}
            box = Sandbox(export_seconds=0, rates=(), **options)
            serving.append(portal.wrap_async_context_manager(box.serve()))
            url = serving[-1].__enter__()
            # What is expected is read without a socket and without this package.
            package = portal.call(whole, box)
            return Served(box, url, package)

        yield start
        for server in serving:
            server.__exit__(None, None, None)


async def whole(box: Sandbox) -> bytes:
    async with Flipsnack(box.api_key, box.api_secret, transport=box.transport()) as flipsnack:
        found = await flipsnack.collections.download_html(box.hashes[0])
    async with httpx.AsyncClient(transport=box.transport()) as web:
        content = (await web.get(found.resource_url or "")).content
    box.ledger.clear()
    box.downloads.clear()
    return content


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def settled(count: Callable[[], int], expected: int) -> int:
    """Wait until the server has hung up, and threads are done, too; and count."""
    for _ in range(100):
        if count() <= expected:
            break
        await anyio.sleep(0.02)
    return count()


counts_descriptors = pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="this system does not list descriptors"
)


# --- cuts

BROKEN = r"the connection broke|its host did not answer"


async def test_f10_cuts_on_real_sockets_make_no_other_file(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    """
    However often and wherever connections are reset, the target is byte for byte the package.
    """
    chance = random.Random(10)  # noqa: S311  no secret
    cuts = 0
    for ranges in (True, False):
        served = serve(ranges=ranges)
        box, pending = served.box, 0
        async with served.client() as flipsnack:
            for n in range(TRANSFERS // 2):
                target = tmp_path / f"{n}.zip"
                before = len(box.downloads)
                wanted = chance.randrange(1, 5)  # fewer than make a download give up
                for _ in range(pending, wanted):
                    box.fail_download(cut_at=chance.choice([0, 1, chance.randrange(SIZE)]))

                saved = await served.save(flipsnack, target)

                made = len(box.downloads) - before
                cuts += made - 1
                # Where a transfer was shorter than its cut, the others strike the next one.
                pending = max(0, max(pending, wanted) - made)
                assert served.package == target.read_bytes()
                assert len(served.package) == saved.size
                target.unlink()
                assert [] == os.listdir(tmp_path)
        resumed = [found for found in box.downloads if found.start]
        assert bool(resumed) is ranges
        assert {206} >= {found.status for found in resumed}
    print(f"{TRANSFERS} transfers, {cuts} cuts")
    assert cuts > TRANSFERS


async def test_f10_a_host_that_always_cuts_is_given_up(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    """
    After some connections that brought nothing new it is said so, and nothing is left.
    """
    served = serve()
    served.box.fail_download(cut_at=0, times=None)
    async with served.client() as flipsnack:
        with pytest.raises(DownloadError, match=BROKEN):
            await served.save(flipsnack, tmp_path / "a.zip")

    assert download.ATTEMPTS == len(served.box.downloads)
    assert [] == os.listdir(tmp_path)


async def test_f10_a_server_that_goes_away_is_given_up(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    """
    Where nobody listens any more, the error is a download's, in a moment and without a link.
    """
    with CuttingServerFor(answering(complete(nowhere()))) as api:
        async with Flipsnack("some-key", "some-secret", api_url=api.url, rates=()) as flipsnack:
            with pytest.raises(DownloadError, match="did not answer") as caught:
                await flipsnack.collections.save_package("fxh4k89", tmp_path / "a.zip")

    assert "127.0.0.1" not in str(caught.value)
    assert [] == os.listdir(tmp_path)


# --- cancellation


@counts_descriptors
async def test_f19_scopes_that_are_cancelled_leave_nothing_behind(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    """
    Downloads cancelled by their scopes at random leave no file and no descriptor.
    """
    chance = random.Random(19)  # noqa: S311  no secret
    served = serve(package_size=2_000_000)
    target = tmp_path / "a.zip"
    async with served.client() as flipsnack:
        await served.save(flipsnack, target)
        before, cancelled = descriptors(), 0
        for _ in range(50):
            target.unlink(missing_ok=True)
            with anyio.move_on_after(chance.uniform(0, 0.06)) as scope:
                await served.save(flipsnack, target)
            cancelled += scope.cancelled_caught
            assert {target.name} >= set(os.listdir(tmp_path))
            if target.exists():
                assert served.package == target.read_bytes()

        assert cancelled >= 6
        assert await settled(descriptors, before) <= before + 3
        await served.save(flipsnack, target)
    assert served.package == target.read_bytes()


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@counts_descriptors
async def test_f19_native_cancellations_leave_nothing_behind(
    serve: Callable[..., Served], tmp_path: Path, times: int, anyio_backend: str
) -> None:
    """
    Downloads cancelled by asyncio at random, once or again, leave no file, descriptor or task.
    """
    chance = random.Random(times)  # noqa: S311  no secret
    served = serve(package_size=1_000_000)
    tasks, cancelled = len(asyncio.all_tasks()), 0
    async with served.client() as flipsnack:
        await served.save(flipsnack, tmp_path / "a.zip")
        before = descriptors()
        for n in range(14):
            targets = [tmp_path / f"{n}-{m}.zip" for m in range(2)]
            saving = [asyncio.create_task(served.save(flipsnack, target)) for target in targets]
            for _ in range(times):
                await asyncio.sleep(chance.choice([0, chance.uniform(0, 0.06)]))
                for task in saving:
                    task.cancel()
            async with asyncio.timeout(5):
                ends = await asyncio.gather(*saving, return_exceptions=True)
            assert {asyncio.CancelledError, SavedPackage} >= {type(end) for end in ends}
            cancelled += sum(isinstance(end, asyncio.CancelledError) for end in ends)

        assert 0 == await settled(lambda: len(parts(tmp_path)), 0)
        for name in os.listdir(tmp_path):
            assert served.package == (tmp_path / name).read_bytes()
        assert cancelled >= 6
        assert await settled(descriptors, before) <= before + 3
        assert await settled(lambda: len(asyncio.all_tasks()), tasks) <= tasks
        await served.save(flipsnack, tmp_path / "a.zip")
    assert served.package == (tmp_path / "a.zip").read_bytes()


async def seen(server: CuttingServer, heads: int) -> bool:
    """Wait until so many requests began."""
    return await settled(lambda: -server.heads, -heads) <= -heads


def busy(transport: httpx.AsyncHTTPTransport) -> int:
    connections: Any = transport._pool
    return sum(not (c.is_idle() or c.is_closed()) for c in connections.connections)


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_f19_native_cancellations_leave_a_pool_of_the_users_whole(
    tmp_path: Path, times: int, anyio_backend: str
) -> None:
    """
    Downloads cancelled by asyncio while they begin or stream cost a user's transport no slot.
    """
    package = b"PK" * 100_000
    head = response(package[:1000], length=len(package))
    chance = random.Random(times)  # noqa: S311  no secret
    with CuttingServerFor(swallowing(head)) as there:
        with CuttingServerFor(keeping(complete(f"{there.url}a.zip"))) as api:
            pool = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=4))
            options: dict[str, Any] = {"api_url": api.url, "rates": (), "transport": pool}
            async with Flipsnack(KEY, SECRET, **options) as flipsnack:
                for n in range(12):
                    target = tmp_path / f"{n}.zip"
                    saving = asyncio.create_task(
                        flipsnack.collections.save_package("fxh4k89", target)
                    )
                    if n % 2:
                        assert await seen(there, there.heads + 1)
                    await asyncio.sleep(chance.uniform(0, 0.01))
                    for _ in range(times):
                        saving.cancel()
                        await asyncio.sleep(0)
                    await asyncio.wait([saving])
                    assert saving.cancelled()

                assert 0 == await settled(lambda: busy(pool), 0)
                async with asyncio.timeout(5):
                    await flipsnack.collections.download_html("fxh4k89")
    assert 0 == await settled(lambda: len(os.listdir(tmp_path)), 0)


async def test_f9_redirects_for_ever_leave_a_pool_of_the_users_whole(tmp_path: Path) -> None:
    """
    Links that lead from one to the next are given up, and every connection is given back.
    """
    moved = response(b"moved", "302 Found", "Location: /v1/next")

    def act(visit: Visit) -> None:
        while True:
            visit.read_all()
            visit.send(moved)

    with CuttingServerFor(act) as there:
        with CuttingServerFor(keeping(complete(f"{there.url}a.zip"))) as api:
            pool = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=2))
            options: dict[str, Any] = {"api_url": api.url, "rates": (), "transport": pool}
            async with Flipsnack(KEY, SECRET, timeout=2, **options) as flipsnack:
                for _ in range(3):
                    with pytest.raises(DownloadError, match="redirects more than three times"):
                        await flipsnack.collections.save_package("fxh4k89", tmp_path / "a.zip")
            assert 3 * 4 == there.heads


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("operation", ["fsync", "replace"])
async def test_f19_nothing_is_published_once_the_caller_was_told(
    serve: Callable[..., Served],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    anyio_backend: str,
) -> None:
    """
    A save that is cancelled before its file takes its place leaves the target; after that it waits.
    """
    served = serve(package_size=5000)
    begun, may_go_on = threading.Event(), threading.Event()
    real = getattr(os, operation)

    def slow(*args: Any) -> None:
        begun.set()
        may_go_on.wait(5)
        real(*args)

    target = tmp_path / "a.zip"
    target.write_bytes(b"old")
    async with served.client() as flipsnack:
        monkeypatch.setattr(os, operation, slow)
        saving = asyncio.create_task(served.save(flipsnack, target))
        while not begun.is_set():  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0.001)
        saving.cancel()
        await asyncio.wait([saving], timeout=0.1)
        # Too late for the second: what is there when the caller hears of it is there for good.
        assert (operation == "fsync") is saving.done()
        may_go_on.set()
        await asyncio.wait([saving])
        assert saving.cancelled()
        assert (b"old" if operation == "fsync" else served.package) == target.read_bytes()

        assert 0 == await settled(lambda: len(parts(tmp_path)), 0)
        assert (b"old" if operation == "fsync" else served.package) == target.read_bytes()


def parts(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(".part")]


# --- disks


@pytest.mark.parametrize(
    "name", ["a" * 251, "\u76ee" * 80, "\u00e9" * 120], ids=["1 byte", "3 bytes", "2 bytes"]
)
async def test_f12_whatever_may_be_a_files_name_may_be_a_targets(
    serve: Callable[..., Served], tmp_path: Path, name: str
) -> None:
    """
    A target with as long a name as disks allow, in bytes, is saved like any other.
    """
    served = serve(package_size=5000)
    target = tmp_path / f"{name}.zip"
    assert len(os.fsencode(target.name)) <= 255
    async with served.client() as flipsnack:
        await served.save(flipsnack, target)

    assert served.package == target.read_bytes()
    assert [target.name] == os.listdir(tmp_path)


@counts_descriptors
async def test_a_download_that_is_given_up_is_read_no_further(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    """
    What is no package is told after its first bytes, and its body is left to no garbage collector.
    """
    served = serve()
    before = descriptors()
    served.box.fail_download(body=b"<html>" + bytes(20_000_000))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with served.client() as flipsnack:
            with pytest.raises(DownloadError, match="is no zip archive"):
                await served.save(flipsnack, tmp_path / "a.zip")
            gc.collect()

            assert [] == [str(warning.message) for warning in caught]
            assert [] == os.listdir(tmp_path)
            # One connection to the API stays, which has two ends.
            assert await settled(descriptors, before + 2) <= before + 2 + 3


class SlowDisk(io.FileIO):
    """Be a file that takes 50 ms for each write."""

    writes = 0

    def write(self, data: Any) -> int:
        SlowDisk.writes += 1
        time.sleep(0.05)
        return super().write(data)


async def longest_stall(work: Callable[[], Awaitable[object]]) -> float:
    """Say how late a heartbeat of 5 ms was at the worst while something was done."""
    worst = 0.0

    async def beat() -> None:
        nonlocal worst
        while True:
            before = time.perf_counter()
            await anyio.sleep(0.005)
            worst = max(worst, time.perf_counter() - before - 0.005)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beat)
        await anyio.sleep(0.01)
        await work()
        tasks.cancel_scope.cancel()
    return worst


async def test_what_is_given_up_is_removed_off_the_loop(
    serve: Callable[..., Served],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    anyio_backend: str,
) -> None:
    """
    Removing a large neighbour takes a while, so a thread does it, for whatever it was given up.
    """
    served = serve(package_size=2_000_000)
    removed_by: list[threading.Thread] = []
    real = os.unlink

    def unlink(path: Any, **options: Any) -> None:
        if str(path).endswith(".part"):
            removed_by.append(threading.current_thread())
        real(path, **options)

    monkeypatch.setattr(os, "unlink", unlink)
    async with served.client() as flipsnack:
        with anyio.CancelScope() as scope:
            await flipsnack.collections.save_package(
                served.name, tmp_path / "a.zip", on_progress=lambda *_: scope.cancel()
            )
        assert scope.cancelled_caught
        assert 1 == len(removed_by)
        for times in (1, 2, 3) if anyio_backend == "asyncio" else ():
            began = asyncio.Event()
            saving = asyncio.create_task(
                flipsnack.collections.save_package(
                    served.name, tmp_path / "a.zip", on_progress=lambda *_, b=began: b.set()
                )
            )
            await began.wait()
            for _ in range(times):
                saving.cancel()
                await asyncio.sleep(0)
            await asyncio.wait([saving])
            assert 0 == await settled(lambda: len(parts(tmp_path)), 0)

    assert threading.main_thread() not in removed_by
    assert [] == os.listdir(tmp_path)


async def test_a_slow_disk_does_not_stall_the_loop(
    serve: Callable[..., Served], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    While writes of a package take 50 ms each, everything else goes on.
    """
    served = serve(package_size=1_500_000)
    monkeypatch.setattr(os, "fdopen", lambda descriptor, *_, **__: SlowDisk(descriptor, "w"))
    target, stalls = tmp_path / "a.zip", []
    before = SlowDisk.writes
    async with served.client() as flipsnack:
        for _ in range(4):  # of which the best counts, since the machine may be busy
            stalls.append(await longest_stall(lambda: served.save(flipsnack, target)))
            if stalls[-1] < 0.04:
                break

    assert SlowDisk.writes >= before + 5
    assert min(stalls) < 0.04
    assert served.package == target.read_bytes()


# --- who is told what


class CuttingServerFor:
    """A `CuttingServer` for the length of a block."""

    def __init__(self, *acts: Act) -> None:
        self._acts = acts

    def __enter__(self) -> CuttingServer:
        self._server = CuttingServer(*self._acts)
        return self._server

    def __exit__(self, *exc: object) -> None:
        self._server.close()


class Host:
    """Be the host of a package: keep every byte that comes, and cut the first transfers."""

    def __init__(self, package: bytes, *, cuts: int = 0, leads: str = "") -> None:
        self.package = package
        self.cuts = cuts
        self.leads = leads
        self.heard: list[bytes] = []

    def __call__(self, visit: Visit) -> None:
        visit.read_head = _recording(visit, self.heard)  # type: ignore[method-assign]
        visit.read_all()
        if self.leads:
            visit.send(response(b"", "302 Found", f"Location: {self.leads}"))
        elif self.cuts:
            self.cuts -= 1
            visit.send(response(self.package[:50_000], length=len(self.package)))
            visit.reset()
        else:
            visit.send(response(self.package, "200 OK", "Connection: close"))


def _recording(visit: Visit, heard: list[bytes]) -> Callable[[], None]:
    receive, read_head = visit._received, visit.read_head

    def received(most: int = 2**16) -> bytes:
        heard.append(receive(most))
        return heard[-1]

    visit._received = received  # type: ignore[method-assign]
    return read_head


def complete(link: str) -> bytes:
    """Be the API's answer that a package is ready."""
    return json.dumps(done(status="COMPLETE", resourceUrl=link)).encode()


def nowhere() -> str:
    """Name an address on loopback where nobody listens."""
    server = CuttingServer(listening=False)
    url = server.url
    server.close()
    return f"{url}a.zip"


KEY, SECRET = "KEY-4711-secretive", "SECRET-0815-most-secretive"


async def test_the_packages_host_hears_no_key(serve: Callable[..., Served], tmp_path: Path) -> None:
    """
    Not one byte of key, secret, signature or API address reaches the host, however often asked.
    """
    package = serve().package
    with CuttingServerFor(host := Host(package, cuts=2)) as there:
        first = Host(package, leads=f"{there.url}moved.zip")
        with CuttingServerFor(first) as here:
            link = f"{here.url}fxh4k89.zip"
            api = answering(complete(link))
            with CuttingServerFor(api) as asked:
                async with Flipsnack(KEY, SECRET, api_url=asked.url, rates=()) as flipsnack:
                    target = tmp_path / "a.zip"
                    await flipsnack.collections.save_package("fxh4k89", target)
                address = httpx.URL(asked.url).netloc

    assert package == target.read_bytes()
    assert 1 == asked.heads
    assert (3, 3) == (here.heads, there.heads)
    for text in (b"".join(first.heard), b"".join(host.heard)):
        assert text.startswith(b"GET /v1/")
        told = text.lower()
        for secret in (KEY.encode(), SECRET.encode(), address, b"signature", b"apikey", b"action="):
            assert secret.lower() not in told
        for header in (b"\r\ncookie", b"\r\nauthorization", b"\r\nreferer", b"\r\norigin"):
            assert header not in told


async def test_f6_only_an_api_on_loopback_may_name_links_to_loopback(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    """
    A link by plain http is followed for an API on loopback, and refused for one by https.
    """
    served = serve()
    async with served.client() as flipsnack:
        await served.save(flipsnack, tmp_path / "a.zip")
        found = await flipsnack.collections.download_html(served.name)
    link = found.resource_url or ""
    assert link.startswith("http://127.0.0.1:")
    assert served.package == (tmp_path / "a.zip").read_bytes()
    seen = []

    async def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.host)
        return httpx.Response(200, content=complete(link))

    async with Flipsnack("key", "secret", transport=httpx.MockTransport(answer)) as distant:
        with pytest.raises(DownloadError, match="does not start with https") as caught:
            await distant.collections.save_package(served.name, tmp_path / "b.zip")

    assert link not in str(caught.value)
    assert ["api.flipsnack.com"] == seen
    assert 1 == len(served.box.downloads)
    assert ["a.zip"] == os.listdir(tmp_path)
