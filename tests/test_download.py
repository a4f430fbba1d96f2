"""Packages on their way to disk: the target is whole, or as it was."""

from __future__ import annotations

import errno
import io
import os
import random
import shutil
import time
import zipfile
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from scripted import done

from flipsnack_async import (
    DownloadError,
    ExportFailedError,
    Flipsnack,
    InvalidArgumentError,
    SavedPackage,
)
from flipsnack_async import _download as download

pytestmark = pytest.mark.anyio


def package(size: int = 300_000) -> bytes:
    content = random.Random(1).randbytes(size)  # noqa: S311  no secret
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("index.html", "<!doctype html>")
        archive.writestr("assets/page_1.jpg", content)
    return file.getvalue()


PACKAGE = package()
Act = Callable[["Host", httpx.Request], httpx.Response | None]


class Body(httpx.AsyncByteStream):
    """Be a body in chunks, which breaks off where *cut* says."""

    def __init__(self, data: bytes, cut: int | None = None) -> None:
        self._data = data if cut is None else data[:cut]
        self._breaks = cut is not None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._data), 10_000):
            yield self._data[start : start + 10_000]
        if self._breaks:
            raise httpx.ReadError("cut")


class Host(httpx.AsyncBaseTransport):
    """Be the API and the host of its packages; *acts* replace its next answers to downloads."""

    def __init__(self, *acts: Act, ranges: bool = True, etag: str = '"1"') -> None:
        self.acts = list(acts)
        self.ranges = ranges
        self.etag = etag
        self.content = PACKAGE
        self.links = 0
        self.seen: list[httpx.Request] = []
        self.link = "https://cdn.example.com/p{}.zip"
        self.status = "COMPLETE"

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "api.flipsnack.com":
            self.links += 1
            return httpx.Response(
                200, json=done(status=self.status, resourceUrl=self.link.format(self.links))
            )
        self.seen.append(request)
        answer = self.acts.pop(0)(self, request) if self.acts else None
        return answer or self.serve(request)

    def serve(self, request: httpx.Request, cut: int | None = None) -> httpx.Response:
        headers = {"ETag": self.etag} if self.etag else {}
        start, status = 0, 200
        wants_rest = "Range" in request.headers and request.headers.get("If-Range") == self.etag
        if self.ranges and wants_rest:
            start = int(request.headers["Range"][6:-1])
            status, last = 206, len(self.content) - 1
            headers["Content-Range"] = f"bytes {start}-{last}/{len(self.content)}"
        data = self.content[start:]
        headers["Content-Length"] = str(len(data))
        return httpx.Response(status, headers=headers, stream=Body(data, cut))

    def client(self, **options: Any) -> Flipsnack:
        return Flipsnack("somekey-1234", "somesecret-1234", transport=self, rates=(), **options)


def cut(at: int) -> Act:
    return lambda host, request: host.serve(request, at)


def saying(status: int, **headers: str) -> Act:
    return lambda host, request: httpx.Response(status, headers=headers)


async def save(host: Host, target: Path, **options: Any) -> SavedPackage:
    async with host.client() as flipsnack:
        return await flipsnack.collections.save_package("fxh4k89", target, **options)


def alone(target: Path) -> bool:
    """Say whether nothing but the target is in its folder."""
    return [target.name] == os.listdir(target.parent)


async def test_a_package_is_saved(tmp_path: Path) -> None:
    """
    The file has every byte, its size and digest are told, and nothing else is left beside it.
    """
    host, told = Host(), []
    target = tmp_path / "spring.zip"
    saved = await save(host, target, on_progress=lambda *numbers: told.append(numbers))

    assert PACKAGE == target.read_bytes()
    assert SavedPackage("fxh4k89", target, len(PACKAGE), sha256(PACKAGE).hexdigest()) == saved
    assert alone(target)
    assert (len(PACKAGE), len(PACKAGE)) == told[-1]
    assert 1 == host.links


async def test_a_download_carries_no_key(tmp_path: Path) -> None:
    """
    What goes to the packages' host has neither key nor signature, and asks for no compression.
    """
    host = Host()
    await save(host, tmp_path / "a.zip")

    [request] = host.seen
    told = f"{request.url} {request.headers} {request.extensions}"
    assert "somekey" not in told
    assert "signature" not in told
    assert "identity" == request.headers["Accept-Encoding"]


