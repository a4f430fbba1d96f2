"""The sandbox's packages are real zip files of any size, sent whole or in part, and never held."""

import tracemalloc
from io import BytesIO
from zipfile import ZipFile
from zlib import crc32

import anyio
import attrs
import httpx
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sandbox import ask

from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

MIB = 2**20


async def link_of(sandbox: Sandbox, number: int = 0) -> str:
    """Return a fresh link to the package of a collection, whose export takes no time."""
    name = sandbox.hashes[number]
    answer = await ask(sandbox, "collection.downloadHTML", collectionHash=name)
    url: str = answer["data"]["resourceUrl"]
    return url


async def download(sandbox: Sandbox, url: str, **headers: str) -> httpx.Response:
    """Follow a link; in the names of headers _ stands for -."""
    async with httpx.AsyncClient(transport=sandbox.transport()) as client:
        asked = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.get(url, headers=asked)


@pytest.mark.parametrize("size", [None, 5000, 3 * MIB + 1])
async def test_packages(size: int | None) -> None:
    """
    A package is a sound zip file, of exactly the size it was given, with its title in index.html.
    """
    sandbox = Sandbox(export_seconds=0, package_size=size)
    (listed,) = (await ask(sandbox, "collection.getList", limit="1"))["data"]["collections"]

    answer = await download(sandbox, await link_of(sandbox))

    archive = ZipFile(BytesIO(answer.content))
    assert archive.testzip() is None
    assert listed["collectionTitle"] in archive.read("index.html").decode()
    assert len(archive.namelist()) == (1 if size is None else 9)
    assert len(answer.content) == (size or len(answer.content))
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["accept-ranges"] == "bytes"


async def test_packages_that_cannot_be_so_small() -> None:
    """
    A package that was given too small a size is sound, and no larger than it must be.
    """
    sandbox = Sandbox(export_seconds=0, package_size=1)

    answer = await download(sandbox, await link_of(sandbox))

    archive = ZipFile(BytesIO(answer.content))
    assert archive.testzip() is None
    assert {info.file_size for info in archive.infolist()[1:]} == {0}


@pytest.mark.parametrize("size", [None, 100_000])
async def test_packages_stay_the_same(size: int | None) -> None:
    """
    A collection's package and ETag are the same at every link and in every sandbox of its seed.
    """
    first, second = [Sandbox(export_seconds=0, package_size=size) for _ in range(2)]

    one, again, elsewhere, other = [
        await download(sandbox, await link_of(sandbox, number))
        for sandbox, number in ((first, 0), (first, 0), (second, 0), (first, 1))
    ]

    assert one.content == again.content == elsewhere.content != other.content
    tags = [answer.headers["etag"] for answer in (one, again, elsewhere, other)]
    assert tags[0] == tags[1] == tags[2] != tags[3]


async def test_a_new_title_is_a_new_package() -> None:
    """
    A package whose collection has changed has another ETag.
    """
    sandbox = Sandbox(export_seconds=0)
    url = await link_of(sandbox)
    before = await download(sandbox, url)

    await ask(sandbox, "collection.update", collectionHash=sandbox.hashes[0], title="Tea")
    after = await download(sandbox, url, Range="bytes=1-", If_Range=before.headers["etag"])

    assert after.status_code == 200
    assert before.headers["etag"] != after.headers["etag"]
    assert b"<h1>Tea</h1>" in after.content


@given(cuts=st.lists(st.integers(1, 199_999), max_size=5, unique=True).map(sorted))
@settings(max_examples=25, derandomize=True, deadline=None)
def test_ranges_join(cuts: list[int]) -> None:
    """
    Wherever a package is cut into ranges, they join to the whole.
    """
    sandbox = Sandbox(export_seconds=0, package_size=200_000)

    async def compare() -> None:
        url = await link_of(sandbox)
        whole = await download(sandbox, url)
        joined = b""
        for start, stop in zip([0, *cuts], [*cuts, 200_000], strict=True):
            last = "" if stop == 200_000 else str(stop - 1)
            tag = whole.headers["etag"]
            part = await download(sandbox, url, Range=f"bytes={start}-{last}", If_Range=tag)
            assert part.status_code == 206
            assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/200000"
            assert part.headers["content-length"] == str(stop - start)
            assert part.headers["etag"] == tag
            joined += part.content
        assert whole.content == joined

    anyio.run(compare)


@pytest.mark.parametrize(
    ("asked", "status", "content_range"),
    [
        ("bytes=0-", 206, "bytes 0-4999/5000"),
        ("bytes=4999-", 206, "bytes 4999-4999/5000"),
        ("bytes=4000-999999", 206, "bytes 4000-4999/5000"),
        ("bytes=5000-", 416, "bytes */5000"),
        ("bytes=9000-", 416, "bytes */5000"),
        ("bytes=9000-9001", 416, "bytes */5000"),
        ("bytes=9-8", 200, None),
        ("bytes=-500", 200, None),
        ("bytes=0-1,3-4", 200, None),
        ("pages=0-", 200, None),
    ],
)
async def test_what_is_a_range(asked: str, status: int, content_range: str | None) -> None:
    """
    A range within the package is answered 206, beyond its end 416, and what is none with all of it.
    """
    sandbox = Sandbox(export_seconds=0, package_size=5000)

    answer = await download(sandbox, await link_of(sandbox), Range=asked)

    assert status == answer.status_code
    assert content_range == answer.headers.get("content-range")
    assert len(answer.content) == {200: 5000, 416: 0}.get(status, len(answer.content))
    assert answer.headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize("tag", ['"other"', "Wed, 01 Jan 2025 00:00:00 GMT"])
