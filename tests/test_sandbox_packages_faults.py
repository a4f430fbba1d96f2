"""The sandbox's exports get stuck and its downloads go wrong, as told and no more often."""

from typing import Any

import anyio
import httpx
import pytest
from test_sandbox import ask
from test_sandbox_packages import MIB, download, link_of

from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio


async def received(client: httpx.AsyncClient, url: Any, **headers: str) -> tuple[int, Any]:
    """Download what comes, and return its size and the type of the error that ends it."""
    size = 0
    try:
        async with client.stream("GET", url, headers=headers) as answer:
            async for chunk in answer.aiter_raw():
                size += len(chunk)
    except httpx.TransportError as error:
        return size, type(error)
    return size, None


@pytest.mark.parametrize(
    ("fault", "size", "error"),
    [
        ({"cut_at": 0}, 0, httpx.ReadError),
        ({"cut_at": 1}, 1, httpx.ReadError),
        ({"cut_at": 700_000}, 700_000, httpx.ReadError),
        ({"cut_at": MIB - 1000}, MIB - 1000, None),
        ({"length": 700_000}, 700_000, None),
        ({"length": MIB - 1000}, MIB - 1000, None),
        ({"length": MIB}, MIB - 1000, httpx.RemoteProtocolError),
    ],
)
async def test_transfers_that_go_wrong(fault: dict[str, Any], size: int, error: Any) -> None:
    """
    A transfer is cut, or has a wrong length, counted from where it starts; the next is whole.
    """
    sandbox = Sandbox(export_seconds=0, package_size=MIB)
    url = await link_of(sandbox)
    sandbox.fail_download(**fault)

    async with httpx.AsyncClient(transport=sandbox.transport()) as client:
        broken = await received(client, url, Range="bytes=1000-")
        assert (size, error) == broken
        assert (MIB, None) == await received(client, url)

    assert [noted.sent for noted in sandbox.downloads] == [size, MIB]
    assert [noted.start for noted in sandbox.downloads] == [1000, 0]


async def test_lengths_are_said_as_told() -> None:
    """
    A wrong length is the one that the header says.
    """
    sandbox = Sandbox(export_seconds=0)
    url = await link_of(sandbox)
    sandbox.fail_download(length=7)

    answer = await download(sandbox, url)

    assert (answer.headers["content-length"], len(answer.content)) == ("7", 7)


@pytest.mark.parametrize("status", [404, 416, 500, 503])
async def test_statuses(status: int) -> None:
    """
    A scripted status comes with nothing, whatever was asked for.
    """
    sandbox = Sandbox(export_seconds=0)
    url = await link_of(sandbox)
    sandbox.fail_download(status=status)

    answer = await download(sandbox, url, Range="bytes=5-")

    assert (answer.status_code, answer.content) == (status, b"")
    assert [(noted.status, noted.sent) for noted in sandbox.downloads] == [(status, 0)]


async def test_foreign_bodies() -> None:
    """
    A foreign body comes as HTML, with 200, and is noted with its own size.
    """
    sandbox = Sandbox(export_seconds=0)
    url = await link_of(sandbox)
    sandbox.fail_download(body=b"<html>Log in")

    answer = await download(sandbox, url, Range="bytes=5-")

    assert (answer.status_code, answer.content) == (200, b"<html>Log in")
    assert answer.headers["content-type"].startswith("text/html")
    assert [(noted.status, noted.sent) for noted in sandbox.downloads] == [(200, 12)]


async def test_redirects() -> None:
    """
    A redirect leads to its address, which may be a link of the sandbox under another host.
    """
    sandbox = Sandbox(export_seconds=0)
    url = httpx.URL(await link_of(sandbox))
    elsewhere = str(url.copy_with(host="cdn.test"))
    sandbox.fail_download(redirect=elsewhere)

    async with httpx.AsyncClient(transport=sandbox.transport(), follow_redirects=True) as client:
        answer = await client.get(url)

    assert (str(answer.url), answer.status_code) == (elsewhere, 200)
    assert [noted.status for noted in sandbox.downloads] == [302, 200]


async def test_faults_strike_in_order() -> None:
    """
    Faults strike as often and in the order as told, only their collection, and no dead link.
    """
    sandbox = Sandbox(export_seconds=0, rates=())
    dead = await link_of(sandbox)
    await anyio.sleep(60.0)
    mine, other = await link_of(sandbox, 0), await link_of(sandbox, 1)
    sandbox.fail_download(collection_hash=sandbox.hashes[0], status=500, times=2)
    sandbox.fail_download(status=503)
    sandbox.fail_download(collection_hash=sandbox.hashes[0], status=404, times=None)

    urls = [dead, mine, other, mine, other, mine, mine]
    statuses = [(await download(sandbox, url)).status_code for url in urls]

    assert statuses == [403, 500, 503, 500, 200, 404, 404]
    assert statuses == [noted.status for noted in sandbox.downloads]