async def test_f13_an_existing_target_is_refused_before_any_call(tmp_path: Path) -> None:
    """
    Without leave to overwrite, a file that is there stays, and no call is made; with it, it goes.
    """
    target = tmp_path / "a.zip"
    target.write_bytes(b"mine")
    host = Host()
    with pytest.raises(InvalidArgumentError, match="exists; allow to overwrite"):
        await save(host, target)
    assert (0, []) == (host.links, host.seen)
    assert b"mine" == target.read_bytes()

    await save(host, target, overwrite=True)

    assert PACKAGE == target.read_bytes()


async def test_f13_a_target_that_appears_meanwhile_stays(tmp_path: Path) -> None:
    """
    A file that somebody else put there during the download is not overwritten.
    """
    target = tmp_path / "a.zip"

    def intrude(host: Host, request: httpx.Request) -> None:
        target.write_bytes(b"theirs")

    with pytest.raises(InvalidArgumentError, match="exists"):
        await save(Host(intrude), target)

    assert b"theirs" == target.read_bytes()
    assert alone(target)


@pytest.mark.parametrize(
    ("target", "problem"), [("folder", "is a folder"), ("nowhere/a.zip", "does not exist")]
)
async def test_a_bad_target_is_found_first(tmp_path: Path, target: str, problem: str) -> None:
    """
    A folder, or a file in one that isn't there, is told before any call.
    """
    (tmp_path / "folder").mkdir()
    host = Host()
    with pytest.raises(InvalidArgumentError, match=problem) as caught:
        await save(host, tmp_path / target)

    assert "target" == caught.value.field
    assert 0 == host.links


async def test_f1_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    """
    Where there is no package, there is no file.
    """
    host = Host()
    host.status = "FAILED"
    with pytest.raises(ExportFailedError):
        await save(host, tmp_path / "a.zip")

    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_f4_an_expired_link_is_asked_for_anew(tmp_path: Path, status: int) -> None:
    """
    A link that leads nowhere any more costs one more call, and no byte twice.
    """
    host = Host(cut(120_000), saying(status))
    await save(host, tmp_path / "a.zip")

    assert PACKAGE == (tmp_path / "a.zip").read_bytes()
    assert 2 == host.links
    assert [None, "bytes=120000-", "bytes=120000-"] == [r.headers.get("Range") for r in host.seen]
    assert ["/p1.zip", "/p1.zip", "/p2.zip"] == [request.url.path for request in host.seen]


async def test_f4_links_that_never_work_are_given_up(tmp_path: Path) -> None:
    """
    After a few links that expire at once it is said so.
    """
    host = Host(*[saying(403)] * 50)
    with pytest.raises(DownloadError, match="its link expires too soon"):
        await save(host, tmp_path / "a.zip")

    assert 6 == host.links
    assert [] == os.listdir(tmp_path)


