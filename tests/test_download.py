"""Packages on their way to disk: the target is whole, or as it was."""

from __future__ import annotations

import errno
import io
import os
import random
import shutil
import threading
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from scripted import done

from flipsnack_async import (
    ClientClosedError,
    DownloadError,
    ExportFailedError,
    ExportTimeoutError,
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
    ("target", "problem"),
    [
        ("folder", "is a folder"),
        ("..", "is a folder"),
        ("nowhere/a.zip", "does not exist"),
        ("file/a.zip", "does not exist"),
        ("n" * 256, "File name too long"),
        ("", "names no file"),
        (".", "names no file"),
        ("a\0b", "text, without NUL"),
        ("\ud800.zip", "text, without NUL"),
        (b"a.zip", "text, without NUL"),
        (None, "text, without NUL"),
        (5, "text, without NUL"),
    ],
    ids=lambda value: ascii(value)[:12],
)
async def test_a_bad_target_is_found_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Any, problem: str
) -> None:
    """
    What is a folder, in one that isn't there, or no name of a file at all, is told before any call.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    host = Host()
    with pytest.raises(InvalidArgumentError, match=problem) as caught:
        await save(host, target)

    assert "target" == caught.value.field
    assert 0 == host.links


async def test_a_folder_that_may_not_be_written_to_is_found_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A folder without leave to write is told before any call, and not after minutes.
    """
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    host = Host()
    with pytest.raises(InvalidArgumentError, match="may not be written to"):
        await save(host, tmp_path / "a.zip")

    assert 0 == host.links


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("elsewhere", path)])
async def test_what_is_no_file_is_not_overwritten(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    """
    Leave to overwrite is leave to replace a file, and not a pipe or a link.
    """
    make(tmp_path / "a.zip")
    host = Host()
    with pytest.raises(InvalidArgumentError, match="is no regular file"):
        await save(host, tmp_path / "a.zip", overwrite=True)

    assert 0 == host.links
    assert alone(tmp_path / "a.zip")


@pytest.mark.parametrize(
    "option",
    [{"within": 10**400}, {"within": 0}, {"within": None}, {"on_progress": anyio.sleep}],
    ids=lambda option: str(option)[:20],
)
async def test_a_bad_option_is_found_first(tmp_path: Path, option: dict[str, Any]) -> None:
    """
    What is no number of seconds, and a function that would have to be awaited, are told at once.
    """
    host = Host()
    with pytest.raises(InvalidArgumentError, match="|".join(option)):
        await save(host, tmp_path / "a.zip", **option)

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

    assert 1 + 3 == host.links
    assert [] == os.listdir(tmp_path)


async def test_within_bounds_the_waits_for_all_links_together(tmp_path: Path) -> None:
    """
    A host whose links expire, and an API that builds the package anew each time, end in time.
    """

    class Rebuilding(Host):
        ready_at = 0.0

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            self.status = "COMPLETE" if anyio.current_time() >= self.ready_at else "PROCESSING"
            return await super().handle_async_request(request)

    def expire(host: Host, request: httpx.Request) -> httpx.Response:
        assert isinstance(host, Rebuilding)
        host.ready_at = anyio.current_time() + 250
        return httpx.Response(403)

    began = anyio.current_time()
    with pytest.raises(ExportTimeoutError, match="not ready within 600 s"):
        await save(Rebuilding(*[expire] * 50), tmp_path / "a.zip", within=600)

    assert 550 < anyio.current_time() - began < 700
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


@pytest.mark.parametrize("etag", ['"\xe9"', '"a\x01b"', '"a", "b"', "a b", '"', ""], ids=ascii)
async def test_f10_a_tag_that_cannot_be_sent_back_is_none(tmp_path: Path, etag: str) -> None:
    """
    After a cut, a file is begun again where its tag is no strong one in plain ASCII.
    """

    def tag(host: Host, request: httpx.Request) -> httpx.Response:
        assert "If-Range" not in request.headers
        answer = host.serve(request, 100_000 if len(host.seen) == 1 else None)
        return httpx.Response(
            200,
            headers=[(b"ETag", etag.encode("latin-1")), *answer.headers.raw],
            stream=answer.stream,
        )

    await save(Host(tag, tag, etag=""), tmp_path / "a.zip")

    assert PACKAGE == (tmp_path / "a.zip").read_bytes()


def ranged(content: bytes, **headers: str) -> Act:
    """Go on in *content*, whatever was there before."""

    def act(host: Host, request: httpx.Request) -> httpx.Response:
        start, last = int(request.headers["Range"][6:-1]), len(content) - 1
        told = {"Content-Range": f"bytes {start}-{last}/{len(content)}", **headers}
        return httpx.Response(206, headers=told, stream=Body(content[start:]))

    return act


async def test_f10_a_file_of_another_length_is_another_file(tmp_path: Path) -> None:
    """
    A host that goes on with the same tag in a longer file is asked for the whole.
    """
    longer = ranged(PACKAGE + b"more", ETag='"1"')
    host = Host(cut(100_000), longer)
    await save(host, tmp_path / "a.zip")

    assert PACKAGE == (tmp_path / "a.zip").read_bytes()
    assert [None, "bytes=100000-", None] == [r.headers.get("Range") for r in host.seen]


def without_a_length(size: int) -> Act:
    return lambda host, request: httpx.Response(200, stream=Body(host.content[:size]))


@pytest.mark.parametrize(
    "acts",
    [[cut(100_000), ranged(PACKAGE[:-1] + b"?")], [without_a_length(100_000)]],
    ids=["pieces", "no length"],
)
async def test_f10_what_may_be_wrong_by_chance_is_fetched_once_more(
    tmp_path: Path, acts: list[Act]
) -> None:
    """
    What was pieced together, or may have been cut unnoticed, and is not whole, is begun again.
    """
    await save(Host(*acts), tmp_path / "a.zip")
    assert PACKAGE == (tmp_path / "a.zip").read_bytes()

    host = Host(*[without_a_length(100_000)] * 50)
    with pytest.raises(DownloadError, match="zip"):
        await save(host, tmp_path / "b.zip")
    assert 2 == len(host.seen)


async def test_f10_a_host_that_goes_on_in_small_pieces_gets_there(tmp_path: Path) -> None:
    """
    As long as each transfer goes on where the last one ended, there may be any number of them.
    """
    host = Host(*[cut(10_000)] * 29)
    await save(host, tmp_path / "a.zip")

    assert PACKAGE == (tmp_path / "a.zip").read_bytes()
    assert 30 < len(host.seen) + 2


async def test_f10_a_host_that_always_begins_anew_is_given_up(tmp_path: Path) -> None:
    """
    Where nothing that came is of use later, it is fetched a few times and not for ever.
    """
    further = [cut(10_000 * (n + 1)) for n in range(29)]
    host = Host(*further, ranges=False)
    with pytest.raises(DownloadError, match="the connection broke"):
        await save(host, tmp_path / "a.zip")
    assert 6 == len(host.seen)

    # Neither does what goes on in between renew the tries of those that begin anew.
    def changed(host: Host, request: httpx.Request) -> httpx.Response:
        host.etag = f'"{len(host.seen)}"'
        return host.serve(request, 50_000)

    host = Host(*[changed, cut(10_000)] * 20)
    with pytest.raises(DownloadError, match="began it too often"):
        await save(host, tmp_path / "b.zip")
    assert 2 * 6 + 1 == len(host.seen)


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


class Endless(httpx.AsyncByteStream):
    """Be a body that never ends, and know how much of it was taken."""

    taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await anyio.sleep(0.01)
            self.taken += 10_000
            yield b"PK" * 5000


async def test_a_body_that_waits_for_nothing_can_be_given_up(tmp_path: Path) -> None:
    """
    What a host sends faster than it is looked at is ended, too, when it is no package.
    """

    class Flood(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                yield b"<html>" * 10_000

    flood = httpx.Response(200, stream=Flood())
    with pytest.raises(DownloadError, match="is no zip archive"):
        await save(Host(lambda host, request: flood), tmp_path / "a.zip")

    assert [] == os.listdir(tmp_path)


async def test_f12_an_endless_package_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    No more is written than any package may have, whether or not its host says how long it is.
    """
    monkeypatch.setattr(download, "MOST_BYTES", 1_000_000)
    for headers, most in (({}, 1_500_000), ({"Content-Length": "1000001"}, 50_000)):
        body = Endless()
        answer = httpx.Response(200, headers=headers, stream=body)
        host = Host(lambda host, request, answer=answer: answer)  # type: ignore[misc]
        with pytest.raises(DownloadError, match="is longer than 1000000 bytes"):
            await save(host, tmp_path / "a.zip")
        assert body.taken <= most
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


async def test_a_disk_that_does_not_tell_its_room_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Where the free space is not known, the package is fetched all the same.
    """

    def unknown(path: Path) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(shutil, "disk_usage", unknown)
    await save(Host(), tmp_path / "a.zip")

    assert PACKAGE == (tmp_path / "a.zip").read_bytes()


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

    with pytest.raises(DownloadError, match="its link redirects more than three times"):
        await save(Host(*leads), tmp_path / "b.zip")
    with pytest.raises(DownloadError, match="its link leads to no public host"):
        await save(Host(saying(302, Location="https://169.254.169.254/")), tmp_path / "b.zip")


class Watched(Body):
    """Be a body that knows whether it was closed."""

    is_closed = False

    async def aclose(self) -> None:
        self.is_closed = True


async def test_f9_what_is_not_read_is_closed(tmp_path: Path) -> None:
    """
    Every answer is closed, however many redirects there are and wherever they lead.
    """
    for location in ("/p1.zip", "https://127.0.0.1/", "https://1.2.3.4:443[v1.x]/?secret"):
        bodies = [Watched(b"moved") for _ in range(9)]
        left = iter(bodies)

        def move(
            host: Host,
            request: httpx.Request,
            location: str = location,
            left: Iterator[Watched] = left,
        ) -> httpx.Response:
            return httpx.Response(302, headers={"Location": location}, stream=next(left))

        host = Host(*[move] * 9)
        with pytest.raises(DownloadError, match="its link") as caught:
            await save(host, tmp_path / "a.zip")

        assert "secret" not in str(caught.value)
        assert (4 if location == "/p1.zip" else 1) == len(host.seen)
        assert [True] * len(host.seen) == [b.is_closed for b in bodies[: len(host.seen)]]


async def test_a_name_that_cannot_be_looked_up_is_no_link(tmp_path: Path) -> None:
    """
    A host that only the system's own reader refuses ends in words, and not with its error.
    """

    def refuse(host: Host, request: httpx.Request) -> None:
        raise UnicodeError("label too long: secret")

    with pytest.raises(DownloadError, match="its link names no host") as caught:
        await save(Host(refuse), tmp_path / "a.zip")

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("status", [408, 416, 429, 500, 503])
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


@pytest.mark.parametrize("encoding", ["Identity", ""])
async def test_what_is_not_compressed_may_be_said_in_other_ways(
    tmp_path: Path, encoding: str
) -> None:
    """
    A host that writes identity with a capital, or nothing, has compressed nothing.
    """

    def say(host: Host, request: httpx.Request) -> httpx.Response:
        answer = host.serve(request)
        answer.headers["Content-Encoding"] = encoding
        return answer

    await save(Host(say), tmp_path / "a.zip")

    assert PACKAGE == (tmp_path / "a.zip").read_bytes()


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
    with pytest.raises(DownloadError, match="nothing came for 5 s"):
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


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])  # with threads, and time as it is
async def test_f19_a_check_is_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    However long it takes to check a package, a cancellation waits for a part of that only.
    """
    begun = threading.Event()
    cancelled: list[float] = []

    def slow(path: Path, subject: str) -> Iterator[None]:
        begun.set()
        for _ in range(300):
            time.sleep(0.01)
            yield

    async def cancel() -> None:
        await anyio.to_thread.run_sync(begun.wait, 10)
        cancelled.append(time.monotonic())
        tasks.cancel_scope.cancel()

    monkeypatch.setattr(download, "checking", slow)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel)
        await save(Host(), tmp_path / "a.zip")

    assert time.monotonic() < cancelled[0] + 1.5
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize("is_silent", [True, False])
async def test_closing_the_client_breaks_downloads_off(tmp_path: Path, is_silent: bool) -> None:
    """
    What is on its way when the client is closed raises that at once, and leaves nothing.
    """
    body = Body(b"") if is_silent else Endless()
    raised: list[BaseException] = []

    class Slow(Host):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.host != "api.flipsnack.com" and is_silent:
                await anyio.sleep_forever()
            return await super().handle_async_request(request)

    host = Slow(lambda host, request: httpx.Response(200, stream=body))
    flipsnack = host.client()

    async def save_one() -> None:
        try:
            await flipsnack.collections.save_package("fxh4k89", tmp_path / "a.zip")
        except ClientClosedError as error:
            raised.append(error)

    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(save_one)
        await anyio.sleep(1)
        await flipsnack.aclose()

    assert [None] == [error.__context__ for error in raised]
    assert anyio.current_time() - began < 1.1
    assert [] == os.listdir(tmp_path)


async def test_f14_a_neighbour_that_somebody_swept_is_begun_again(tmp_path: Path) -> None:
    """
    Whose neighbour was taken for left behind, while it waited for a link, fetches all of it.
    """

    def sweep(host: Host, request: httpx.Request) -> httpx.Response:
        [part] = tmp_path.glob(".a.zip.*.part")
        part.unlink()
        return httpx.Response(403)

    host = Host(cut(100_000), sweep)
    await save(host, tmp_path / "a.zip")

    assert PACKAGE == (tmp_path / "a.zip").read_bytes()
    assert [None, "bytes=100000-", None] == [r.headers.get("Range") for r in host.seen]


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
