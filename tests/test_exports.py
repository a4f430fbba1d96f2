"""Many packages at once: a row for each, files that are whole, and as few calls as it takes."""

from __future__ import annotations

import math
import os
import random
import zipfile
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import anyio
import httpx
import pytest
from scripted import client

from flipsnack_async import (
    AuthenticationError,
    Collection,
    CollectionUnavailableError,
    DownloadError,
    ExportFailedError,
    ExportTimeoutError,
    Flipsnack,
    InvalidArgumentError,
    PackageRow,
)
from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

SIZE = 20_000


@pytest.fixture(autouse=True)
def no_syncing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the disk, since no power fails here."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


async def gather(rows: Any) -> dict[str, PackageRow]:
    """Take all rows, each of which holds a package or an error, and is the only one of its hash."""
    taken = {}
    async for row in rows:
        assert row.collection_hash not in taken
        assert (row.package is None) is (row.error is not None)
        taken[row.collection_hash] = row
    return taken


async def export(box: Sandbox, folder: Path, refs: Any = None, **options: Any) -> Any:
    async with client(box) as flipsnack:
        async with flipsnack.export_many(refs, folder, **options) as rows:
            return await gather(rows)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def written(folder: Path) -> dict[str, int]:
    """Say when each file was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def asked(box: Sandbox, since: int = 0) -> set[str]:
    """Say whose packages were asked for."""
    calls = box.ledger[since:]
    return {call.params["collectionHash"] for call in calls if "downloadHTML" in call.action}


def each(box: Sandbox) -> set[str]:
    return {f"{name}.zip" for name in box.hashes}


class Line(httpx.AsyncBaseTransport):
    """Lie before a sandbox, let each download take *seconds*, and count those under way."""

    def __init__(self, box: Sandbox, seconds: float) -> None:
        self.inner = box.transport()
        self.seconds = seconds
        self.under_way = self.most = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self.inner.handle_async_request(request)
        if request.url.path.startswith("/packages/"):
            response.stream = _Slow(self, response.stream)
        return response


class _Slow(httpx.AsyncByteStream):
    def __init__(self, line: Line, stream: Any) -> None:
        self._line = line
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        line = self._line
        line.under_way += 1
        line.most = max(line.most, line.under_way)
        try:
            await anyio.sleep(line.seconds)
            async for chunk in self._stream:
                yield chunk
        finally:
            line.under_way -= 1


def over(line: Line, box: Sandbox, **options: Any) -> Flipsnack:
    return Flipsnack(box.api_key, box.api_secret, transport=line, **options)


async def test_an_export_has_one_row_and_one_file_for_each_collection(tmp_path: Path) -> None:
    """
    Without refs, the whole account is exported: files named after hashes, whole, and no others.
    """
    box = Sandbox(collections=30, package_size=SIZE)
    folder = tmp_path / "some" / "where"
    async with client(box) as flipsnack:
        async with flipsnack.export_many(None, folder) as rows:
            taken = await gather(rows)
            progress = rows.progress

    assert set(box.hashes) == taken.keys()
    found = contents(folder)
    assert each(box) == found.keys()
    for name, row in taken.items():
        path, data = folder / f"{name}.zip", found[f"{name}.zip"]
        package = row.package
        assert package is not None
        assert (name, path, SIZE) == (package.collection_hash, package.path, package.size)
        assert SIZE == len(data)
        assert sha256(data).hexdigest() == package.sha256
        assert zipfile.ZipFile(path).testzip() is None
    assert len(found) == len(set(found.values()))
    assert (30, 0, 30) == (progress.done, progress.failed, progress.total)
    assert (len(box.ledger), 30 * SIZE) == (progress.calls, progress.bytes)
    assert 0 == progress.seconds_left
    assert {20} == {call.code for call in box.ledger}


async def test_refs_of_any_kind(tmp_path: Path) -> None:
    """
    Hashes and objects, from a list, a generator or an async generator; each is exported once.
    """
    box = Sandbox(export_seconds=0, rates=())
    a, b, c = box.hashes[:3]

    async def later() -> AsyncIterator[str | Collection]:
        for ref in (a, Collection(b), a, c):
            await anyio.sleep(1)
            yield ref

    kinds: list[Any] = [[a, Collection(b), a, c], iter([a, b, b, c]), later()]
    for number, refs in enumerate(kinds):
        folder, before = tmp_path / str(number), len(box.ledger)
        assert {a, b, c} == (await export(box, folder, refs)).keys()
        assert {f"{name}.zip" for name in (a, b, c)} == set(os.listdir(folder))
        assert 3 == len(box.ledger) - before


async def test_no_refs_make_no_rows(tmp_path: Path) -> None:
    """
    An export of nothing ends at once, without a call, and leaves the folder empty.
    """
    box = Sandbox()
    assert {} == await export(box, tmp_path / "new", [])
    assert [] == os.listdir(tmp_path / "new")
    assert [] == box.ledger


async def test_a_failure_is_a_row(tmp_path: Path) -> None:
    """
    A package that can't be had stops nobody; its row holds the error, and there is no file of it.
    """
    box = Sandbox(collections=10, package_size=SIZE)
    listed = list(box.hashes)
    failing, stalling, gone, html = listed[:4]
    box.fail_export(failing)
    box.stall_export(stalling)
    box.remove(gone)
    box.fail_download(collection_hash=html, body=b"<html>Not now</html>", times=None)
    async with client(box) as flipsnack:
        async with flipsnack.export_many(listed, tmp_path, within=60) as rows:
            taken = await gather(rows)
            progress = rows.progress

    errors = {name: type(row.error) for name, row in taken.items() if row.error}
    assert {
        failing: ExportFailedError,
        stalling: ExportTimeoutError,
        gone: CollectionUnavailableError,
        html: DownloadError,
    } == errors
    assert {f"{name}.zip" for name in listed[4:]} == set(os.listdir(tmp_path))
    assert (10, 4) == (progress.done, progress.failed)
    assert {None} == {row.error.__traceback__ for row in taken.values() if row.error}


async def test_a_failure_is_tried_again_by_the_next_export(tmp_path: Path) -> None:
    """
    An export that ran out of time goes on where it was, in the next run.
    """
    box = Sandbox(collections=5, export_seconds=70)
    first = await export(box, tmp_path, within=30)
    assert {ExportTimeoutError} == {type(row.error) for row in first.values()}
    assert [] == os.listdir(tmp_path)

    again = await export(box, tmp_path)

    assert not [row for row in again.values() if row.error]
    assert each(box) == set(os.listdir(tmp_path))


@pytest.mark.parametrize("code", [41, 44])
async def test_wrong_credentials_end_an_export(tmp_path: Path, code: int) -> None:
    """
    When the key stops working the error itself is raised, and what is on disk by then is whole.
    """
    box = Sandbox(collections=40, export_seconds=0, package_size=SIZE)
    taken = []
    async with client(box) as flipsnack:
        with pytest.raises(AuthenticationError):
            async with flipsnack.export_many(list(box.hashes), tmp_path) as rows:
                async for row in rows:
                    taken.append(row)
                    if len(taken) == 10:
                        box.fail("collection.downloadHTML", code=code, times=None)
        made = len(box.ledger)
        await anyio.sleep(300)

    assert 10 <= len(taken) < 40
    assert made == len(box.ledger)
    assert {SIZE} == {len(data) for data in contents(tmp_path).values()}
    assert {f"{row.collection_hash}.zip" for row in taken} <= set(os.listdir(tmp_path)) <= each(box)


async def test_a_listing_that_fails_ends_the_export(tmp_path: Path) -> None:
    """
    An account that can't be listed has no rows: its error is raised, not an exception group.
    """
    box = Sandbox()
    box.fail("collection.getList", code=40)
    with pytest.raises(Exception, match="code 40"):
        await export(box, tmp_path)


async def test_what_the_callers_iterator_raises_comes_through(tmp_path: Path) -> None:
    """
    An error in the refs is the caller's own, and comes back as it was.
    """
    box = Sandbox(export_seconds=0)

    async def refs() -> AsyncIterator[str]:
        yield box.hashes[0]
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await export(box, tmp_path, refs())


async def test_an_error_in_the_block_is_not_wrapped(tmp_path: Path) -> None:
    """
    What the caller raises while exporting leaves the block as it is.
    """
    async with client(Sandbox(export_seconds=0)) as flipsnack:
        with pytest.raises(LookupError, match="mine"):
            async with flipsnack.export_many(None, tmp_path) as rows:
                async for _ in rows:
                    raise LookupError("mine")


async def test_f14_an_export_is_taken_up_where_it_was_broken_off(tmp_path: Path) -> None:
    """
    Files that are there and whole are checked, and cost no call; what is missing is fetched.
    """
    box = Sandbox(collections=20, package_size=SIZE)
    first = await export(box, tmp_path, list(box.hashes[:12]))
    before, stamps = len(box.ledger), written(tmp_path)
    async with client(box) as flipsnack:
        async with flipsnack.export_many(list(box.hashes), tmp_path) as rows:
            second = await gather(rows)
            fetched = rows.progress.bytes

    assert set(box.hashes[12:]) == asked(box, before)
    assert 8 * SIZE == fetched
    assert first.items() <= second.items()
    assert set(box.hashes) == second.keys()
    assert each(box) == set(os.listdir(tmp_path))
    assert stamps.items() <= written(tmp_path).items()

    made = len(box.ledger)
    assert second == await export(box, tmp_path, list(box.hashes))
    assert made == len(box.ledger)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[SIZE // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, SIZE - 1)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"and more")


def page(path: Path) -> None:
    path.write_bytes(b"<html>Sorry</html>")


def dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


@pytest.mark.parametrize("spoil", [flip, truncate, empty, grow, page, dangle])
async def test_a_broken_file_is_fetched_anew(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """
    What is in a package's place and not whole is replaced, and its neighbours are left alone.
    """
    box = Sandbox(collections=4, package_size=SIZE)
    first = await export(box, tmp_path)
    before, whole = len(box.ledger), contents(tmp_path)
    broken = box.hashes[2]
    spoil(tmp_path / f"{broken}.zip")

    second = await export(box, tmp_path, list(box.hashes))

    assert {broken} == asked(box, before)
    assert first == second
    assert whole == contents(tmp_path)


async def test_a_folder_in_a_files_place_is_a_row(tmp_path: Path) -> None:
    """
    Where a file cannot be put, the row says so before any call, and the others are saved.
    """
    box = Sandbox(collections=3, export_seconds=0)
    (tmp_path / f"{box.hashes[1]}.zip" / "mine").mkdir(parents=True)

    taken = await export(box, tmp_path)

    assert isinstance(taken[box.hashes[1]].error, InvalidArgumentError)
    assert {box.hashes[0], box.hashes[2]} == asked(box)
    assert (tmp_path / f"{box.hashes[1]}.zip" / "mine").is_dir()


async def test_leaving_early_leaves_whole_files_only(tmp_path: Path) -> None:
    """
    After a break no call goes out any more, and no file is there that is not whole.
    """
    box = Sandbox(collections=30, export_seconds=0, package_size=SIZE)
    line = Line(box, 3)
    async with over(line, box) as flipsnack:
        async with flipsnack.export_many(None, tmp_path) as rows:
            for _ in range(6):
                await anext(rows)
            assert [name for name in os.listdir(tmp_path) if name.endswith(".part")]
        made = len(box.ledger)
        found = contents(tmp_path)
        await anyio.sleep(300)

        assert made == len(box.ledger)
        assert found == contents(tmp_path)
        assert 0 == line.under_way
        assert 6 <= len(found) < 30
        assert {SIZE} == {len(data) for data in found.values()}
        assert found.keys() <= each(box)
        await flipsnack.user.get_stats()
        assert {0} == set(flipsnack.quota.statistics().waiting.values())


async def test_a_deadline_around_an_export_cuts_it_off(tmp_path: Path) -> None:
    """
    A deadline fails no row before it strikes, and leaves whole files only, whenever that is.
    """
    box = Sandbox(collections=100, export_seconds=20, package_size=SIZE)
    for number, seconds in enumerate((0.5, 25, 61)):
        folder, line, taken = tmp_path / str(number), Line(box, 1), []
        async with over(line, box) as flipsnack:
            with anyio.move_on_after(seconds) as scope:
                async with flipsnack.export_many(list(box.hashes), folder) as rows:
                    async for row in rows:
                        taken.append(row)
            assert scope.cancelled_caught
            await anyio.sleep(120)
            assert [5, 60] == list(flipsnack.quota.statistics().free.values())
        assert not [row.error for row in taken if row.error]
        assert {len(data) for data in contents(folder).values()} <= {SIZE}
        assert len(taken) <= len(os.listdir(folder)) < 100


async def test_progress_tells_how_far_it_is(tmp_path: Path) -> None:
    """
    Rows, failures, calls and bytes count up, and the time left comes down to nothing.
    """
    box = Sandbox(collections=40, package_size=SIZE)
    box.fail_export(box.hashes[7])
    seen = []
    async with client(box) as flipsnack:
        async with flipsnack.export_many(list(box.hashes), tmp_path) as rows:
            seen.append(rows.progress)
            began = anyio.current_time()
            async for _ in rows:
                seen.append(rows.progress)
            took = anyio.current_time() - began

    assert list(range(41)) == [progress.done for progress in seen]
    assert {40} == {progress.total for progress in seen}
    for name in ("failed", "calls", "bytes"):
        numbers = [getattr(progress, name) for progress in seen]
        assert sorted(numbers) == numbers
    last = seen[-1]
    assert (1, 39 * SIZE, len(box.ledger)) == (last.failed, last.bytes, last.calls)
    left = [cast(float, progress.seconds_left) for progress in seen]
    assert 0.5 * took <= left[0] <= 1.5 * took
    assert 0 == left[-1]
    assert all(0 <= seconds < math.inf for seconds in left)


async def test_the_total_is_unknown_until_all_refs_are(tmp_path: Path) -> None:
    """
    While refs come one by one, nobody can tell how many there are, nor how long it takes.
    """
    box = Sandbox(collections=3, export_seconds=0)

    async def later() -> AsyncIterator[str]:
        for name in box.hashes:
            yield name
            await anyio.sleep(10)

    async with client(box) as flipsnack:
        async with flipsnack.export_many(later(), tmp_path) as rows:
            await anext(rows)
            assert (None, None) == (rows.progress.total, rows.progress.seconds_left)
            assert 2 == len(await gather(rows))
            assert (3, 0) == (rows.progress.total, rows.progress.seconds_left)


async def test_f18_four_downloads_at_once_over_links_that_are_fresh(tmp_path: Path) -> None:
    """
    No more than four are fetched at the same time, and whoever waits asks for its link anew.
    """
    box = Sandbox(collections=20, export_seconds=0, package_size=SIZE)
    line = Line(box, 25)
    async with over(line, box) as flipsnack:
        began = anyio.current_time()
        async with flipsnack.export_many(None, tmp_path) as rows:
            taken = await gather(rows)
        took = anyio.current_time() - began

    assert 4 == line.most
    assert not [row.error for row in taken.values() if row.error]
    assert {200} == {download.status for download in box.downloads}
    assert 20 == len(box.downloads)
    assert took <= 20 / 4 * 25 + 10


async def test_at_once_bounds_the_packages_under_way(tmp_path: Path) -> None:
    """
    No more exports than asked for have been started and are not finished.
    """
    box = Sandbox(collections=12)
    async with client(box) as flipsnack:
        async with flipsnack.export_many(list(box.hashes), tmp_path, at_once=3) as rows:
            await anyio.sleep(15)
            assert 3 == len(asked(box))
            assert 12 == len(await gather(rows))


async def test_a_slow_reader_slows_the_export(tmp_path: Path) -> None:
    """
    Not more packages are saved ahead of the reader than may be under way at once.
    """
    box = Sandbox(collections=20, export_seconds=0)
    async with client(box) as flipsnack:
        async with flipsnack.export_many(list(box.hashes), tmp_path, at_once=3) as rows:
            await anext(rows)
            await anyio.sleep(500)
            assert 4 == len(box.ledger)
            assert 4 == len(os.listdir(tmp_path))
            assert 19 == len(await gather(rows))


@pytest.mark.parametrize("seed", [1, 2])
async def test_an_export_takes_few_calls_and_little_time(tmp_path: Path, seed: int) -> None:
    """
    A hundred exports of 10 to 90 s: at most 2.4 calls each, and 1.15 of the least time.
    """
    chance = random.Random(seed)  # noqa: S311  no secret
    box = Sandbox(
        collections=100,
        export_seconds=lambda: chance.uniform(10, 90),
        latency=0.1,
        count_refused=True,
    )
    async with client(box) as flipsnack:
        began = anyio.current_time()
        async with flipsnack.export_many(list(box.hashes), tmp_path) as rows:
            taken = await gather(rows)
        took = anyio.current_time() - began

    assert not [row.error for row in taken.values() if row.error]
    assert {20} == {call.code for call in box.ledger}
    print(f"seed {seed}: {len(box.ledger)} calls in {took:.1f} s")
    assert len(box.ledger) <= 240
    assert took <= 215


@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", "..", ".", "", "/x", "a\\b", "C:x", "a\0b", "a\n", "x.zip", "ü", "x" * 101],
)
async def test_a_hostile_hash_never_leaves_the_folder(tmp_path: Path, name: str) -> None:
    """
    What would be no plain name of a file is a row with an error, costs no call, and writes nothing.
    """
    box = Sandbox(collections=2, export_seconds=0)
    folder = tmp_path / "deep" / "folder"

    taken = await export(box, folder, [name, *box.hashes])

    assert isinstance(taken[name].error, DownloadError)
    assert {name, *box.hashes} == taken.keys()
    assert set(box.hashes) == asked(box)
    assert each(box) == set(os.listdir(folder))
    assert (["deep"], ["folder"]) == (os.listdir(tmp_path), os.listdir(tmp_path / "deep"))


async def test_what_is_no_ref_ends_the_export(tmp_path: Path) -> None:
    """
    A number among the refs is a mistake of the caller's, told after the rows before it.
    """
    box = Sandbox(collections=2, export_seconds=0)
    refs: Any = [*box.hashes, 7]
    async with client(box) as flipsnack:
        with pytest.raises(InvalidArgumentError, match="ref"):
            async with flipsnack.export_many(refs, tmp_path) as rows:
                await gather(rows)

    assert each(box) == set(os.listdir(tmp_path))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[(name, value) for name in ("every", "within") for value in (0, -1, math.inf, math.nan)],
        *[("at_once", value) for value in (0, -1, 1.5, True, None)],
    ],
)
async def test_arguments_are_checked_before_a_call(
    tmp_path: Path, option: str, value: object
) -> None:
    """
    A wrong number raises when the export is described, not in each of its rows.
    """
    box = Sandbox()
    options: dict[str, Any] = {option: value}
    async with client(box) as flipsnack:
        with pytest.raises(InvalidArgumentError, match=option) as caught:
            flipsnack.export_many(None, tmp_path / "new", **options)

    assert option == caught.value.field
    assert [] == box.ledger
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize("place", ["file", "file/below"])
async def test_a_folder_that_is_none_is_refused_before_a_call(tmp_path: Path, place: str) -> None:
    """
    Where a file stands in the folder's way it is said so, and the file stays.
    """
    (tmp_path / "file").write_bytes(b"mine")
    box = Sandbox()
    async with client(box) as flipsnack:
        with pytest.raises(InvalidArgumentError) as caught:
            async with flipsnack.export_many(None, tmp_path / place):
                raise AssertionError

    assert "folder" == caught.value.field
    assert b"mine" == (tmp_path / "file").read_bytes()
    assert [] == box.ledger


async def test_f13_who_waits_for_long_is_not_swept_away(tmp_path: Path) -> None:
    """
    Of two exports into one folder, the later one does not take the earlier one for left behind.
    """
    box = Sandbox(collections=3, package_size=SIZE)
    async with client(box) as flipsnack:
        async with flipsnack.export_many(list(box.hashes), tmp_path) as rows:
            await anyio.sleep(10)
            for name in os.listdir(tmp_path):  # as if an hour had passed, which exports may take
                os.utime(tmp_path / name, (0, 0))
            async with flipsnack.export_many(list(box.hashes), tmp_path) as others:
                for taken in (await gather(others), await gather(rows)):
                    assert not [row.error for row in taken.values() if row.error]

    assert each(box) == set(os.listdir(tmp_path))