async def test_f18_an_old_link_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    After 45 s by either clock, a link is asked for anew before it is followed again.
    """

    def late(host: Host, request: httpx.Request) -> httpx.Response:
        class Slow(Body):
            async def __aiter__(self) -> AsyncIterator[bytes]:
                yield PACKAGE[:10]
                for _ in range(3):
                    await anyio.sleep(20)
                    yield PACKAGE[10:20]
                raise httpx.ReadError("cut")

        headers = {"ETag": host.etag, "Content-Length": str(len(PACKAGE))}
        return httpx.Response(200, headers=headers, stream=Slow(b""))

    host = Host(late, ranges=False)
    await save(host, tmp_path / "a.zip")
    assert 2 == host.links

    class Sleepy(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=50)

    monkeypatch.setattr(download, "datetime", Sleepy)
    host = Host(cut(5))
    await save(host, tmp_path / "b.zip")
    assert 3 == host.links  # asked, stale at once, and stale again after the cut


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("etag", ['"1"', 'W/"1"', ""])
async def test_f10_a_transfer_is_taken_up_or_begun_again(
    tmp_path: Path, ranges: bool, etag: str
) -> None:
    """
    Where the host has the same file still, only the rest is fetched; else it is fetched anew.
    """
    host = Host(cut(100_000), cut(50_000), ranges=ranges, etag=etag)
    await save(host, tmp_path / "a.zip")

    assert PACKAGE == (tmp_path / "a.zip").read_bytes()
    asked = [request.headers.get("Range") for request in host.seen]
    if etag != '"1"':
        assert [None, None, None] == asked
    elif ranges:
        assert [None, "bytes=100000-", "bytes=150000-"] == asked
    else:
        assert [None, "bytes=100000-", "bytes=50000-"] == asked


async def test_f10_a_file_that_changed_is_fetched_anew(tmp_path: Path) -> None:
    """
    Two halves of different files never make one.
    """
    other = package(200_000)

    def swap(host: Host, request: httpx.Request) -> None:
        host.content, host.etag = other, '"2"'

    await save(Host(cut(100_000), swap), tmp_path / "a.zip")

    assert other == (tmp_path / "a.zip").read_bytes()


@pytest.mark.parametrize(
    "wrong", ["bytes 7-{last}/{size}", "bytes {start}-{last}/*", "nonsense", ""]
)
async def test_f10_a_range_that_goes_on_elsewhere_is_not_believed(
    tmp_path: Path, wrong: str
) -> None:
    """
    A host that continues at another place than asked is asked for the whole.
    """

    def lie(host: Host, request: httpx.Request) -> httpx.Response:
        answer = host.serve(request)
        size = len(PACKAGE)
        answer.headers["Content-Range"] = wrong.format(start=100_000, last=size - 1, size=size)
        return answer

    await save(Host(cut(100_000), lie), tmp_path / "a.zip")

    assert PACKAGE == (tmp_path / "a.zip").read_bytes()


async def test_f10_cuts_anywhere_make_no_other_file(tmp_path: Path) -> None:
    """
    However often and wherever transfers are cut, the target is byte for byte the package.
    """
    chance = random.Random(2)  # noqa: S311  no secret
    cuts = 0
    for n in range(60):
        acts = [cut(chance.randrange(len(PACKAGE))) for _ in range(chance.randrange(1, 6))]
        host = Host(*acts, ranges=chance.random() < 0.7)
        target = tmp_path / f"{n}.zip"
        await save(host, target)
        cuts += len(acts) - len(host.acts)
        assert PACKAGE == target.read_bytes()
        target.unlink()

    assert cuts > 100
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"<html>Not here</html>", "is no zip archive"),
        (b"PK\x03\x04 and nothing more", None),
        (PACKAGE[:-1], None),
        (PACKAGE[:5000] + b"?" + PACKAGE[5001:], None),
        (b"", None),
    ],
    ids=["html", "head", "torn", "flipped", "empty"],
)
async def test_f11_what_is_no_whole_archive_never_appears(
    tmp_path: Path, content: bytes, problem: str | None
) -> None:
    """
    A page, a torn archive or one with a wrong byte is told as such, and the target stays away.
    """
    host = Host()
    host.content = content
    with pytest.raises(DownloadError, match=problem) as caught:
        await save(host, tmp_path / "a.zip")

    assert "fxh4k89" == caught.value.subject
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize("more", [-7, 7])
async def test_f11_a_wrong_length_is_not_believed(tmp_path: Path, more: int) -> None:
    """
    A file that is not as long as its host said is not the file.
    """

    def lie(host: Host, request: httpx.Request) -> httpx.Response:
        answer = host.serve(request)
        answer.headers["Content-Length"] = str(len(PACKAGE) + more)
        return answer

    with pytest.raises(DownloadError):
        await save(Host(*[lie] * 50, ranges=False, etag=""), tmp_path / "a.zip")

    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize("operation", ["open", "write", "fsync", "replace"])
async def test_f12_a_full_disk_leaves_the_target_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """
    Where the disk gives up, the error says so and nothing is left of the attempt.
    """
    target = tmp_path / "a.zip"
    target.write_bytes(b"before")

    def full(*args: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    class FullDisk(io.FileIO):
        def write(self, data: Any) -> int:
            if operation == "write":
                full()
            return super().write(data)

    monkeypatch.setattr(os, "fdopen", lambda fd, *_, **__: FullDisk(fd, "w"))
    if operation != "write":
        monkeypatch.setattr(os, operation, full)

    with pytest.raises(DownloadError, match="No space left on device"):
        await save(Host(), target, overwrite=True)

    monkeypatch.undo()
    assert b"before" == target.read_bytes()
    assert alone(target)


async def test_f12_a_package_that_cannot_fit_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The free space is compared with the length before anything is written.
    """

    class Usage:
        free = len(PACKAGE) - 1

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage)

    with pytest.raises(DownloadError, match="No space left"):
        await save(Host(), tmp_path / "a.zip")

    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize(
    "link",
    ["http://cdn.example.com/a", "https://127.0.0.1/a", "https://10.0.0.1/a", "file:///etc/passwd"],
)
async def test_f6_f7_f8_an_unsafe_link_is_not_followed(tmp_path: Path, link: str) -> None:
    """
    A link that leads inside, or not by https, is refused in words that don't repeat it.
    """
    host = Host()
    host.link = link
    with pytest.raises(DownloadError, match="its link") as caught:
        await save(host, tmp_path / "a.zip")

    assert link not in str(caught.value)
    assert [] == host.seen