async def test_ranges_of_another_package(tag: str) -> None:
    """
    A range of what is no longer there is answered with the whole.
    """
    sandbox = Sandbox(export_seconds=0, package_size=5000)

    answer = await download(sandbox, await link_of(sandbox), Range="bytes=9-", If_Range=tag)

    assert (answer.status_code, len(answer.content)) == (200, 5000)


async def test_without_ranges() -> None:
    """
    A sandbox without ranges ignores them, and does not offer any.
    """
    sandbox = Sandbox(export_seconds=0, package_size=5000, ranges=False)

    answer = await download(sandbox, await link_of(sandbox), Range="bytes=9000-")

    assert (answer.status_code, len(answer.content)) == (200, 5000)
    assert "accept-ranges" not in answer.headers


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_expiry(status: int) -> None:
    """
    A link expires with its status, but not for a transfer that began before.
    """
    sandbox = Sandbox(export_seconds=0, package_size=MIB, expired_status=status)
    url = await link_of(sandbox)
    await anyio.sleep(59.9)

    received = b""
    async with httpx.AsyncClient(transport=sandbox.transport()) as client:
        async with client.stream("GET", url) as answer:
            async for chunk in answer.aiter_bytes():
                await anyio.sleep(1.0)
                received += chunk

    assert ZipFile(BytesIO(received)).testzip() is None
    assert (await download(sandbox, url)).status_code == status


async def test_head() -> None:
    """
    HEAD says what GET would, and sends nothing.
    """
    sandbox = Sandbox(export_seconds=0, package_size=MIB)
    url = await link_of(sandbox)
    got = await download(sandbox, url)

    async with httpx.AsyncClient(transport=sandbox.transport()) as client:
        answer = await client.head(url)

    assert got.headers == answer.headers
    assert answer.content == b""
    assert [noted.sent for noted in sandbox.downloads] == [MIB, 0]


async def test_the_ledger_of_downloads() -> None:
    """
    Every download of a link is noted as it arrives, with where it begins and how far it came.
    """
    sandbox = Sandbox(export_seconds=0, package_size=MIB)
    name = sandbox.hashes[0]
    url = await link_of(sandbox)
    start = anyio.current_time()

    async with httpx.AsyncClient(transport=sandbox.transport()) as client:
        async with client.stream("GET", url) as answer:
            noted = sandbox.downloads[0]
            seen = [noted.sent]
            async for chunk in answer.aiter_raw():
                seen.append(noted.sent)
                assert seen[-1] == seen[-2] + len(chunk)
    await download(sandbox, url, Range="bytes=1000000-1000009")
    await download(sandbox, url, Range=f"bytes={MIB}-")
    await anyio.sleep(60.0)
    await download(sandbox, url)
    await download(sandbox, "https://api.flipsnack.test/packages/guess/x.zip")

    assert [attrs.astuple(noted) for noted in sandbox.downloads] == [
        (pytest.approx(start), name, 200, 0, MIB),
        (pytest.approx(start), name, 206, 1_000_000, 10),
        (pytest.approx(start), name, 416, 0, 0),
        (pytest.approx(start + 60.0), name, 403, 0, 0),
    ]


async def test_memory() -> None:
    """
    A package is never in memory as a whole, neither when it is made nor when it is sent.
    """
    sandbox = Sandbox(export_seconds=0, package_size=64 * MIB)
    url = await link_of(sandbox)
    crc = size = 0

    tracemalloc.start()
    try:
        async with httpx.AsyncClient(transport=sandbox.transport()) as client:
            async with client.stream("GET", url) as answer:
                async for chunk in answer.aiter_bytes():
                    crc = crc32(chunk, crc)
                    size += len(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert size == 64 * MIB
    assert peak < 4 * MIB


async def test_a_download_can_be_cancelled() -> None:
    """
    A transfer in process gives way to others, and ends where it is cancelled.
    """
    sandbox = Sandbox(export_seconds=0, package_size=8 * MIB)
    url = await link_of(sandbox)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(download, sandbox, url)
        while not (sandbox.downloads and sandbox.downloads[0].sent):
            await checkpoint()
        tasks.cancel_scope.cancel()

    assert 0 < sandbox.downloads[0].sent < 8 * MIB


async def test_under_another_server() -> None:
    """
    A server that is not the sandbox's own serves packages too.
    """
    sandbox = Sandbox(export_seconds=0, package_size=MIB)
    url = await link_of(sandbox)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(sandbox.app)) as client:
        answer = await client.get(url, headers={"Range": "bytes=1-"})

    assert (answer.status_code, len(answer.content)) == (206, MIB - 1)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_on_a_socket(caplog: pytest.LogCaptureFixture) -> None:
    """
    On a socket packages and ranges are the same, and a client may leave in the middle.
    """
    sandbox = Sandbox(export_seconds=0, package_size=32 * MIB)
    path = httpx.URL(await link_of(sandbox)).path
    there = await download(sandbox, f"https://x.test{path}", Range="bytes=33000000-")

    async with sandbox.serve() as url, httpx.AsyncClient() as client:
        link = httpx.URL(url).join(path)
        part = await client.get(link, headers={"Range": "bytes=33000000-"})
        async with client.stream("GET", link) as answer:
            pass
        with anyio.fail_after(5.0):
            while (await client.head(link)).status_code != 200:
                pass
        whole = await client.get(link)

    assert (part.status_code, part.content) == (206, there.content)
    assert answer.headers["content-length"] == str(32 * MIB)
    assert ZipFile(BytesIO(whole.content)).testzip() is None
    assert sandbox.downloads[2].sent < sandbox.downloads[4].sent == 32 * MIB
    assert caplog.records == []