@pytest.mark.parametrize(
    "fault",
    [
        {},
        {"status": 500, "body": b""},
        {"cut_at": 0, "length": 0},
        {"cut_at": 0, "times": 0},
        {"cut_at": -5},
        {"length": -1},
        {"status": 99},
    ],
)
def test_faults_that_make_no_sense(fault: dict[str, Any]) -> None:
    """
    A fault is one thing and strikes at least once, or is refused when scripted.
    """
    with pytest.raises(ValueError):
        Sandbox().fail_download(**fault)


@pytest.mark.parametrize(
    "choice",
    [{"package_size": -1}, {"link_seconds": -1}, {"export_seconds": -3}, {"expired_status": 99}],
    ids=str,
)
def test_packages_that_cannot_be(choice: dict[str, Any]) -> None:
    """
    A sandbox with such packages is refused when it is made, naming the argument.
    """
    with pytest.raises(ValueError, match=next(iter(choice))):
        Sandbox(**choice)


def test_faults_of_nothing() -> None:
    """
    What has no collection can neither fail nor stall.
    """
    with pytest.raises(KeyError):
        Sandbox().fail_download(collection_hash="fxh4k89", status=500)
    with pytest.raises(KeyError):
        Sandbox().stall_export("fxh4k89")


@pytest.mark.parametrize("fault", [{"cut_at": 9}, {"length": MIB}])
async def test_cuts_need_a_connection(fault: dict[str, Any]) -> None:
    """
    Under a server that is not the sandbox's own, a cut is refused in words.
    """
    sandbox = Sandbox(export_seconds=0)
    url = await link_of(sandbox)
    sandbox.fail_download(**fault)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(sandbox.app)) as client:
        with pytest.raises(RuntimeError, match=r"Sandbox\.serve"):
            await client.get(url)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_faults_on_a_socket(caplog: pytest.LogCaptureFixture) -> None:
    """
    On a socket transfers break in the same way, a reset taking back some of what was sent.
    """
    sandbox = Sandbox(export_seconds=0, package_size=MIB)
    path = httpx.URL(await link_of(sandbox)).path
    sandbox.fail_download(cut_at=700_000)
    sandbox.fail_download(length=2 * MIB)
    sandbox.fail_download(length=1000)
    sandbox.fail_download(status=503)
    sandbox.fail_download(body=b"<html>")
    sandbox.fail_download(redirect="https://cdn.test/a b")

    async with sandbox.serve() as url, httpx.AsyncClient() as client:
        link = httpx.URL(url).join(path)
        (size, error), *outcomes = [await received(client, link) for _ in range(3)]
        unavailable, foreign, moved, whole = [await client.get(link) for _ in range(4)]

    assert (error, sandbox.downloads[0].sent) == (httpx.ReadError, 700_000)
    assert size <= 700_000
    assert outcomes == [(MIB, httpx.RemoteProtocolError), (1000, None)]
    assert (unavailable.status_code, foreign.content) == (503, b"<html>")
    assert (moved.status_code, moved.headers["location"]) == (302, "https://cdn.test/a%20b")
    assert (whole.status_code, len(whole.content)) == (200, MIB)
    assert caplog.records == []


async def progress(sandbox: Sandbox, number: int) -> str:
    """Ask how far an export is."""
    name = sandbox.hashes[number]
    answer = await ask(sandbox, "collection.downloadHTML", collectionHash=name)
    status: str = answer["data"]["status"]
    return status


async def test_stalled_exports() -> None:
    """
    A stalled export is PROCESSING for ever, even if it was complete, and may still be failed.
    """
    sandbox = Sandbox()
    before = [await progress(sandbox, number) for number in (0, 1)]
    await anyio.sleep(20.0)
    sandbox.stall_export(sandbox.hashes[0])
    await anyio.sleep(80_000.0)
    after = [await progress(sandbox, number) for number in (0, 1)]
    sandbox.fail_export(sandbox.hashes[0])

    assert before == ["PROCESSING", "PROCESSING"]
    assert after == ["PROCESSING", "COMPLETE"]
    assert await progress(sandbox, 0) == "FAILED"


async def test_exports_that_differ() -> None:
    """
    A function says how long each export takes, and is asked once for each.
    """
    seconds = iter([90.0, 10.0])
    sandbox = Sandbox(export_seconds=lambda: next(seconds))

    async def both() -> list[str]:
        return [await progress(sandbox, number) for number in (0, 1)]

    assert await both() == ["PROCESSING", "PROCESSING"]
    await anyio.sleep(11.0)
    assert await both() == ["PROCESSING", "COMPLETE"]
    await anyio.sleep(80.0)
    assert await both() == ["COMPLETE", "COMPLETE"]