async def test_f9_redirects_are_followed_three_times(tmp_path: Path) -> None:
    """
    Up to three redirects are followed, each checked, and nothing secret goes along.
    """
    leads = [saying(302, Location=f"https://h{n}.example.com/{n}.zip") for n in range(4)]
    host = Host(*leads[:3])
    await save(host, tmp_path / "a.zip")
    assert ["cdn.example.com", "h0.example.com", "h1.example.com", "h2.example.com"] == [
        request.url.host for request in host.seen
    ]

    for bad in (leads, [saying(302, Location="https://169.254.169.254/")]):
        with pytest.raises(DownloadError, match="its link leads"):
            await save(Host(*bad), tmp_path / "b.zip")


@pytest.mark.parametrize("status", [500, 503, 416])
async def test_a_host_in_trouble_is_asked_again(tmp_path: Path, status: int) -> None:
    """
    A host that fails for a moment is given another chance.
    """
    await save(Host(saying(status), cut(10_000), saying(status)), tmp_path / "a.zip")

    assert PACKAGE == (tmp_path / "a.zip").read_bytes()


async def test_other_answers_are_told(tmp_path: Path) -> None:
    """
    What the host refuses for good is not asked for again.
    """
    host = Host(saying(401))
    with pytest.raises(DownloadError, match="HTTP 401"):
        await save(host, tmp_path / "a.zip")
    with pytest.raises(DownloadError, match="compressed"):
        await save(Host(saying(200, **{"Content-Encoding": "br"})), tmp_path / "a.zip")

    assert 1 == len(host.seen)


async def test_a_silent_host_is_given_up(tmp_path: Path) -> None:
    """
    The timeout counts seconds without progress, in the head and in the body.
    """

    class Silent(Host):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.host == "api.flipsnack.com":
                return await super().handle_async_request(request)
            await anyio.sleep_forever()
            raise AssertionError

    host = Silent()
    began = anyio.current_time()
    with pytest.raises(DownloadError, match="no answer within 5 s"):
        async with host.client(timeout=5) as flipsnack:
            await flipsnack.collections.save_package("fxh4k89", tmp_path / "a.zip")

    assert anyio.current_time() - began < 6 * 5 + 70


async def test_f19_a_cancelled_download_leaves_nothing(tmp_path: Path) -> None:
    """
    Whenever a download is cancelled, no file of it stays behind.
    """

    class Slow(Body):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for start in range(0, len(PACKAGE), 10_000):
                await anyio.sleep(0.1)
                yield PACKAGE[start : start + 10_000]

    def slowly(host: Host, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Slow(b""))

    for step in range(12):
        with anyio.move_on_after(0.3 * step) as scope:
            await save(Host(slowly), tmp_path / "a.zip")
        if scope.cancelled_caught:
            assert [] == os.listdir(tmp_path)

    assert PACKAGE == (tmp_path / "a.zip").read_bytes()


async def test_f14_what_a_kill_left_behind_is_swept(tmp_path: Path) -> None:
    """
    The next download of a target removes its old neighbours, and nobody else's or new ones.
    """
    names = [
        ".a.zip.0123456789abcdef.part",
        ".a.zip.0123456789abcde0.part",
        ".b.zip.0123.part",
        "a.zip.part",
    ]
    for name in names:
        path = tmp_path / name
        path.write_bytes(b"PK")
        if "cde0" not in name:
            os.utime(path, (time.time() - 7200,) * 2)

    await save(Host(), tmp_path / "a.zip")

    assert {"a.zip", *names[1:]} == set(os.listdir(tmp_path))


async def test_the_time_of_asking_is_known(tmp_path: Path) -> None:
    """
    A package that is complete at once is fetched within the minute of its link.
    """
    before = datetime.now(UTC)
    host = Host()
    async with host.client() as flipsnack:
        found = await flipsnack.collections.download_html("fxh4k89")

    assert found.asked_at is not None
    assert found.asked_at >= before
